"""A plug-in's estimator, policy and verdict, called under a Guard and checked for sense."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from headgate.controller.guard import Guard, HookFailed
from headgate.core.decision import Config, Decision
from headgate.core.demand import Estimator
from headgate.core.filling import Space
from headgate.core.hookspecs import Adjustment, Veto
from headgate.core.laminar import Ints
from headgate.core.limits import Limits, compile_limits
from headgate.core.model import Demand, Sample, Unknown
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
            return self.guard.call(self.plugin, "update", partial(self.inner.update, state, sample), _anything)
        except HookFailed:
            return state

    def estimate(self, state: Any, now: float) -> Demand | Unknown:
        """See Estimator."""
        try:
            return self.guard.call(self.plugin, "estimate", partial(self.inner.estimate, state, now), _demand)
        except HookFailed as error:
            return Unknown(str(error))


@dataclass(frozen=True, slots=True, eq=False)
class Explained(Division):
    """A division with its explanations, which must be asked for while there is time and not when they are read."""

    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GuardedPolicy:
    """Where the policy fails there is no division, and whoever asked keeps the grants that are in force."""

    name: str
    plugin: str
    inner: Policy
    guard: Guard

    def divide(self, problem: Problem) -> Division:
        """See Policy. Raises HookFailed."""

        def ask() -> tuple[Any, tuple[str, ...]]:
            division = self.inner.divide(problem)
            return division, tuple(self.inner.explain(problem, division, index) for index in range(len(problem.limits)))

        return self.guard.call(self.plugin, f"policy {self.name}", ask, partial(_division, problem))

    def explain(self, problem: Problem, division: Division, index: int) -> str:  # noqa: ARG002
        """See Policy."""
        return division.texts[index] if isinstance(division, Explained) else ""


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


def _division(problem: Problem, answer: tuple[Any, tuple[str, ...]]) -> Division:
    division, texts = answer
    if not isinstance(division, Division):
        raise Nonsense(f"returned {type(division).__name__} where a Division belongs")
    size = len(problem.limits)
    grants, price = np.asarray(division.grants), np.asarray(division.price)
    if grants.shape != (size,) or not np.issubdtype(grants.dtype, np.integer):
        raise Nonsense(f"grants are {grants.dtype} of shape {grants.shape}: {size} integers belong there")
    if price.shape != (size,) or not np.issubdtype(price.dtype, np.number) or not math.isfinite(division.objective):
        raise Nonsense("price or objective is not made of finite numbers")
    grants = grants.astype(np.int64)
    check_grants(problem.limits, problem.space, grants)
    return Explained(grants, float(division.objective), price.astype(np.float64), tuple(map(_text, texts)))


def _demand(value: Any) -> Demand | Unknown:
    if isinstance(value, Unknown):
        return value
    if not isinstance(value, Demand):
        raise Nonsense(f"returned {type(value).__name__} where a Demand or Unknown belongs")
    if not 0 < len(value.arrival_rates) <= MOST_SCENARIOS:
        raise Nonsense(f"returned {len(value.arrival_rates)} scenarios; 1 to {MOST_SCENARIOS} make sense")
    numbers = (*value.arrival_rates, value.cpu_seconds_per_request, value.service_cv, value.queue)
    if not all(isinstance(number, (int, float)) and math.isfinite(number) and number >= 0 for number in numbers):
        raise Nonsense("returned a Demand with numbers that are not finite or below 0")
    return value


def _unmet(demand: Demand | Unknown | None, grant: int) -> int:
    return max(0, math.ceil(demand.offered_load * MILLI - 1e-6) - grant) if isinstance(demand, Demand) else 0


def _text(value: object) -> str:
    return " ".join(str(value).split())[:MOST_TEXT]


def _anything(value: Any) -> Any:
    return value
