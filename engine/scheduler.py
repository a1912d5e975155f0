"""Which inference starts when: the scheduler as a state machine without threads, clock or IO.

Events come in with the time at which they happened (`submit`, `finished`, `apply`, `wake`), the jobs to start now come
out. The threads and the clock are `headgate.engine.dispatch`'s.

Each pipeline has a queue in order of arrival and, from its grant of g CPUs,

- ceil(g) slots: how many of its jobs run at once, and
- a token bucket of CPU time that refills at g CPU seconds a second. A job starts while the level is above zero. What a
  job is expected to use is taken at its start and set right at its end, so a dear one leaves a debt that is waited off.

A pipeline at rest has next to no grant, and what it costs may not even be known: grants follow load. So that it does
not wait for the next division when load comes, beside another that uses all CPUs, it has a credit: until it has used
that up it runs one job at a time whatever its grant, and the grant pays the debt off. It has the credit again when its
bucket is full.

A pipeline that has work but no slot or no tokens may *borrow* a CPU that stands idle (`lend`), as a class of Linux's
hierarchical token bucket (tc-htb) borrows from its parent: below its ceiling, while fewer jobs run than the budget has
CPUs and the bucket of the whole budget is above zero. A borrowed job is charged to the budget's bucket and to the
ceiling's, not to the pipeline's own, and is to run at a lower priority, so that an owner never waits for it. Among
several that would borrow, the one with the least borrowed CPU time for its weight goes first (start-time fair
queueing).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from headgate.core.units import MILLI
from headgate.engine.bucket import TokenBucket

BURST = 0.1
"""Seconds of its rate that a bucket saves while nothing runs; two jobs' worth on top, because a burst of less than one
job's CPU time loses 10 to 26 % of the grant."""

CREDIT = 0.1
"""Seconds of its share of the budget by weight that a pipeline at rest may use ahead of its grant."""

COST_GAIN = 0.1
"""How fast the expected CPU time of a job follows what jobs used."""


class QueueFull(Exception):  # noqa: N818 - a refusal, not a failure
    """The pipeline has as many requests waiting as it may."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What does not change about a pipeline: millicores that it never exceeds, its weight, its longest queue."""

    name: str
    ceiling: int | None
    """None: the budget."""
    weight: float
    queue: int


@dataclass(slots=True, eq=False)
class Job:
    """One inference of a pipeline; `payload` is the caller's."""

    pipeline: str
    payload: Any
    borrowed: bool = False
    """Runs on idle CPU, at a low priority."""
    started: float = 0.0
    prepaid: float = 0.0
    """CPU seconds that were taken from the buckets at the start."""


@dataclass(slots=True)
class _Line:
    limits: Limits
    own: TokenBucket
    cap: TokenBucket
    """What it may use at the most, its own and borrowed."""
    ceiling: int = 0
    """Millicores: the rate of `cap`."""
    slots: int = 0
    waiting: deque[Job] = field(default_factory=deque)
    running: set[Job] = field(default_factory=set)
    """On its own CPUs."""
    borrowing: set[Job] = field(default_factory=set)
    credit: float = 0.0
    """CPU seconds that it may use ahead of its grant."""
    rested: bool = True
    """Whether it still has the credit."""
    cost: float = 0.0
    """Expected CPU seconds of a job."""
    borrowed: float = 0.0
    """Virtual time: CPU seconds borrowed, divided by the weight."""

    def may_start(self) -> bool:
        """Whether a job may start on what it was granted, or on credit."""
        slots, least = (max(1, self.slots), -self.credit) if self.rested else (self.slots, 0.0)
        return len(self.running) < slots and self.own.level > least


