"""A plug-in's estimator, policy and verdict, called under a Guard and checked for sense."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, get_args

import numpy as np

from headgate.controller.guard import Guard, HookFailed
from headgate.core.decision import Config, Decision
from headgate.core.demand import Estimator
from headgate.core.filling import Space
from headgate.core.hookspecs import Adjustment, Veto
from headgate.core.laminar import Ints
from headgate.core.limits import Limits, compile_limits
from headgate.core.model import Basis, Demand, Sample, Unknown
from headgate.core.observation import Nonsense
from headgate.core.policies import Division, Policy
from headgate.core.problem import Problem
from headgate.core.units import MILLI, format_cpu

MOST_SCENARIOS = 10_000
MOST_TEXT = 300


@dataclass(frozen=True, slots=True)
class GuardedEstimator:
    """Where the estimator fails, what was learned stays and the demand is unknown: nothing moves on its account."""

    plugin: str
    inner: Estimator
    guard: Guard

    def update(self, state: Any, sample: Sample) -> Any:
        """See Estimator."""
        try:
            return self.guard.call(self.plugin, "update", lambda _: self.inner.update(state, sample), _anything)
        except HookFailed:
            return state

    def estimate(self, state: Any, now: float) -> Demand | Unknown:
        """See Estimator."""
        try:
            return self.guard.call(self.plugin, "estimate", lambda _: self.inner.estimate(state, now), sensible)
        except HookFailed as error:
            return Unknown(str(error))


@dataclass(frozen=True, slots=True, eq=False)
class Explained(Division):
    """A division with its explanations, which must be asked for while there is time and not when they are read."""

    texts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GuardedPolicy:
    """Where the policy fails there is no division, and whoever asked keeps the grants that are in force."""

    name: str
    plugin: str
    ask: Callable[[Problem, float], Any]
    """The policy's Answer to a problem, waited for until a monotonic time."""
    guard: Guard

    def divide(self, problem: Problem) -> Division:
        """See Policy. Raises HookFailed."""
        ask = partial(self.ask, problem)
        return self.guard.call(self.plugin, f"policy {self.name}", ask, partial(_division, problem))

    def explain(self, problem: Problem, division: Division, index: int) -> str:  # noqa: ARG002
        """See Policy."""
        return division.texts[index] if isinstance(division, Explained) else ""


Answer = tuple[Any, Any, Any, tuple[str, ...]]
"""Grants, objective, price and explanations of a Division, none of it checked."""


def answered(policy: Policy, problem: Problem) -> Answer:
    """What a policy makes of a problem. Raises Nonsense, or whatever it raises."""
    division = policy.divide(problem)
    if not isinstance(division, Division):
        raise Nonsense(f"returned {type(division).__name__} where a Division belongs")
    texts = tuple(policy.explain(problem, division, index) for index in range(len(problem.limits)))
    return division.grants, division.objective, division.prices(), texts


def verdict_on(decision: Decision, config: Config, value: Any) -> Decision | str:
    """The decision after a review: as it was, adjusted, or the reason of the veto. Raises Nonsense."""
    if value is None:
        return decision
    if isinstance(value, Veto):
        return _text(value.reason)
    if not isinstance(value, Adjustment):
        raise Nonsense(f"returned {type(value).__name__} where a Veto, an Adjustment or None belongs")
    old = decision.allocation
    if unknown := sorted(set(value.grants) - set(old.grants), key=repr):
        raise Nonsense(f"grants {', '.join(map(repr, unknown))}, no pipeline of the settings")
    for name, grant in value.grants.items():
        if isinstance(grant, bool) or not isinstance(grant, int):
            raise Nonsense(f"grants {name} {grant!r}: an integer of millicores belongs there")
    grants = {**old.grants, **value.grants}
    limits = compile_limits(config.pipelines, config.budget)
    amounts = np.array([grants[name] for name in limits.names], dtype=np.int64)
    check_grants(limits, Space(limits.tree, ()), amounts)
    moved = [limits.names[index] for index in limits.pinned.tolist() if limits.names[index] in value.grants]
    if moved:
        raise Nonsense(f"moves {', '.join(moved)}, which is pinned")
    replicas: Mapping[str, int] = {}
    if limits.placement is not None:
        flow = limits.placement.spread(amounts)
        if flow.cuts:
            raise Nonsense("grants more than the pipelines' nodes have free")
        replicas = limits.placement.split(amounts, flow)
    reasons = {**old.reasons, **dict.fromkeys(value.grants, _text(value.reason))}
    unmet = {name: _unmet(decision.demands.get(name), grant) for name, grant in grants.items()}
    return replace(decision, allocation=replace(old, grants=grants, reasons=reasons, unmet=unmet, replicas=replicas))


