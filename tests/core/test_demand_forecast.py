from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from headgate.core.demand.arrivals import Counter, Seen
from headgate.core.demand.forecast import Ewma, Forecaster, Holt, Last, Level, Peak
from headgate.core.demand.margin import Margin, Outlook, crps
from headgate.core.demand.seasonal import Seasonal
from headgate.core.demand.select import Best
from headgate.core.model import Sample

FORECASTERS: list[Forecaster] = [
    Last(),
    Ewma(10.0),
    Level(),
    Holt(2.0, 6.0, 60.0),
    Peak(Last(), 30.0),
    Seasonal(Level(), 20.0, phases=10),
]


def seen(counts: list[float], window: float = 1.0, span: float | None = None) -> list[Seen]:
    """Intervals as the counter makes them, with the outcome over the last `span` seconds."""
    counter, state, result = Counter(span=span or window), None, []
    for i, count in enumerate(counts):
        state, one = counter.update(state, Sample("p", (i + 1) * window, window, arrivals=count))
        assert one is not None
        result.append(one)
    return result


def learn(forecaster: Forecaster | Outlook, intervals: list[Seen]) -> Any:
    state = None
    for interval in intervals:
        state = forecaster.update(state, interval)
    return state


def rate(forecaster: Forecaster, intervals: list[Seen], ahead: float = 0.0) -> float:
    end = intervals[-1].time
    found = forecaster.rate(learn(forecaster, intervals), end + ahead, end + ahead)
    assert found is not None
    return found


@pytest.mark.parametrize("forecaster", FORECASTERS, ids=lambda f: type(f).__name__)
class TestEveryForecaster:
    def test_knows_nothing_before_the_first_interval(self, forecaster: Forecaster) -> None:
        assert forecaster.rate(None, 1.0, 2.0) is None

    def test_finds_a_constant_rate(self, forecaster: Forecaster) -> None:
        assert rate(forecaster, seen([50.0] * 100)) == pytest.approx(50.0)

    def test_an_unknown_count_is_not_zero(self, forecaster: Forecaster) -> None:
        intervals = seen([50.0] * 100)
        gap = [Seen("p", 100.0 + i, 1.0, None) for i in range(1, 5)]
        assert rate(forecaster, intervals + gap) == pytest.approx(50.0)

    def test_its_state_is_a_value(self, forecaster: Forecaster) -> None:
        intervals = seen([float(n) for n in range(60)])
        half = learn(forecaster, intervals[:30])
        first = [forecaster.update(half, i) for i in intervals[30:31]]
        assert first == [forecaster.update(half, i) for i in intervals[30:31]]

    def test_follows_traffic_that_stops(self, forecaster: Forecaster) -> None:
        # 0.2 requests per second: what is left of 50 after the fastest half-life that 100 s give any of them.
        assert rate(forecaster, seen([50.0] * 50 + [0.0] * 100)) < 0.2


def test_ewma_halves_what_is_older_than_its_half_life() -> None:
    # 10 s at 0 after 10 s at 8, half-life 10 s: both sums of the first half count 1/2.
    keep = np.exp2(-np.arange(19, -1, -1) / 10.0)
    expected = float((keep * np.repeat([8.0, 0.0], 10)).sum() / keep.sum())
    assert rate(Ewma(10.0), seen([8.0] * 10 + [0.0] * 10)) == pytest.approx(expected)


def test_peak_holds_for_its_window() -> None:
    peak = Peak(Last(), 30.0)
    assert rate(peak, seen([10.0, 90.0] + [10.0] * 29)) == 90.0
    assert rate(peak, seen([10.0, 90.0] + [10.0] * 30)) == 10.0


def test_holt_continues_a_ramp_and_fades_it() -> None:
    holt = Holt(level_half_life=2.0, slope_half_life=4.0, damping=1e6)
    ramp = seen([100.0 + 2.0 * t for t in range(300)])
    # The count of interval i is that of its middle, i + 0.5: 20.5 s on from there are 41 requests per second more.
    assert rate(holt, ramp, ahead=20.0) == pytest.approx(100.0 + 2.0 * 299 + 41.0, rel=1e-3)
    damped = Holt(level_half_life=2.0, slope_half_life=4.0, damping=10.0)
    state = learn(damped, ramp)
    limit = state.level + state.slope * 10.0 / math.log(2)
    assert damped.rate(state, 1e6, 1e6) == pytest.approx(limit)


def test_level_follows_a_swing_within_three_intervals() -> None:
    level = Level()
    for before, after in ((30.0, 100.0), (100.0, 30.0), (60.0, 120.0)):
        found = rate(level, seen([before] * 100 + [after] * 3))
        assert found == pytest.approx(after, rel=0.1)


