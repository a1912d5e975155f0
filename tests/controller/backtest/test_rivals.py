"""The frameworks' rules on numbers worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from headgate.controller.backtest.rivals import Hpa, Kpa
from headgate.core.model import Observation, Pipeline, Sample

PIPELINES = (Pipeline("a", floor=1000),)


def seen(policy: Any, cpus_used: float, replicas: int, queue: float = 0.0) -> Observation:
    window = policy.interval
    sample = Sample("a", time=0.0, window=window, cpu_seconds=cpus_used * window, queue=queue)
    return Observation({"a": sample}, {"a": replicas * 1000})


@pytest.mark.parametrize(
    ("used", "replicas", "wanted"),
    [
        (4.0, 5, 5),  # 80 %, as wanted
        (4.3, 5, 5),  # 86 %: within the tolerance
        (4.8, 5, 6),  # 96 / 80 x 5
        (1.0, 1, 2),  # 100 / 80, rounded up
        (50.0, 5, 10),  # doubled at the most
        (2.0, 1, 3),
    ],
)
def test_hpa_up(used: float, replicas: int, wanted: int) -> None:
    policy = Hpa(PIPELINES, budget=100_000)
    assert policy.decide(None, seen(policy, used, replicas), 15.0)[1] == {"a": wanted * 1000}


def test_hpa_comes_down_after_five_minutes() -> None:
    policy = Hpa(PIPELINES, budget=100_000)
    state, _ = policy.decide(None, seen(policy, 8.0, 10), 0.0)
    wanted = {}
    for tick in range(1, 25):
        state, grants = policy.decide(state, seen(policy, 0.8, 10), 15.0 * tick)
        wanted[15 * tick] = grants["a"]
    assert wanted[285] == 10_000
    assert wanted[300] == 1000


def test_hpa_asks_for_no_more_than_the_budget() -> None:
    policy = Hpa(PIPELINES, budget=3000)
    assert policy.decide(None, seen(policy, 3.0, 3), 15.0)[1] == {"a": 3000}


def test_kpa_follows_the_minute() -> None:
    policy = Kpa(PIPELINES, budget=100_000)
    state, wanted = None, {}
    for tick in range(30):
        state, wanted = policy.decide(state, seen(policy, 2.0, 3), 2.0 * tick)
    assert wanted == {"a": 3000}  # 2 / 0.7, rounded up


def test_kpa_panics_at_twice_the_load_and_does_not_come_down_for_a_minute() -> None:
    policy = Kpa(PIPELINES, budget=100_000)
    state, wanted = None, {}
    for tick in range(30):
        state, wanted = policy.decide(state, seen(policy, 1.0, 2), 2.0 * tick)
    for tick in range(30, 33):
        state, wanted = policy.decide(state, seen(policy, 2.0, 2, queue=4.0), 2.0 * tick)
    assert wanted == {"a": 9000}  # 6 / 0.7 over the last six seconds
    for tick in range(33, 60):
        state, wanted = policy.decide(state, seen(policy, 1.0, 9), 2.0 * tick)
    assert wanted == {"a": 9000}
    for tick in range(60, 70):
        state, wanted = policy.decide(state, seen(policy, 1.0, 9), 2.0 * tick)
    assert wanted == {"a": 4000}  # half of nine at the most