def check_grants(limits: Limits, space: Space, grants: Ints) -> None:
    """Raise Nonsense unless millicores for all n pipelines keep every floor, ceiling, step, group and the total."""
    low, high, step = limits.floor, limits.ceiling, limits.step
    for wrong, why in (
        (grants < low, "below its floor"),
        (grants > high, "above its ceiling"),
        ((grants % step != 0) & (grants != low) & (grants != high), "not a multiple of its step"),
    ):
        if wrong.any():
            index = int(np.argmax(wrong))
            raise Nonsense(f"grants {limits.names[index]} {format_cpu(int(grants[index]))}, {why}")
    if int(grants.sum()) > limits.total:
        raise Nonsense(f"grants {format_cpu(int(grants.sum()))} of a budget of {format_cpu(limits.total)}")
    if bool((space.slack(grants) < 0).any()):
        raise Nonsense("grants the members of a group more than the group's budget")


def _division(problem: Problem, answer: Answer) -> Division:
    size = len(problem.limits)
    grants, price, objective, texts = np.asarray(answer[0]), np.asarray(answer[2]), answer[1], answer[3]
    if grants.shape != (size,) or not np.issubdtype(grants.dtype, np.integer):
        raise Nonsense(f"grants are {grants.dtype} of shape {grants.shape}: {size} integers belong there")
    if price.shape != (size,) or not np.issubdtype(price.dtype, np.number) or not math.isfinite(objective):
        raise Nonsense("price or objective is not made of finite numbers")
    grants = grants.astype(np.int64)
    check_grants(problem.limits, problem.space, grants)
    if len(texts) != size:
        raise Nonsense(f"explains {len(texts)} of {size} pipelines")
    return Explained(grants, float(objective), price.astype(np.float64), texts=tuple(map(_text, texts)))


def sensible(value: Any) -> Demand | Unknown:
    """An estimator's answer when it can be true. Raises Nonsense."""
    if isinstance(value, Unknown):
        return Unknown(_text(value.reason))
    if not isinstance(value, Demand):
        raise Nonsense(f"returned {type(value).__name__} where a Demand or Unknown belongs")
    if not 0 < len(value.arrival_rates) <= MOST_SCENARIOS:
        raise Nonsense(f"returned {len(value.arrival_rates)} scenarios; 1 to {MOST_SCENARIOS} make sense")
    numbers = (*value.arrival_rates, value.cpu_seconds_per_request, value.service_cv, value.queue)
    if not all(isinstance(number, (int, float)) and math.isfinite(number) and number >= 0 for number in numbers):
        raise Nonsense("returned a Demand with numbers that are not finite or below 0")
    if value.basis not in get_args(Basis):
        raise Nonsense(f"returned a Demand known by {value.basis!r}; it is one of {', '.join(get_args(Basis))}")
    return value


def _unmet(demand: Demand | Unknown | None, grant: int) -> int:
    return max(0, math.ceil(demand.offered_load * MILLI - 1e-6) - grant) if isinstance(demand, Demand) else 0


def _text(value: object) -> str:
    return " ".join(str(value).split())[:MOST_TEXT]


def _anything(value: Any) -> Any:
    return value