def test_level_is_calm_in_poisson_noise() -> None:
    counts = [float(n) for n in np.random.default_rng(0).poisson(50, 2000)]
    state, levels = None, []
    for interval in seen(counts):
        state = Level().update(state, interval)
        assert state is not None
        levels.append(state.mean)
    # The last value alone deviates by sqrt(50) = 7.1.
    assert np.std(levels[100:]) < 0.5 * math.sqrt(50)


def test_level_weighs_an_interval_by_its_length() -> None:
    # After a first interval of 1 s (variance 50), one of 4 s at 60 has noise 50 / 4: gain 50 / (50 + 12.5) = 0.8.
    state = Level(drift=0.0).update(None, Seen("p", 1.0, 1.0, 50.0))
    state = Level(drift=0.0).update(state, Seen("p", 5.0, 4.0, 240.0))
    assert state is not None
    assert state.mean == pytest.approx(50.0 + 0.8 * 10.0)


def test_seasonal_finds_a_sine() -> None:
    period, phases = 100.0, 50
    counts = [100.0 * (1.0 + 0.5 * math.sin(2 * math.pi * (t + 0.5) / period)) for t in range(1500)]
    seasonal = Seasonal(Ewma(50.0), period, phases=phases, memory=8.0)
    intervals = seen(counts)
    state = learn(seasonal, intervals)
    for ahead in range(0, 100, 2):
        found = seasonal.rate(state, 1500.0 + ahead, 1502.0 + ahead)
        assert found == pytest.approx((counts[ahead] + counts[ahead + 1]) / 2, rel=0.05)


def test_seasonal_says_nothing_before_a_whole_period() -> None:
    seasonal = Seasonal(Ewma(50.0), 86400.0)
    state = learn(seasonal, seen([10.0] * 1000, window=60.0))
    assert seasonal.rate(state, 60000.0, 60060.0) is None


def test_crps_of_equally_likely_values() -> None:
    # By hand: E|X - 2| = (1 + 1) / 2, E|X - X'| = (0 + 2 + 2 + 0) / 4, so 1 - 1/2; a point's is its distance.
    assert crps((1.0, 3.0), 2.0) == pytest.approx(0.5)
    assert crps((5.0,), 2.0) == pytest.approx(3.0)


def test_margin_covers_what_comes_at_the_nominal_rate() -> None:
    # A rate that is drawn anew each interval, lognormal with deviation 0.3, seen through Poisson counts.
    generator = np.random.default_rng(1)
    margin = Margin(Ewma(1000.0), span=1.0, count=20, memory=400)
    state, below, total = None, np.zeros(20), 0
    rates = 200.0 * np.exp(0.3 * generator.standard_normal(4000))
    for i, interval in enumerate(seen([float(n) for n in generator.poisson(rates)])):
        if i > 500:
            below += rates[i] <= np.array(margin.scenarios(state, i))
            total += 1
        state = margin.update(state, interval)
    # Scenario k of 20 is the (k + 1/2) / 20 quantile; 3500 outcomes and 400 errors give a deviation below 0.03.
    assert below / total == pytest.approx((np.arange(20) + 0.5) / 20, abs=0.05)


def test_margin_does_not_take_counting_noise_for_a_changing_rate() -> None:
    generator = np.random.default_rng(2)
    margin = Margin(Ewma(1000.0), span=1.0)
    state = learn(margin, seen([float(n) for n in generator.poisson(50, 1000)]))
    scenarios = margin.scenarios(state, 1000.0)
    # Counts deviate by 14 %; the rate does not change at all.
    assert np.std(scenarios) / np.mean(scenarios) < 0.07


def choice(counts: list[float], *forecasters: Forecaster) -> int:
    best = Best(tuple(Margin(f, span=1.0, lead=5.0) for f in forecasters))
    return best.chosen(learn(best, seen(counts)))


def test_best_picks_the_trend_on_a_ramp() -> None:
    ramp = [10.0 + t for t in range(300)]
    assert choice(ramp, Ewma(20.0), Holt(2.0, 6.0, 120.0), Seasonal(Level(), 60.0)) == 1


def test_best_picks_the_mean_in_noise() -> None:
    noise = [float(n) for n in np.random.default_rng(3).poisson(50, 600)]
    assert choice(noise, Last(), Ewma(100.0), Holt(2.0, 6.0, 120.0)) == 1


def test_best_picks_the_season_where_there_is_one() -> None:
    generator = np.random.default_rng(4)
    days = [200.0 * (3.0 if t % 60 < 10 else 1.0) for t in range(600)]
    assert choice([float(n) for n in generator.poisson(days)], Last(), Level(), Seasonal(Level(), 60.0)) == 2
