"""A plug-in's estimator, policy and review, each doing what it must not."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from headgate.controller.guard import Guard, HookFailed
from headgate.controller.guarded import GuardedEstimator, GuardedPolicy, answered, verdict_on
from headgate.core.allocation import allocate
from headgate.core.decision import Config, Decision, State, decide
from headgate.core.hookspecs import Adjustment, Veto
from headgate.core.model import Budget, Demand, Group, Node, Observation, Pipeline, Replica, Sample, Unknown
from headgate.core.observation import Nonsense
from headgate.core.policies import Division

DEMANDS = {"a": Demand((10.0,), 0.1), "b": Demand((10.0,), 0.1)}


@pytest.fixture
def guard() -> Guard:
    return Guard(allowance=60)


@dataclass(frozen=True)
class Says:
    """An estimator that answers with whatever it was given."""

    answer: Any

    def update(self, state: Any, sample: Sample) -> Any:
        return (state or 0) + 1

    def estimate(self, state: Any, now: float) -> Any:
        return self.answer() if callable(self.answer) else self.answer


def fails() -> None:
    raise ValueError("broken")


@pytest.mark.parametrize(
    "answer",
    [
        fails,
        None,
        3.0,
        Demand((), 0.1),
        Demand((math.nan,), 0.1),
        Demand((1.0,), -0.1),
        Demand((1.0,), math.inf),
        Demand((1.0,) * 20_000, 0.1),
        Demand((1.0,), "x"),  # type: ignore[arg-type]
    ],
)
def test_of_what_an_estimator_cannot_tell_the_pipeline_keeps_what_it_has(guard: Guard, answer: Any) -> None:
    estimator = GuardedEstimator("p", Says(answer), guard)
    guard.begin()
    found = estimator.estimate(None, 0)
    assert isinstance(found, Unknown)
    assert "plug-in p, estimate" in found.reason
    pipelines = (Pipeline("a"), Pipeline("b"))
    config = Config(pipelines, Budget(1000), estimator=estimator)
    _, decision = decide(State(), Observation({}, {"a": 700, "b": 300}), config, 0)
    assert decision.allocation.grants == {"a": 700, "b": 300}


def test_an_estimator_that_fails_keeps_what_was_learned(guard: Guard) -> None:
    class Forgets(Says):
        def update(self, state: Any, sample: Sample) -> Any:
            raise ValueError("broken")

    guard.begin()
    assert GuardedEstimator("p", Says(None), guard).update(4, Sample("a", 0, 1)) == 5
    assert GuardedEstimator("p", Forgets(None), guard).update(4, Sample("a", 0, 1)) == 4


@dataclass(frozen=True)
class Gives:
    """A policy that divides as it was told to."""

    grants: Any
    price: Any = (0.0, 0.0)
    objective: float = 0.0
    name: str = "gives"

    def divide(self, problem: Any) -> Any:
        if callable(self.grants):
            return self.grants()
        return Division(np.array(self.grants), self.objective, np.array(self.price))

    def explain(self, problem: Any, division: Division, index: int) -> str:
        return f"as told: {index}"


def divided(policy: Gives, guard: Guard) -> Any:
    pipelines = (Pipeline("a", floor=100, ceiling=800), Pipeline("b", step=50))
    guarded = GuardedPolicy("gives", "p", lambda problem, _: answered(policy, problem), guard)
    return allocate(pipelines, DEMANDS, Budget(1000), current={}, policy=guarded)


def test_a_policy_of_a_plug_in_divides_and_explains(guard: Guard) -> None:
    allocation = divided(Gives((600, 400)), guard)
    assert allocation.grants == {"a": 600, "b": 400}
    assert "as told: 1" in allocation.reasons["b"]


@pytest.mark.parametrize(
    "policy",
    [
        Gives(fails),
        Gives(lambda: None),
        Gives((600, 500)),
        Gives((50, 400)),
        Gives((900, 100)),
        Gives((600, 333)),
        Gives((600,)),
        Gives((600.0, 400.0)),
        Gives((600, 400), price=(math.nan,)),
        Gives((600, 400), objective=math.nan),
    ],
)
def test_a_division_that_breaks_a_limit_is_none(guard: Guard, policy: Gives) -> None:
    with pytest.raises(HookFailed, match="plug-in p, policy gives: "):
        divided(policy, guard)


def decision_on(pipelines: tuple[Pipeline, ...], budget: Budget) -> tuple[Decision, Config]:
    current = {p.name: 300 for p in pipelines if p.pinned}
    allocation = allocate(pipelines, DEMANDS, budget, current=current)
    return Decision(0.0, DEMANDS, allocation), Config(pipelines, budget)


def test_a_review_may_agree_adjust_or_veto() -> None:
    decision, config = decision_on((Pipeline("a"), Pipeline("b")), Budget(2000))
    assert verdict_on(decision, config, None) is decision
    assert verdict_on(decision, config, Veto("release under way")) == "release under way"
    adjusted = verdict_on(decision, config, Adjustment({"a": 400}, "batch job at night"))
    assert isinstance(adjusted, Decision)
    assert adjusted.allocation.grants == {"a": 400, "b": 1000}
    assert adjusted.allocation.reasons["a"] == "batch job at night"
    assert adjusted.allocation.reasons["b"] == decision.allocation.reasons["b"]
    assert adjusted.allocation.unmet == {"a": 10 * 100 - 400, "b": 0}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("no", "returned str"),
        (True, "returned bool"),
        (Adjustment({"c": 1}, ""), "'c', no pipeline"),
        (Adjustment({"a": 1.5}, ""), "an integer of millicores"),  # type: ignore[dict-item]
        (Adjustment({"a": True}, ""), "an integer of millicores"),
        (Adjustment({"a": 1001}, ""), "of a budget of 2"),
        (Adjustment({"a": 3000}, ""), "above its ceiling"),
        (Adjustment({"a": -1}, ""), "below its floor"),
    ],
)
def test_an_adjustment_keeps_every_limit(value: Any, message: str) -> None:
    decision, config = decision_on((Pipeline("a"), Pipeline("b")), Budget(2000))
    with pytest.raises(Nonsense, match=message):
        verdict_on(decision, config, value)


def test_an_adjustment_moves_nothing_pinned_breaks_no_group_and_overfills_no_node() -> None:
    decision, config = decision_on((Pipeline("a", pinned=True), Pipeline("b")), Budget(2000))
    with pytest.raises(Nonsense, match="moves a, which is pinned"):
        verdict_on(decision, config, Adjustment({"a": 200}, ""))

    grouped = (Pipeline("a", group="g"), Pipeline("b"))
    decision, config = decision_on(grouped, Budget(2000, groups=(Group("g", 500),)))
    with pytest.raises(Nonsense, match="the group's budget"):
        verdict_on(decision, config, Adjustment({"a": 600, "b": 100}, ""))

    placed = tuple(Pipeline(n, replicas=(Replica(f"{n}-0", f"node-{n}"),)) for n in "ab")
    decision, config = decision_on(placed, Budget(2000, nodes=(Node("node-a", 1500), Node("node-b", 1000))))
    with pytest.raises(Nonsense, match="nodes have free"):
        verdict_on(decision, config, Adjustment({"a": 200, "b": 1200}, ""))
    adjusted = verdict_on(decision, config, Adjustment({"a": 1200, "b": 500}, ""))
    assert isinstance(adjusted, Decision)
    assert adjusted.allocation.replicas == {"a-0": 1200, "b-0": 500}
    assert replace(decision).allocation.grants == {"a": 1000, "b": 1000}
