from __future__ import annotations

import math

from headgate.core.demand import default_estimator
from headgate.core.demand.arrivals import Seen
from headgate.core.demand.recent import Pool, Recent
from headgate.core.model import Demand, Sample


def fed(outlook: Recent | Pool, rates: list[float | None]) -> object:
    state = None
    for index, rate in enumerate(rates):
        state = outlook.update(state, Seen("a", 10.0 * (index + 1), 10.0, None, rate))
    return state


def test_one_rate_in_thirty_seconds_of_the_last_two_minutes() -> None:
    recent = Recent(window=120.0, every=30.0)
    state = fed(recent, [float(n) for n in range(1, 25)])
    # Kept at 10, 40, 70 ... 220 s; the newest, of 240 s, is 24; what is older than 120 s is forgotten.
    assert recent.scenarios(state, 240.0) == (13.0, 16.0, 19.0, 22.0, 24.0)


def test_unknown_rates_are_left_out_and_old_ones_fade() -> None:
    recent = Recent(window=60.0, every=10.0)
    state = fed(recent, [5.0, None, 3.0])
    assert recent.scenarios(state, 30.0) == (3.0, 5.0)
    assert recent.scenarios(state, 80.0) == (3.0,)
    assert recent.scenarios(None, 0.0) == ()
    assert math.isinf(recent.loss(state))


def test_a_pool_has_the_scenarios_of_all() -> None:
    pool = Pool((Recent(window=15.0, every=10.0), Recent(window=25.0, every=10.0)))
    assert pool.scenarios(fed(pool, [1.0, 2.0, 3.0]), 30.0) == (1.0, 2.0, 2.0, 3.0, 3.0)


def peak(delay: float) -> float:
    """The highest scenario a minute and a half after a burst of three minutes."""
    estimator = default_estimator(10.0, delay)
    state = None
    for tick in range(1, 100):
        count = 300.0 if 72 <= tick < 90 else 100.0
        sample = Sample("a", 10.0 * tick, 10.0, arrivals=count, completions=count, cpu_seconds=count * 0.1, queue=0.0)
        state = estimator.update(state, sample)
    demand = estimator.estimate(state, 990.0)
    assert isinstance(demand, Demand)
    return max(demand.arrival_rates)


def test_a_burst_is_remembered_where_moves_take_time() -> None:
    assert peak(delay=65.0) >= 25.0
    assert peak(delay=0.0) < 15.0
