from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pytest

from headgate.controller.backtest.contenders import contender, names
from headgate.controller.backtest.figures import average, figures, utilities
from headgate.controller.backtest.grid import Trace
from headgate.controller.backtest.service import Constant, Exponential, Laws
from headgate.controller.backtest.simulation import simulate
from headgate.controller.backtest.world import Outcome, World
from headgate.core.model import Observation

WORLD = World(laws=Laws(Constant(0.1), {}), budget=4000, latency=0.5)


@dataclass
class Recorder:
    """Keeps what it was shown and gives what it was told to."""

    grants: Mapping[str, int]
    interval: float = 10.0
    name: str = "recorder"

    def __post_init__(self) -> None:
        self.seen: list[tuple[float, Observation]] = []

    def decide(self, state: object, observation: Observation, now: float) -> tuple[object, Mapping[str, int]]:
        self.seen.append((now, observation))
        return (state or 0), self.grants


def steady(requests: float, minutes: int = 3, pipelines: int = 2) -> Trace:
    names = tuple("abcdefgh"[:pipelines])
    return Trace(names, np.full((minutes, pipelines), float(requests)))


def test_every_request_is_accounted_for_and_samples_tell_only_the_past() -> None:
    policy = Recorder({"a": 2000, "b": 2000})
    outcome = simulate(steady(300), WORLD, policy)
    assert [now for now, _ in policy.seen[:18]] == [10.0 * k for k in range(1, 19)]
    for name, column in (("a", 0), ("b", 1)):
        samples = [observation.samples[name] for _, observation in policy.seen[:18]]
        assert sum(s.arrivals or 0 for s in samples) == outcome.requests[:, column].sum()
        used = sum(s.cpu_seconds or 0 for s in samples)
        assert used == pytest.approx(outcome.used[:, column].sum() * 60)
        # Constant service times: busy time is 0.1 s for each request, but for what is under way at the end.
        assert used == pytest.approx(0.1 * sum(s.completions or 0 for s in samples), abs=0.3)
        assert all(s.service_cv == pytest.approx(0.0, abs=1e-6) for s in samples)
    # Six minutes' expectation, within five standard deviations of a Poisson variable.
    assert abs(outcome.requests.sum() - 1800) < 5 * math.sqrt(1800)
    assert (outcome.late.sum(), outcome.dropped.sum()) == (0, 0)
    assert outcome.moved == 2000
    # One CPU each for the first ten seconds of 60, two from then on.
    np.testing.assert_allclose(outcome.granted[:, 0], [11 / 6, 2, 2])


def test_policies_meet_the_same_requests() -> None:
    few, many = (simulate(steady(900), WORLD, Recorder({"a": g, "b": g})) for g in (500, 2000))
    np.testing.assert_array_equal(few.requests, many.requests)
    other = simulate(steady(900), replace(WORLD, seed=1), Recorder({"a": 500, "b": 500}))
    assert (other.requests != few.requests).any()


def test_the_mean_latency_is_that_of_m_m_1() -> None:
    # The median of M/M/1's exponential response time at mu = 10, lambda = 5.
    world = replace(WORLD, laws=Laws(Exponential(0.1), {}), bound=10_000, percentile=50.0)
    outcome = simulate(steady(300, minutes=600, pipelines=1), world, Recorder({"a": 1000}))
    assert outcome.latency.mean() == pytest.approx(math.log(2) / (10 - 5), rel=0.05)


def test_a_pipeline_without_cpus_is_reported_as_dropping_everything() -> None:
    outcome = simulate(steady(60, minutes=2), WORLD, Recorder({"a": 0, "b": 1000}))
    assert outcome.dropped[1, 0] == outcome.requests[1, 0] > 0
    assert outcome.dropped[:, 1].sum() == 0
    assert math.isinf(outcome.latency[1, 0])


def test_a_new_replica_serves_after_its_start() -> None:
    world = replace(WORLD, step=1000, start=35.0, release=30.0, latency=0.2)
    # 15 requests/s need 1.5 CPUs: one is not enough until 10 + 35 s.
    policy = Recorder({"a": 3000, "b": 1000})
    outcome = simulate(steady(900, minutes=3), world, policy)
    grants = [observation.granted["a"] for _, observation in policy.seen]
    assert grants[:2] == [1000, 3000]
    assert outcome.late[0, 0] + outcome.dropped[0, 0] > 0.5 * outcome.requests[0, 0]
    assert outcome.late[2, 0] + outcome.dropped[2, 0] < 0.05 * outcome.requests[2, 0]


@pytest.mark.parametrize("name", names())
def test_every_contender_keeps_the_budget_and_serves_a_light_load(name: str) -> None:
    trace = steady(300, minutes=6, pipelines=3)
    world = replace(WORLD, step=1000, start=35.0, release=30.0, budget=6000)
    chosen = contender(name, trace, world, interval=10.0, floor=1000)
    outcome = simulate(trace, chosen.world, chosen.policy)
    assert (outcome.granted.sum(axis=1) <= 6 + 1e-9).all()
    assert (outcome.granted >= 1 - 1e-9).all()
    assert outcome.dropped.sum() == 0
    assert outcome.late[2:].sum() <= 0.02 * outcome.requests[2:].sum()


def test_the_oracle_knows_the_next_minute() -> None:
    requests = np.array([[60.0, 1800.0], [1800.0, 60.0], [60.0, 1800.0], [1800.0, 60.0]])
    trace = Trace(("a", "b"), requests)
    world = replace(WORLD, budget=5000)
    chosen = contender("oracle-free", trace, world, interval=10.0, floor=500)
    outcome = simulate(trace, chosen.world, chosen.policy)
    assert (outcome.late + outcome.dropped)[1:].sum() == 0


def test_figures_by_hand() -> None:
    outcome = Outcome(
        policy="x",
        requests=np.array([[100, 0], [50, 200]]),
        late=np.array([[10, 0], [0, 2]]),
        dropped=np.array([[10, 0], [0, 2]]),
        latency=np.array([[math.inf, 0.0], [0.25, 1.0]]),
        granted=np.full((2, 2), 1.5),
        used=np.full((2, 2), 0.5),
        moved=2500,
        decision_seconds=np.array([0.001, 0.003]),
    )
    found = figures(outcome, WORLD)
    assert found.slo_violation_rate == pytest.approx((0.2 + 0 + 0 + 0.02) / 4)
    # Utilities: 0 and 1 in the first minute, 1 and 0.5 / 1.0 in the second.
    np.testing.assert_array_equal(utilities(outcome, WORLD), [[0, 1], [1, 0.5]])
    assert found.lost_utility == pytest.approx(2 - (1 + 1.5) / 2)
    assert found.request_violation_rate == pytest.approx(24 / 350)
    assert (found.requests, found.dropped, found.moves) == (350, 12, 2.5)
    assert found.cpu_hours_granted == pytest.approx(4 * 1.5 / 60)
    assert found.cpu_hours_used == pytest.approx(4 * 0.5 / 60)
    assert found.decision_median_ms == pytest.approx(2.0)
    assert average([found, replace(found, lost_utility=0.25, dropped=13)]).lost_utility == pytest.approx(0.5)