class Scheduler:
    """The state machine. Not thread-safe: its owner calls one method at a time, with times that never decrease."""

    def __init__(self, pipelines: Iterable[Limits], budget: int, *, lend: bool, now: float) -> None:
        """`budget`: millicores of all pipelines together. No pipeline has a grant before the first `apply`."""
        self.lend = lend
        self.exhausted = False
        """Whether a pipeline has used up its credit, and so waits for a new division. Reset by whoever reads it."""
        self.grants: Mapping[str, int] = {}
        self._root = TokenBucket(0.0, 0.0, now)
        self._lines = {
            limits.name: _Line(limits, own=TokenBucket(0.0, 0.0, now), cap=TokenBucket(0.0, 0.0, now))
            for limits in pipelines
        }
        self._resize(budget, now)
        for line in self._lines.values():
            line.cap.level = line.cap.burst
        self._root.level = self._root.burst
        self._backlog: dict[str, _Line] = {}
        self._running = 0
        self._virtual = 0.0

    def submit(self, job: Job, now: float) -> list[Job]:
        """`job` arrived: the jobs to start now. Raises QueueFull, and then knows nothing of it."""
        line = self._lines[job.pipeline]
        if len(line.waiting) >= line.limits.queue:
            raise QueueFull(job.pipeline)
        if not line.waiting and not line.borrowing:
            # Who did not borrow for a while has not saved up a right to all idle CPUs.
            line.borrowed = max(line.borrowed, self._virtual)
        line.waiting.append(job)
        self._backlog[job.pipeline] = line
        return self._start(now)

    def finished(self, job: Job, cpu_seconds: float, now: float) -> list[Job]:
        """`job` ended and used `cpu_seconds`: the jobs to start now."""
        line = self._lines[job.pipeline]
        line.cost += (COST_GAIN if line.cost else 1.0) * (cpu_seconds - line.cost)
        more = cpu_seconds - job.prepaid
        self._advance(line, now)
        if job.borrowed:
            line.borrowing.remove(job)
            line.borrowed += more / line.limits.weight
        else:
            line.running.remove(job)
            self._charge(line, more)
        line.cap.spend(more)
        self._root.spend(more)
        self._running -= 1
        self._limit(line, now)
        return self._start(now)

    def apply(self, grants: Mapping[str, int], now: float, budget: int | None = None) -> list[Job]:
        """From now on pipelines have `grants` (millicores of each): the jobs to start now.

        `budget`: what they are a division of from now on; None: of what they were. Running jobs go on, debts stay.
        Raises ValueError, and changes nothing, unless `grants` names every pipeline and fits the budget and the
        ceilings.
        """
        budget = self.budget if budget is None else budget
        if set(grants) != set(self._lines):
            raise ValueError(f"grants for {sorted(grants)}, the pipelines are {sorted(self._lines)}")
        if sum(grants.values()) > budget:
            raise ValueError(f"grants of {sum(grants.values())}m exceed the budget of {budget}m")
        for name, grant in grants.items():
            ceiling = _ceiling(self._lines[name].limits, budget)
            if not 0 <= grant <= ceiling:
                raise ValueError(f"{name}: grant {grant}m is not within its ceiling of {ceiling}m")
        if budget != self.budget:
            self._resize(budget, now)
        for name, grant in grants.items():
            line = self._lines[name]
            self._advance(line, now)
            line.own.rate = grant / MILLI
            line.slots = _ceil(grant)
            self._limit(line, now)
        self.grants = dict(grants)
        return self._start(now)

    def wake(self, now: float) -> list[Job]:
        """Time has passed: the jobs to start now."""
        return self._start(now)

    def next_wake(self) -> float | None:
        """When `wake` could start a job if no other event comes first; None: not before another event."""
        times: list[float] = []
        for line in self._backlog.values():
            if len(line.running) < line.slots and (own := line.own.ready_at()) is not None:
                times.append(own)
            if self._may_borrow(line):
                root, cap = self._root.ready_at(), line.cap.ready_at()
                if root is not None and cap is not None:
                    times.append(max(root, cap))
        return min(times, default=None)

    def waiting(self, pipeline: str) -> int:
        """Jobs in the queue of `pipeline`."""
        return len(self._lines[pipeline].waiting)

    def running(self, pipeline: str) -> int:
        """Jobs of `pipeline` that run, borrowed ones included."""
        line = self._lines[pipeline]
        return len(line.running) + len(line.borrowing)

    def _start(self, now: float) -> list[Job]:
        if not self._backlog:
            return []
        jobs: list[Job] = []
        self._root.advance(now)
        for line in list(self._backlog.values()):
            line.own.advance(now)
            line.cap.advance(now)
            while line.waiting and line.may_start():
                jobs.append(self._launch(line, now, borrowed=False))
        if self.lend:
            while self._root.level > 0 and (borrower := self._borrower()) is not None:
                self._virtual = borrower.borrowed
                jobs.append(self._launch(borrower, now, borrowed=True))
        return jobs

    def _borrower(self) -> _Line | None:
        able = [line for line in self._backlog.values() if self._may_borrow(line) and line.cap.level > 0]
        return min(able, key=lambda line: line.borrowed, default=None)

    def _may_borrow(self, line: _Line) -> bool:
        return self.lend and self._running < self.cpus and len(line.running) + len(line.borrowing) < _ceil(line.ceiling)

    def _launch(self, line: _Line, now: float, *, borrowed: bool) -> Job:
        job = line.waiting.popleft()
        if not line.waiting:
            del self._backlog[job.pipeline]
        job.borrowed, job.started, job.prepaid = borrowed, now, line.cost
        self._limit(line, now)
        if borrowed:
            line.borrowing.add(job)
            line.borrowed += job.prepaid / line.limits.weight
        else:
            line.running.add(job)
            self._charge(line, job.prepaid)
        line.cap.spend(job.prepaid)
        self._root.spend(job.prepaid)
        self._running += 1
        return job

    def _charge(self, line: _Line, amount: float) -> None:
        line.own.spend(amount)
        if line.rested and line.own.level <= -line.credit:
            line.rested, self.exhausted = False, True

    def _resize(self, budget: int, now: float) -> None:
        self.budget = budget
        self.cpus = _ceil(budget)
        self._root.advance(now)
        self._root.rate, self._root.burst = budget / MILLI, BURST * budget / MILLI
        weights = sum(line.limits.weight for line in self._lines.values())
        for line in self._lines.values():
            line.cap.advance(now)
            line.ceiling = _ceiling(line.limits, budget)
            line.credit = CREDIT * min(line.ceiling, budget * line.limits.weight / weights) / MILLI
            line.cap.rate, line.cap.burst = line.ceiling / MILLI, BURST * line.ceiling / MILLI

    def _advance(self, line: _Line, now: float) -> None:
        line.own.advance(now)
        line.cap.advance(now)
        self._root.advance(now)

    def _limit(self, line: _Line, now: float) -> None:
        own, borrowed = _unbilled(line.running, now), _unbilled(line.borrowing, now)
        line.own.burst = BURST * line.own.rate + 2 * line.cost
        line.cap.burst = BURST * line.cap.rate + 2 * line.cost
        self._root.burst = max(self._root.burst, BURST * self._root.rate + 2 * line.cost)
        line.own.limit(own)
        line.rested = line.rested or line.own.level >= line.own.burst
        line.cap.limit(own + borrowed)
        others = (other for other in self._lines.values() if other is not line)
        self._root.limit(own + borrowed + sum(_unbilled(o.running, now) + _unbilled(o.borrowing, now) for o in others))


def _unbilled(jobs: set[Job], now: float) -> float:
    """CPU seconds that running jobs may have used beyond what they paid: a thread uses at most the time that passes."""
    return sum(max(0.0, now - job.started - job.prepaid) for job in jobs)


def _ceiling(limits: Limits, budget: int) -> int:
    return budget if limits.ceiling is None else min(budget, limits.ceiling)


def _ceil(millicores: int) -> int:
    return -(-millicores // MILLI)
