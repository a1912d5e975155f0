from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.core.demand import Estimator, Learned, default_estimator
from headgate.core.demand.arrivals import Counter, CounterState, Seen
from headgate.core.model import Demand, Sample, Unknown


def learn(estimator: Estimator, samples: list[Sample], state: Any = None) -> Any:
    for sample in samples:
        state = estimator.update(state, sample)
    return state


def steady(count: int, rate: float = 50.0, cost: float = 0.01) -> list[Sample]:
    return [
        Sample("p", t, 1.0, arrivals=rate, completions=rate, cpu_seconds=rate * cost, queue=0.0)
        for t in range(1, count + 1)
    ]


class TestCounter:
    def update(self, *samples: Sample) -> tuple[CounterState | None, list[Seen | None]]:
        state, result = None, []
        for sample in samples:
            state, one = Counter().update(state, sample)
            result.append(one)
        return state, result

    def test_arrivals_win_over_everything_else(self) -> None:
        _, (one,) = self.update(Sample("p", 1.0, 1.0, arrivals=9.0, completions=5.0, dropped=7.0))
        assert one == Seen("p", 1.0, 1.0, 9.0, 9.0)

    def test_what_left_and_what_stayed_are_arrivals(self) -> None:
        # 5 served, 3 refused, and a queue that grew from 2 to 6.
        _, (_, one) = self.update(
            Sample("p", 1.0, 1.0, completions=5.0, dropped=0.0, queue=2.0),
            Sample("p", 2.0, 1.0, completions=5.0, dropped=3.0, queue=6.0),
        )
        assert one is not None
        assert one.requests == 12.0

    def test_a_saturated_pipeline_never_lowers_the_rate(self) -> None:
        state, (_, lower, higher) = self.update(
            Sample("p", 1.0, 1.0, completions=100.0, cpu_seconds=0.5, granted=1000),
            Sample("p", 2.0, 1.0, completions=80.0, cpu_seconds=0.99, granted=1000),
            Sample("p", 3.0, 1.0, completions=120.0, cpu_seconds=0.99, granted=1000),
        )
        assert lower is not None
        assert higher is not None
        assert lower.requests is None
        assert higher.requests == 120.0
        assert state is not None
        assert state.rate == 120.0

    def test_a_grant_that_is_exceeded_is_no_limit(self) -> None:
        # A request without a limit: 1.5 CPUs in use of 1.
        _, (_, one) = self.update(
            Sample("p", 1.0, 1.0, completions=100.0, cpu_seconds=1.5, granted=1000),
            Sample("p", 2.0, 1.0, completions=80.0, cpu_seconds=1.5, granted=1000),
        )
        assert one is not None
        assert one.requests == 80.0

    def test_a_quota_is_rounded_up(self) -> None:
        # 15m become 20m, all of which is in use.
        _, (_, one) = self.update(
            Sample("p", 1.0, 1.0, completions=100.0, cpu_seconds=0.01, granted=15),
            Sample("p", 2.0, 1.0, completions=80.0, cpu_seconds=0.02, granted=15),
        )
        assert one is not None
        assert one.requests is None

    def test_an_idle_pipeline_lowers_it(self) -> None:
        _, (_, one) = self.update(
            Sample("p", 1.0, 1.0, completions=100.0, cpu_seconds=0.5, granted=1000),
            Sample("p", 2.0, 1.0, completions=80.0, cpu_seconds=0.4, granted=1000),
        )
        assert one is not None
        assert one.requests == 80.0

    def test_a_sample_that_comes_twice_counts_once(self) -> None:
        sample = Sample("p", 1.0, 1.0, arrivals=9.0)
        state, (_, again) = self.update(sample, sample)
        assert again is None
        assert state is not None
        assert state.time == 1.0

    @pytest.mark.parametrize("broken", [math.nan, math.inf, -1.0])
    def test_a_broken_counter_is_missing(self, broken: float) -> None:
        _, (one,) = self.update(Sample("p", 1.0, 1.0, arrivals=broken))
        assert one is not None
        assert one.requests is None


