from __future__ import annotations

import math

import numpy as np
import pytest

from headgate.core.demand import default_estimator
from headgate.core.demand.arrivals import Seen
from headgate.core.demand.bursts import Bursts, BurstsState
from headgate.core.model import Demand, Sample
from headgate.core.problem import Wants
from headgate.core.queueing import Traffic, within


def variation(counts: list[float], windows: list[float] | None = None) -> float:
    bursts, state, time = Bursts(), None, 0.0
    for count, window in zip(counts, windows or [10.0] * len(counts), strict=True):
        time += window
        state = bursts.update(state, Seen("a", time, window, count))
    return bursts.variation(state)


@pytest.mark.parametrize("mean", [2.0, 100.0])
def test_a_poisson_stream_is_no_burstier_than_poisson(mean: float) -> None:
    random = np.random.default_rng(0)
    found = [variation(random.poisson(mean, 200).tolist()) for _ in range(50)]
    # The mean of 60 squares of standard normal numbers has a deviation of sqrt(2 / 60); below 1 counts as 1.
    assert np.mean(np.square(found)) == pytest.approx(1.0, abs=2 * math.sqrt(2 / 60))


def test_batches_of_four_have_twice_the_variation() -> None:
    # Poisson batches of b requests: variance b^2 lambda over a mean of b lambda, so the index is b.
    random = np.random.default_rng(1)
    found = [variation((4.0 * random.poisson(30, 200)).tolist()) for _ in range(50)]
    assert np.mean(np.square(found)) == pytest.approx(4.0, rel=0.15)


def test_windows_may_differ_in_length() -> None:
    random = np.random.default_rng(2)
    windows = random.uniform(5, 15, 200).tolist()
    found = [variation(random.poisson(np.array(windows) * 3).tolist(), windows) for _ in range(50)]
    assert np.mean(np.square(found)) == pytest.approx(1.0, abs=2 * math.sqrt(2 / 60))


def test_steady_counts_are_planned_as_poisson_and_unknown_ones_skipped() -> None:
    assert variation([100.0] * 20) == 1.0
    assert variation([0.0] * 20) == 1.0
    state = BurstsState(100.0, 10.0)
    assert Bursts().update(state, Seen("a", 20.0, 10.0, None)) is state
    assert Bursts().update(None, Seen("a", 20.0, 10.0, None)) is None


def test_one_jump_counts_for_a_fifth_of_the_most_and_fades() -> None:
    # Dispersion 1 before; the pair 10, 1000 is beyond `most` = 25 and the second one: weight 1 / 5.
    assert variation([10.0, 10.0, 1000.0]) == pytest.approx(math.sqrt(0.8 + (25 - 0.8) / 5))
    assert variation([10.0, 1000.0, *[1000.0] * 300]) < 1.1


def test_the_demand_says_so_and_the_allocation_plans_for_it() -> None:
    random = np.random.default_rng(3)
    estimator = default_estimator(10.0, 65.0)
    state = None
    for step in range(1, 100):
        count = float(4 * random.poisson(25))
        state = estimator.update(
            state, Sample("a", 10.0 * step, 10.0, arrivals=count, completions=count, cpu_seconds=0.1 * count)
        )
    demand = estimator.estimate(state, 990.0)
    assert isinstance(demand, Demand)
    assert 1.5 < demand.arrival_cv < 2.5
    assert Wants.of(["a"], {"a": demand}).arrival_cv == pytest.approx([demand.arrival_cv])
    steady, bursty = (
        within(Traffic(10.0, 0.1, arrival_cv=cv), np.array([2.0]), np.array([0.5])) for cv in (1.0, demand.arrival_cv)
    )
    assert bursty < steady
