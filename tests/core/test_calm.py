"""Calm, through decide(): nothing moves in a steady noisy load, a step is answered at the next decision."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from headgate.core.calm import Calm
from headgate.core.decision import Config, Decision, State, decide
from headgate.core.demand import Estimator, default_estimator
from headgate.core.model import Budget, Observation, Pipeline, Sample, Slo

NAMES = ("a", "b", "c")
CPU_SECONDS = 0.01
BUDGET = 4000


@dataclass
class Run:
    """Poisson arrivals at rates that change with time, one decision a second."""

    calm: Calm = field(default_factory=Calm)
    policy: str = "proportional"
    estimator: Estimator = field(default_factory=default_estimator)
    seed: int = 1

    def decisions(self, rates: Sequence[Mapping[str, float]]) -> Iterator[Decision]:
        random = np.random.default_rng(self.seed)
        pipelines = tuple(Pipeline(name, floor=100, slo=Slo(0.25, 95)) for name in NAMES)
        config = Config(pipelines, Budget(BUDGET), self.policy, self.estimator, self.calm)
        state = State()
        granted: Mapping[str, int] = {}
        for second, rate in enumerate(rates, start=1):
            samples = {}
            for name in NAMES:
                arrived = float(random.poisson(rate[name]))
                samples[name] = Sample(name, second, 1.0, arrived, arrived, 0.0, arrived * CPU_SECONDS, 0.0, 1.0)
            state, decision = decide(state, Observation(samples, granted), config, float(second))
            granted = decision.allocation.grants
            yield decision


STEADY = {"a": 150.0, "b": 100.0, "c": 60.0}
SWUNG = {"a": 30.0, "b": 100.0, "c": 180.0}


@pytest.mark.parametrize("policy", ["proportional", "slo"])
@pytest.mark.parametrize("seed", range(4))
def test_a_steady_noisy_load_moves_nothing(policy: str, seed: int) -> None:
    grants = [d.allocation.grants for d in Run(policy=policy, seed=seed).decisions([STEADY] * 180)]
    settled = grants[60:]
    moves = sum(before != after for before, after in itertools.pairwise(settled))
    assert moves == 0


@pytest.mark.parametrize(("policy", "within"), [("proportional", 3), ("slo", 10)])
@pytest.mark.parametrize("seed", range(4))
def test_a_step_is_answered_at_the_next_decision(policy: str, within: int, seed: int) -> None:
    grants = [d.allocation.grants for d in Run(policy=policy, seed=seed).decisions([STEADY] * 60 + [SWUNG] * 20)]
    before = grants[59]
    assert grants[60] != before
    if policy == "proportional":
        assert grants[60]["c"] > before["c"]
    # `within` seconds later c, whose load is now 1.8 CPUs, has what it needs. The slo policy may at first sacrifice
    # one, as long as the estimates of what rose and of what fell together exceed the budget.
    assert all(later["c"] >= 1800 for later in grants[59 + within :])
    assert all(sum(g.values()) == BUDGET for g in grants)


def test_a_slow_drift_is_followed_too() -> None:
    rates = [{**STEADY, "c": 60.0 + second / 4} for second in range(400)]
    decisions = list(Run().decisions(rates))
    loads = {"a": 150.0, "b": 100.0, "c": 160.0}
    # A load may differ from what the grants were made for by 5 standard deviations of the mean of twelve samples:
    # at worst c by so much downwards and the others upwards, and half of that again for the forecast's own spread.
    off = {name: 1.5 * 5 * (rate / 12) ** 0.5 for name, rate in loads.items()}
    least = (loads["c"] - off["c"]) / (sum(loads.values()) + off["a"] + off["b"] - off["c"])
    assert decisions[100].allocation.grants["c"] / BUDGET < least < decisions[-1].allocation.grants["c"] / BUDGET


def test_taking_away_waits_for_the_stabilisation_window() -> None:
    calm = Calm(stabilisation=30.0)
    fallen = {**STEADY, "a": 15.0}
    grants = [d.allocation.grants["a"] for d in Run(calm=calm).decisions([STEADY] * 60 + [fallen] * 60)]
    # Until the window has passed its share may only give way to noise in the others.
    assert min(grants[60:88]) > 0.8 * grants[59]
    assert grants[-1] < 0.5 * grants[59]


def test_no_more_moves_at_once_than_allowed() -> None:
    calm = Calm(most_moved=200)
    grants = [d.allocation.grants for d in Run(calm=calm).decisions([STEADY] * 60 + [SWUNG] * 40)]
    for before, after in itertools.pairwise(grants):
        assert sum(max(0, after[n] - before[n]) for n in NAMES) <= 200
        assert sum(after.values()) == BUDGET
    assert grants[-1]["c"] > grants[59]["c"] + 800


def test_a_move_that_costs_much_is_not_made_for_a_small_gain() -> None:
    """With the whole horizon lost to a move there is nothing to gain by one."""
    never = Calm(move_cost=100.0, horizon=100.0, stabilisation=0.0, band=0.0, noise=0.0)
    grants = [d.allocation.grants for d in Run(calm=never, policy="slo").decisions([STEADY] * 60)]
    free = [d.allocation.grants for d in Run(calm=Calm(band=0.0, noise=0.0), policy="slo").decisions([STEADY] * 60)]

    def moved(series: Sequence[Mapping[str, int]]) -> int:
        return sum(max(0, b[n] - a[n]) for a, b in itertools.pairwise(series) for n in NAMES)

    assert moved(grants) < 0.2 * moved(free)


@pytest.mark.parametrize("wrong", [{"move_cost": -1.0}, {"horizon": float("nan")}, {"most_moved": -5}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Calm(**wrong)  # type: ignore[arg-type]


def test_a_config_for_slow_moves_has_the_estimator_and_the_calm_of_their_delay() -> None:
    pipelines = (Pipeline("a"),)
    config = Config.of(pipelines, Budget(BUDGET), interval=10, delay=65, policy="slo")
    assert config == Config(pipelines, Budget(BUDGET), "slo", default_estimator(10, 65), Calm.of_delay(65))
    assert Config.of(pipelines, Budget(BUDGET), interval=1) == Config(pipelines, Budget(BUDGET))