class TestLearned:
    def test_learns_rate_and_cost(self) -> None:
        estimator = default_estimator()
        demand = estimator.estimate(learn(estimator, steady(100)), 100.0)
        assert isinstance(demand, Demand)
        assert demand.arrival_rate == pytest.approx(50.0, rel=0.02)
        assert demand.offered_load == pytest.approx(0.5, rel=0.05)
        assert list(demand.arrival_rates) == sorted(demand.arrival_rates)

    def test_no_metric_is_not_zero_load(self) -> None:
        estimator = default_estimator()
        assert estimator.estimate(None, 0.0) == Unknown("no sample yet")
        silent = learn(estimator, [Sample("p", t, 1.0) for t in range(1, 5)])
        assert estimator.estimate(silent, 4.0) == Unknown("the samples do not say how many requests arrive")
        waiting = [Sample("p", t, 1.0, arrivals=1.0, completions=0.0, cpu_seconds=0.0) for t in range(1, 5)]
        assert estimator.estimate(learn(estimator, waiting), 4.0) == Unknown(
            "no request has been served yet, so the cost of one is not known"
        )
        unmeasured = [Sample("p", t, 1.0, arrivals=9.0, completions=9.0) for t in range(1, 5)]
        assert estimator.estimate(learn(estimator, unmeasured), 4.0) == Unknown(
            "the samples do not say both the CPU in use and the requests completed, so the cost of one is not known"
        )
        unmoved = [Sample("p", t, 1.0, arrivals=9.0, completions=9.0, cpu_seconds=0.0) for t in range(1, 5)]
        assert estimator.estimate(learn(estimator, unmoved), 4.0) == Unknown(
            "no CPU has been counted yet for the requests that were served, so the cost of one is not known"
        )
        stopped = learn(estimator, steady(100))
        assert estimator.estimate(stopped, 130.0) == Unknown("last sample is 30 s old")
        blind = learn(estimator, [Sample("p", t, 1.0) for t in range(101, 121)], stopped)
        assert estimator.estimate(blind, 120.0) == Unknown(
            "for 20 s the samples have not said how many requests arrive"
        )

    def test_a_pipeline_that_nobody_asked_yet_is_known_to_be_idle(self) -> None:
        estimator = default_estimator()
        idle = [Sample("p", t, 1.0, arrivals=0.0, completions=0.0, queue=0.0) for t in range(1, 5)]
        demand = estimator.estimate(learn(estimator, idle), 4.0)
        assert isinstance(demand, Demand)
        assert demand.offered_load == 0.0

    def test_traffic_that_ended_is_known_to_be_zero(self) -> None:
        estimator = default_estimator()
        ended = [Sample("p", t, 1.0, arrivals=0.0, completions=0.0, cpu_seconds=0.0) for t in range(101, 161)]
        demand = estimator.estimate(learn(estimator, ended, learn(estimator, steady(100))), 160.0)
        assert isinstance(demand, Demand)
        assert demand.arrival_rate < 1.0
        assert demand.cpu_seconds_per_request == pytest.approx(0.01, rel=0.05)

    @pytest.mark.parametrize(("before", "after"), [(30.0, 100.0), (100.0, 30.0)])
    def test_follows_a_swing_within_three_seconds(self, before: float, after: float) -> None:
        estimator = default_estimator()
        generator = np.random.default_rng(7)
        rates = [before] * 300 + [after] * 3
        samples = [
            Sample("p", t + 1.0, 1.0, arrivals=n, completions=n, cpu_seconds=0.01 * n)
            for t, n in enumerate(float(generator.poisson(r)) for r in rates)
        ]
        demand = estimator.estimate(learn(estimator, samples), 303.0)
        assert isinstance(demand, Demand)
        # The three counts after the swing have a mean that deviates by sqrt(after / 3) each way.
        assert demand.arrival_rate == pytest.approx(after, abs=3 * math.sqrt(after / 3))

    def test_a_decision_can_be_replayed(self) -> None:
        estimator = default_estimator()
        half = learn(estimator, steady(50))
        again = [learn(estimator, steady(100)[50:], half) for _ in range(2)]
        assert again[0] == again[1] == learn(estimator, steady(100))


numbers = st.none() | st.floats() | st.floats(0.0, 1e4) | st.integers(-10, 10**9).map(float)
samples = st.builds(
    Sample,
    pipeline=st.just("p"),
    time=st.floats(0.0, 1e4) | st.floats(),
    window=st.floats(0.1, 100.0) | st.floats(),
    arrivals=numbers,
    completions=numbers,
    dropped=numbers,
    cpu_seconds=numbers,
    queue=numbers,
    service_cv=numbers,
    granted=st.none() | st.integers(0, 10**6),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(samples, max_size=40), st.booleans())
def test_garbage_neither_raises_nor_becomes_a_number(garbage: list[Sample], ordered: bool) -> None:
    estimator: Learned = default_estimator(10.0, 35.0)
    state = None
    for sample in sorted(garbage, key=lambda s: (s.time != s.time, s.time)) if ordered else garbage:
        state = estimator.update(state, sample)
        demand = estimator.estimate(state, sample.time)
        if isinstance(demand, Demand):
            values = [*demand.arrival_rates, demand.cpu_seconds_per_request, demand.cpu_seconds_per_request_sd]
            values += [demand.service_cv, demand.queue]
            assert all(math.isfinite(value) and value >= 0.0 for value in values)
