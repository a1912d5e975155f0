"""The scheduler as a state machine: random events at random times, and after each the rules that hold."""

from __future__ import annotations

import math

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from headgate.engine.scheduler import BURST, CREDIT, Job, Limits, QueueFull, Scheduler

NAMES = ("a", "b", "c")


class Events(RuleBasedStateMachine):
    """Submits, ends, grants and time in any order; CPU time of a job is at most the time that it ran."""

    @initialize(
        budget=st.integers(1, 4000),
        lend=st.booleans(),
        ceilings=st.lists(st.integers(1, 4000), min_size=3, max_size=3),
        queue=st.integers(1, 4),
    )
    def begin(self, budget: int, lend: bool, ceilings: list[int], queue: int) -> None:
        self.budget = budget
        self.most_budget = budget
        self.configured = dict(zip(NAMES, ceilings, strict=True))
        limits = [Limits(name, self.configured[name], 1.0 + index, queue) for index, name in enumerate(NAMES)]
        self.now = 1000.0
        self.began = self.now
        self.scheduler = Scheduler(limits, budget, lend=lend, now=self.now)
        self.running: dict[Job, float] = {}
        self.submitted: dict[str, list[Job]] = {name: [] for name in NAMES}
        self.started: dict[str, list[Job]] = {name: [] for name in NAMES}
        self.dearest = 0.0
        self.unlent: dict[str, float] = dict.fromkeys(NAMES, 0.0)
        """CPU seconds that each used on its own account."""
        self.entitled: dict[str, float] = dict.fromkeys(NAMES, 0.0)
        """CPU seconds that its grants have added up to."""
        self.most_slots: dict[str, int] = dict.fromkeys(NAMES, 0)
        self.ended: dict[str, int] = dict.fromkeys(NAMES, 0)
        """Jobs that used CPU time, after which the cost of one is known."""
        self.wait(0.0)

    @property
    def ceilings(self) -> dict[str, int]:
        return {name: min(self.budget, ceiling) for name, ceiling in self.configured.items()}

    def take(self, jobs: list[Job]) -> None:
        for job in jobs:
            if job.borrowed:
                assert self.scheduler.lend
                assert len(self.running) < math.ceil(self.budget / 1000), "borrowed a CPU that is not idle"
                mine = sum(other.pipeline == job.pipeline for other in self.running)
                assert mine < math.ceil(self.ceilings[job.pipeline] / 1000)
            self.running[job] = self.now
            self.started[job.pipeline].append(job)

    def wait(self, seconds: float) -> None:
        self.now += seconds
        for name, grant in self.scheduler.grants.items():
            self.entitled[name] += grant / 1000 * seconds

    @rule(name=st.sampled_from(NAMES))
    def submit(self, name: str) -> None:
        full = self.scheduler.waiting(name) >= self.scheduler._lines[name].limits.queue
        job = Job(name, None)
        try:
            started = self.scheduler.submit(job, self.now)
        except QueueFull:
            assert full
            return
        assert not full
        self.submitted[name].append(job)
        self.take(started)

    @rule(data=st.data(), share=st.floats(0, 1))
    def finish(self, data: st.DataObject, share: float) -> None:
        if not self.running:
            return
        job = data.draw(st.sampled_from(sorted(self.running, key=lambda j: self.submitted[j.pipeline].index(j))))
        cpu = share * (self.now - self.running.pop(job))
        self.dearest = max(self.dearest, cpu)
        self.ended[job.pipeline] += cpu > 0
        if not job.borrowed:
            self.unlent[job.pipeline] += cpu
        self.take(self.scheduler.finished(job, cpu, self.now))

    @rule(
        shares=st.lists(st.integers(0, 100), min_size=3, max_size=3),
        spare=st.integers(0, 100),
        budget=st.none() | st.integers(1, 4000),
    )
    def apply(self, shares: list[int], spare: int, budget: int | None) -> None:
        self.budget = self.budget if budget is None else budget
        self.most_budget = max(self.most_budget, self.budget)
        total = max(1, sum(shares) + spare)
        grants = {
            name: min(self.ceilings[name], self.budget * share // total)
            for name, share in zip(NAMES, shares, strict=True)
        }
        self.take(self.scheduler.apply(grants, self.now, budget))
        for name, grant in grants.items():
            self.most_slots[name] = max(self.most_slots[name], math.ceil(grant / 1000))

    @rule(name=st.sampled_from(NAMES), over=st.integers(1, 1000))
    def apply_too_much(self, name: str, over: int) -> None:
        before = self.scheduler.grants
        for budget in (None, self.budget + over - 1):
            with pytest.raises(ValueError, match=r"budget|ceiling"):
                self.scheduler.apply({**dict.fromkeys(NAMES, 0), name: self.budget + over}, self.now, budget)
        assert self.scheduler.grants is before
        assert self.scheduler.budget == self.budget

    @rule(seconds=st.floats(0, 0.5))
    def pass_time(self, seconds: float) -> None:
        self.wait(seconds)
        self.take(self.scheduler.wake(self.now))

    @rule()
    def pass_time_until_the_next_wake(self) -> None:
        due = self.scheduler.next_wake()
        if due is not None:
            self.wait(max(0.0, due - self.now))
            started = self.scheduler.wake(self.now)
            again = self.scheduler.next_wake()
            # A wake-up that starts nothing is followed by a later one, or the timer would spin.
            assert started or again is None or again > due or due <= self.now
            self.take(started)

    @invariant()
    def first_in_first_out(self) -> None:
        for name in NAMES:
            assert self.started[name] == self.submitted[name][: len(self.started[name])]

    @invariant()
    def nothing_is_lost_or_run_twice(self) -> None:
        for name in NAMES:
            assert len(self.started[name]) + self.scheduler.waiting(name) == len(self.submitted[name])
            assert self.scheduler.running(name) == sum(job.pipeline == name for job in self.running)

    @invariant()
    def slots_bound_what_runs_on_its_own(self) -> None:
        for name in NAMES:
            own = sum(job.pipeline == name and not job.borrowed for job in self.running)
            assert own <= max(self.most_slots[name], 1)

    @invariant()
    def grants_fit_the_budget(self) -> None:
        assert sum(self.scheduler.grants.values()) <= self.budget

    @invariant()
    def nobody_uses_more_than_its_grants_one_burst_and_its_credit(self) -> None:
        for name in NAMES:
            most = min(self.most_budget, self.configured[name]) / 1000
            # A debt down to the credit is no more than that, however often it was paid off.
            burst = CREDIT * most + BURST * most + 2 * self.dearest
            # The last jobs of each slot may end in debt, by what they cost.
            debt = max(1, self.most_slots[name]) * self.dearest
            assert self.unlent[name] <= self.entitled[name] + burst + debt + 1e-6

    @invariant()
    def work_is_conserved(self) -> None:
        """Who has work, a slot and tokens runs; with `lend`, no CPU stands idle that may be borrowed."""
        for line in self.scheduler._backlog.values():
            assert line.waiting
            assert len(line.running) >= line.slots or line.own.advance(self.now) <= 0
            assert line.running or not line.rested or line.own.level <= -line.credit
            if self.scheduler.lend and len(self.running) < self.scheduler.cpus:
                total = len(line.running) + len(line.borrowing)
                assert (
                    total >= math.ceil(self.ceilings[line.limits.name] / 1000)
                    or line.cap.advance(self.now) <= 0
                    or self.scheduler._root.advance(self.now) <= 0
                )


Events.TestCase.settings = settings(max_examples=60, stateful_step_count=60)
TestEvents = Events.TestCase


def simulate(scheduler: Scheduler, costs: dict[str, float], seconds: float) -> dict[str, float]:
    """CPU seconds of each pipeline when all are saturated and each job uses as much CPU as time passes."""
    used = dict.fromkeys(costs, 0.0)
    ends: list[tuple[float, Job]] = []
    now = 0.0

    def take(jobs: list[Job]) -> None:
        for job in jobs:
            ends.append((now + costs[job.pipeline], job))
            refill.append(job.pipeline)

    refill = [name for name in costs for _ in range(8)]
    while now < seconds:
        while refill:
            take(scheduler.submit(Job(refill.pop(), None), now))
        ends.sort(key=lambda end: end[0])
        wake = scheduler.next_wake()
        if ends and (wake is None or ends[0][0] <= wake):
            now, job = ends.pop(0)
            used[job.pipeline] += costs[job.pipeline]
            take(scheduler.finished(job, costs[job.pipeline], now))
        else:
            assert wake is not None
            now = max(now, wake)
            take(scheduler.wake(now))
    return used


@pytest.mark.parametrize("grant", [100, 250, 500, 1500, 2000])
@pytest.mark.parametrize("cost", [0.0002, 0.002, 0.05, 1.0])
def test_a_saturated_pipeline_gets_exactly_its_grant(grant: int, cost: float) -> None:
    scheduler = Scheduler([Limits("a", 2000, 1.0, 100)], 2000, lend=False, now=0.0)
    scheduler.apply({"a": grant}, 0.0)
    seconds = 2000 * cost
    # At the end a burst may be unspent or a job per slot unpaid.
    slack = BURST * grant / 1000 + CREDIT * 2 + 4 * cost
    assert simulate(scheduler, {"a": cost}, seconds)["a"] == pytest.approx(grant / 1000 * seconds, abs=slack)


def test_a_pipeline_at_rest_runs_on_credit_one_job_at_a_time() -> None:
    scheduler = Scheduler([Limits("a", 1000, 3.0, 9), Limits("b", 1000, 1.0, 9)], 1000, lend=False, now=0.0)
    scheduler.apply({"a": 0, "b": 1000}, 0.0)
    credit = CREDIT * 1.0 * 3 / 4
    (job,) = scheduler.submit(Job("a", None), 0.0)
    for _ in range(4):
        assert scheduler.submit(Job("a", None), 0.0) == []
    (job,) = scheduler.finished(job, 0.4 * credit, 0.1)
    # What is expected of a job is taken at its start: 0.8 of the credit, 1.2 with the next.
    assert not scheduler.exhausted
    (job,) = scheduler.finished(job, 0.4 * credit, 0.2)
    assert scheduler.exhausted
    assert scheduler.finished(job, 0.4 * credit, 0.3) == []
    assert scheduler.wake(100.0) == []
    # The debt is 1.2 of the credit.
    assert scheduler.apply({"a": 500, "b": 500}, 100.0) == []
    assert scheduler.wake(100.0 + 1.1 * credit / 0.5) == []
    assert len(scheduler.wake(100.0 + 1.3 * credit / 0.5)) == 1


def test_a_full_bucket_brings_the_credit_back_and_no_more_than_that() -> None:
    scheduler = Scheduler([Limits("a", 1000, 1.0, 9)], 1000, lend=False, now=0.0)
    scheduler.apply({"a": 100}, 0.0)
    (job,) = scheduler.submit(Job("a", None), 0.0)
    assert scheduler.finished(job, 1.0, 1.0) == []
    assert scheduler.submit(Job("a", None), 1.0) == []
    # 0.9 s of debt at 0.1 CPUs: paid off at 10 s, and full, with two jobs' worth on top, at 10.1 + 20 s.
    (job,) = scheduler.wake(10.1)
    scheduler.exhausted = False
    assert scheduler.finished(job, 0.0, 10.2) == []
    assert not scheduler.exhausted
    (job,) = scheduler.submit(Job("a", None), 60.0)
    assert scheduler.finished(job, 3.0, 61.0) == []
    assert scheduler.exhausted


def test_borrowers_share_idle_cpu_by_weight() -> None:
    limits = [Limits("heavy", 4000, 3.0, 100), Limits("light", 4000, 1.0, 100)]
    scheduler = Scheduler(limits, 4000, lend=True, now=0.0)
    scheduler.apply({"heavy": 0, "light": 0}, 0.0)
    used = simulate(scheduler, {"heavy": 0.02, "light": 0.005}, 100.0)
    assert sum(used.values()) == pytest.approx(4 * 100, rel=0.01)
    assert used["heavy"] / used["light"] == pytest.approx(3.0, rel=0.05)


def test_a_ceiling_holds_for_borrowed_cpu_too() -> None:
    limits = [Limits("capped", 700, 1.0, 100), Limits("idle", 2000, 1.0, 100)]
    scheduler = Scheduler(limits, 2000, lend=True, now=0.0)
    scheduler.apply({"capped": 200, "idle": 1800}, 0.0)
    used = simulate(scheduler, {"capped": 0.01}, 100.0)
    assert used["capped"] == pytest.approx(70, rel=0.01)


def test_an_owner_starts_beside_borrowers_on_all_cpus() -> None:
    limits = [Limits("flood", 2000, 1.0, 100), Limits("owner", 2000, 1.0, 100)]
    scheduler = Scheduler(limits, 2000, lend=True, now=0.0)
    scheduler.apply({"flood": 0, "owner": 1000}, 0.0)
    floods = [job for _ in range(4) for job in scheduler.submit(Job("flood", None), 0.0)]
    # The first runs on its credit.
    assert [job.borrowed for job in floods] == [False, True]
    (job,) = scheduler.submit(Job("owner", None), 0.0 + 0.001)
    assert not job.borrowed


def test_a_job_of_unexpected_cost_leaves_a_debt_that_is_waited_off() -> None:
    scheduler = Scheduler([Limits("a", 1000, 1.0, 100)], 1000, lend=False, now=0.0)
    scheduler.apply({"a": 500}, 0.0)
    (first,) = scheduler.submit(Job("a", None), 1.0)
    scheduler.submit(Job("a", None), 1.0)
    # From empty at 0: a burst of 0.05 s by 1.0, 0.5 s more by 2.0, and 1 s to pay then: 0.45 s of debt at 0.5 a second.
    assert scheduler.finished(first, 1.0, 2.0) == []
    assert scheduler.next_wake() == pytest.approx(2.9, abs=1e-3)


def test_a_smaller_budget_bounds_what_is_lent_from_the_next_start() -> None:
    scheduler = Scheduler([Limits("a", None, 1.0, 100)], 4000, lend=True, now=0.0)
    scheduler.apply({"a": 0}, 0.0)
    (first,) = scheduler.submit(Job("a", None), 0.0)
    scheduler.finished(first, 0.001, 0.001)
    jobs = [job for _ in range(6) for job in scheduler.submit(Job("a", None), 0.001)]
    assert len(jobs) == 4
    assert scheduler.apply({"a": 0}, 0.002, 2000) == []
    assert [job.borrowed for job in jobs] == [False, True, True, True]
    assert [scheduler.finished(job, 0.001, 0.002) for job in jobs[1:3]] == [[], []]
    assert len(scheduler.finished(jobs[3], 0.001, 0.002)) == 1
    assert len(scheduler.apply({"a": 1000}, 0.003, 3000)) == 1
