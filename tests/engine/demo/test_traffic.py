import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.engine.demo.traffic import PEAK, compressed_day, draw

COSTS = (0.008, 0.01, 0.012)


def day(seconds=42.0, budget=2.0, flood=3.0, costs=COSTS):
    return compressed_day(seconds, costs, budget, level=0.8, flood=flood)


def test_each_region_swings_from_ten_to_seventy_percent():
    shares = day().shares(np.linspace(0, 42, 4201))
    # With three regions p = 0.7 gives e^1.5s = 0.7 * 2 / 0.3; at the trough the share is 1 / (1 + 2 e^1.5s).
    trough = 1 / (1 + 2 * (0.7 * 2 / 0.3))
    for share in shares:
        assert share.max() == pytest.approx(PEAK, abs=1e-3)
        assert share.min() == pytest.approx(trough, abs=1e-3)
    assert trough == pytest.approx(0.10, abs=0.005)


@given(st.lists(st.floats(0.001, 0.1), min_size=1, max_size=6), st.floats(0, 200))
def test_shares_sum_to_one(costs, time):
    assert day(costs=tuple(costs)).shares(np.array([time])).sum() == pytest.approx(1)


def test_the_total_is_constant_outside_the_flood_and_a_multiple_of_the_budget_inside():
    plan = day()
    times = np.linspace(0, 42, 4201)
    inside = plan.flood.covers(times)
    total = plan.offered(times).sum(axis=0)
    assert total[~inside] == pytest.approx(np.full((~inside).sum(), 1.6))
    assert plan.flood.end - plan.flood.start == pytest.approx(6)
    # At its peak the flooding region's own share of the day completes the three budgets.
    centre = np.array([(plan.flood.start + plan.flood.end) / 2])
    assert plan.offered(centre)[plan.flood.region, 0] == pytest.approx(3 * 2.0)


def test_the_same_seed_draws_the_same_schedule():
    one, two, other = draw(day(), 8, 1), draw(day(), 8, 1), draw(day(), 8, 2)
    for name in ("times", "regions", "variants"):
        assert np.array_equal(getattr(one, name), getattr(two, name))
    assert not np.array_equal(one.times[:100], other.times[:100])


def test_the_schedule_is_in_order_and_within_the_day():
    schedule = draw(day(), 8, 1)
    assert np.all(np.diff(schedule.times) >= 0)
    assert schedule.times[0] >= 0
    assert schedule.times[-1] <= 42
    assert set(schedule.regions.tolist()) == {0, 1, 2}
    assert set(schedule.variants.tolist()) == set(range(8))


def test_the_arrivals_are_poisson_with_the_rates_of_the_day():
    plan = day(seconds=400.0)
    schedule = draw(plan, 8, 3)
    edges = np.linspace(0, 400, 41)
    middles = (edges[1:] + edges[:-1]) / 2
    rates = plan.offered(np.linspace(0, 400, 40001)) / np.array(COSTS)[:, None]
    for region in range(3):
        counts, _ = np.histogram(schedule.times[schedule.regions == region], edges)
        expected = np.array([rates[region, i * 1000 : (i + 1) * 1000].mean() * 10 for i in range(len(middles))])
        # Poisson: the variance is the mean. 5.5 standard deviations fail once in 26 million.
        assert np.all(np.abs(counts - expected) < 5.5 * np.sqrt(expected) + 1)


def test_a_single_region_has_all_of_it():
    plan = day(costs=(0.01,))
    assert plan.flood.region == 0
    assert plan.shares(np.array([0.0, 5.0])).tolist() == [[1.0, 1.0]]
    assert math.isclose(plan.offered(np.array([20.0]))[0, 0], 1.6)
