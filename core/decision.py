"""decide(): estimate each pipeline's demand, then divide the budget. Pure: the same input gives the same decision."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from headgate.core.allocation import Allocation, allocate
from headgate.core.calm import Calm, Quiet, changed, followed, settled, stabilised
from headgate.core.demand import Estimator, default_estimator, turn
from headgate.core.limits import Compiled
from headgate.core.model import Budget, Demand, Demands, Observation, Pipeline
from headgate.core.policies import Policy
from headgate.core.reasons import Texts
from headgate.core.units import MILLI


@dataclass(frozen=True, slots=True)
class Config:
    """What a decision follows. Plug-ins arrive here as values, so that decide() itself looks nothing up."""

    pipelines: tuple[Pipeline, ...]
    budget: Budget
    policy: str | Policy = "proportional"
    estimator: Estimator = field(default_factory=default_estimator)
    calm: Calm = field(default_factory=Calm)

    @classmethod
    def of(
        cls,
        pipelines: tuple[Pipeline, ...],
        budget: Budget,
        *,
        interval: float,
        delay: float = 0.0,
        policy: str | Policy = "proportional",
    ) -> Config:
        """With the defaults for decisions every `interval` seconds whose moves take effect after `delay` seconds.

        The delay is what passes from taking a CPU until another pipeline is served by it: 0 for live CPU, for replicas
        the time that one needs to go and the time that one needs to start. Estimation and calm depend on it much.
        """
        return cls(pipelines, budget, policy, default_estimator(interval, delay), Calm.of_delay(delay))


@dataclass(frozen=True, slots=True)
class State:
    """What one decision hands to the next: what was learned of each pipeline, and the division in force."""

    learned: Mapping[str, Any] = field(default_factory=dict)
    quiet: Quiet = field(default_factory=Quiet)
    allocation: Allocation | None = None
    made_for: tuple[tuple[Pipeline, ...], Budget, str | Policy] | None = None
    """The pipelines, budget and policy of `allocation`."""
    compiled: Compiled | None = None
    """The limits of the last division, which seldom change."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided at `time`, from what, and why."""

    time: float
    demands: Demands
    allocation: Allocation


def decide(state: State, observation: Observation, config: Config, now: float) -> tuple[State, Decision]:
    """The next state and the decision at `now` (seconds, any epoch, the samples' own)."""
    names = [pipeline.name for pipeline in config.pipelines]
    learned, demands = turn(config.estimator, state.learned, observation.samples, names, now)
    wanted, recent = stabilised(state.quiet, demands, config.calm, now)
    windows = {name: sample.window for name, sample in observation.samples.items()}
    made_for = (config.pipelines, config.budget, config.policy)
    compiled = state.compiled
    standing = state.allocation if state.made_for == made_for and _complete(state) else None
    if standing is not None and changed(state.quiet, wanted, config.calm, standing.grants) is None:
        trends = followed(state.quiet, wanted, windows)
        decision = Decision(now, demands, _kept(standing, demands))
    else:
        trends = settled(wanted, windows)
        compiled = Compiled.of(config.pipelines, config.budget, compiled)
        standing = allocate(
            config.pipelines,
            wanted,
            config.budget,
            current=observation.granted,
            policy=config.policy,
            calm=config.calm,
            limits=compiled.limits,
        )
        decision = Decision(now, demands, standing)
    return State(learned, Quiet(trends, recent), standing, made_for, compiled), decision


def _complete(state: State) -> bool:
    """Whether the last division was all that was wanted, and not only as much as one decision may move."""
    return state.allocation is not None and state.allocation.complete


def _kept(standing: Allocation, demands: Demands) -> Allocation:
    """The division in force, with what is unmet now."""

    def reason(index: int) -> str:
        name = names[index]
        demand = demands[name]
        now = f"load now {demand.offered_load:.3g} CPUs, " if isinstance(demand, Demand) else ""
        return f"kept ({now}no change beyond the noise since): {standing.reasons[name]}"

    names = tuple(standing.grants)
    unmet = {
        name: max(0, math.ceil(demand.offered_load * MILLI - 1e-6) - standing.grants[name])
        if isinstance(demand, Demand)
        else standing.unmet[name]
        for name, demand in demands.items()
    }
    return replace(standing, reasons=Texts(names, reason), unmet=unmet)
