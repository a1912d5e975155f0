"""CPU in use in the place of requests that nobody counts."""

from __future__ import annotations

from typing import Any

import pytest

from headgate.core.allocation import allocate
from headgate.core.calm import Calm, Quiet, changed, settled, stabilised
from headgate.core.demand import default_estimator
from headgate.core.demand.usage import Usage
from headgate.core.model import Budget, Demand, Pipeline, Sample, Slo, Unknown

ESTIMATOR = default_estimator(15.0)
MORE = Usage(ESTIMATOR.outlook, ESTIMATOR.counter).more


def used(*cpus: float, granted: int | None = None, start: float = 0.0) -> list[Sample]:
    """Samples of 15 s each of so many CPUs in use."""
    return [
        Sample("p", start + 15.0 * i, 15.0, cpu_seconds=15.0 * one, granted=granted)
        for i, one in enumerate(cpus, start=1)
    ]


def learned(samples: list[Sample], state: Any = None) -> Any:
    for sample in samples:
        state = ESTIMATOR.update(state, sample)
    return state


def demand(samples: list[Sample], later: float = 0.0, state: Any = None) -> Demand | Unknown:
    return ESTIMATOR.estimate(learned(samples, state), samples[-1].time + later)


def load(samples: list[Sample], state: Any = None) -> float:
    found = demand(samples, state=state)
    assert isinstance(found, Demand)
    return found.offered_load


def counted(count: int, cost: float = 0.05, rate: float = 10.0) -> list[Sample]:
    amount = rate * 15.0
    return [Sample("p", 15.0 * i, 15.0, amount, amount, cpu_seconds=amount * cost) for i in range(1, count + 1)]


def test_the_cpu_in_use_is_the_load() -> None:
    found = demand(used(*[0.6] * 10, granted=1000))
    assert isinstance(found, Demand)
    assert found.basis == "cpu"
    assert found.offered_load == pytest.approx(0.6, rel=0.05)


def test_use_at_the_grant_counts_for_more() -> None:
    assert load(used(*[1.0] * 10, granted=1000)) == pytest.approx(MORE, rel=0.05)
    # Just below: quotas and clocks round.
    assert load(used(*[0.96] * 10, granted=1000)) == pytest.approx(0.96 * MORE, rel=0.05)


def test_use_at_the_grant_never_lowers_what_was_known() -> None:
    # 2 CPUs in use of 3; then the grant is cut to 1, all of which is in use: the need is still at least 2.
    state = learned(used(*[2.0] * 5, granted=3000))
    assert load(used(*[1.0] * 5, granted=1000, start=75.0), state) == pytest.approx(2.0, rel=0.05)
    # Less than the grant in use is the truth again.
    assert load(used(*[0.5] * 20, granted=1000, start=150.0), state) == pytest.approx(0.5, rel=0.1)


def test_a_grant_that_is_exceeded_limits_nothing() -> None:
    # A request without a limit.
    assert load(used(*[1.5] * 10, granted=1000)) == pytest.approx(1.5, rel=0.05)


def test_a_stale_sample_says_nothing() -> None:
    assert isinstance(demand(used(0.5, 0.5), later=74.0), Demand)
    found = demand(used(0.5, 0.5), later=76.0)
    assert isinstance(found, Unknown)
    assert "76 s old" in found.reason


def test_counted_requests_win_as_soon_as_they_are_there() -> None:
    state = learned(used(*[1.0] * 5, granted=1000))
    found = demand([Sample("p", 90.0, 15.0, 30.0, 30.0, cpu_seconds=1.5)], state=state)
    assert isinstance(found, Demand)
    assert found.basis == "requests"
    assert found.offered_load == pytest.approx(2.0 * 0.05, rel=0.3)


def test_with_a_cost_that_was_learned_the_cpu_in_use_is_a_rate() -> None:
    # 10 requests a second of 0.05 s; then nobody counts them, and 1 CPU is in use: 20 a second.
    found = demand(used(*[1.0] * 10, start=450.0), state=learned(counted(30)))
    assert isinstance(found, Demand)
    assert found.basis == "cost"
    assert found.cpu_seconds_per_request == pytest.approx(0.05, rel=0.05)
    assert found.arrival_rate == pytest.approx(20.0, rel=0.1)


def test_a_source_that_misses_a_read_does_not_change_what_a_pipeline_is_known_by() -> None:
    found = demand(used(0.5, start=450.0), state=learned(counted(30)))
    assert isinstance(found, Demand)
    assert found.basis == "requests"


def test_no_cpu_in_use_is_no_load() -> None:
    assert load(used(*[0.0] * 10, granted=1000)) == pytest.approx(0.0, abs=0.01)


def by_cpu(cpus: float) -> Demand:
    return Demand((cpus / 0.02,), 0.02, basis="cpu")


def test_proportional_shares_by_it_and_says_so() -> None:
    pipelines = [Pipeline("a"), Pipeline("b")]
    found = allocate(pipelines, {"a": by_cpu(1.2), "b": by_cpu(0.4)}, Budget(2000), current={})
    assert found.grants == {"a": 1500, "b": 500}
    assert "offered load 1.2 CPUs (by the CPU in use alone: requests are not counted)" in found.reasons["a"]


def test_slo_serves_its_load_and_judges_no_latency() -> None:
    # Of a request of unknown size nobody can tell how long it takes: what counts is the share of the load served.
    slo = Slo(0.01, 99)  # less than a piece of work of 20 ms takes
    pipelines = [Pipeline("a", slo=slo), Pipeline("b", slo=Slo(1.0))]
    demands = {"a": by_cpu(0.5), "b": Demand((5.0,), 0.1)}
    for policy in ("slo", "slo-fair", "slo-fairsum"):
        found = allocate(pipelines, demands, Budget(2000), current={}, policy=policy)
        assert found.grants["a"] >= 500, policy
        assert "100.0% of its load is served" in found.reasons["a"]
        assert "no SLO can be judged" in found.reasons["a"]
        assert "expected in time" in found.reasons["b"]


def test_what_was_inferred_is_not_held_once_requests_are_counted() -> None:
    calm = Calm(stabilisation=60.0)
    quiet = Quiet()
    for time, each in ((0.0, by_cpu(1.2)), (10.0, Demand((5.0,), 0.1))):
        held, recent = stabilised(quiet, {"p": each}, calm, time)
        quiet = Quiet(recent=recent)
    assert held["p"] == Demand((5.0,), 0.1)
    # The other way round the higher load is held, as ever.
    held, _ = stabilised(quiet, {"p": by_cpu(0.3)}, calm, 20.0)
    assert held["p"] == Demand((5.0,), 0.1)


def test_cpus_are_divided_anew_when_a_latency_can_be_told_again() -> None:
    quiet = Quiet(settled({"p": by_cpu(0.5)}, {}))
    assert changed(quiet, {"p": by_cpu(0.5)}, Calm(), {"p": 1000}) is None
    assert changed(quiet, {"p": Demand((5.0,), 0.1)}, Calm(), {"p": 1000}) == "p"
