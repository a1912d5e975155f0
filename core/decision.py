"""decide(): estimate each pipeline's demand, then divide the budget. Pure: the same input gives the same decision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from headgate.core.allocation import Allocation, allocate
from headgate.core.demand import Estimator, default_estimator
from headgate.core.model import Budget, Demands, Observation, Pipeline
from headgate.core.policies import Policy


@dataclass(frozen=True, slots=True)
class Config:
    """What a decision follows. Plug-ins arrive here as values, so that decide() itself looks nothing up."""

    pipelines: tuple[Pipeline, ...]
    budget: Budget
    policy: str | Policy = "proportional"
    estimator: Estimator = field(default_factory=default_estimator)


@dataclass(frozen=True, slots=True)
class State:
    """What one decision hands to the next: what was learned of each pipeline."""

    learned: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided at `time`, from what, and why."""

    time: float
    demands: Demands
    allocation: Allocation


def decide(state: State, observation: Observation, config: Config, now: float) -> tuple[State, Decision]:
    """The next state and the decision at `now` (seconds, any epoch, the samples' own)."""
    learned = dict(state.learned)
    for name, sample in observation.samples.items():
        learned[name] = config.estimator.update(learned.get(name), sample)
    demands = {p.name: config.estimator.estimate(learned.get(p.name), now) for p in config.pipelines}
    allocation = allocate(config.pipelines, demands, config.budget, current=observation.granted, policy=config.policy)
    return State(learned), Decision(now, demands, allocation)
