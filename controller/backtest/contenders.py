"""Who is compared in a backtest, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from headgate.controller.backtest.grid import Trace
from headgate.controller.backtest.rivals import Hpa, Kpa
from headgate.controller.backtest.world import Policy, World
from headgate.controller.installed import find_policy, policies
from headgate.core.calm import RESTLESS
from headgate.core.decision import Config, State, decide
from headgate.core.demand import Estimator, Learned, default_estimator
from headgate.core.model import Budget, Demand, Observation, Pipeline, Sample, Slo

FRAMEWORKS = ("hpa", "kpa")
ORACLES = ("oracle", "oracle-free")

Wrap = Callable[[Estimator], Estimator]


def names() -> tuple[str, ...]:
    """Everybody, in the order of the table; the policies of plug-ins after headgate's own."""
    return ("equal", *(name for name in policies() if name != "equal"), *FRAMEWORKS, *ORACLES)


@dataclass(frozen=True, slots=True)
class Contender:
    """A policy and the world it is tried in."""

    policy: Policy
    world: World


@dataclass(frozen=True, slots=True)
class Headgate:
    """headgate itself: decide() with a configuration."""

    name: str
    interval: float
    config: Config

    def decide(self, state: State | None, observation: Observation, now: float) -> tuple[State, Mapping[str, int]]:
        """The next state, and the grants of the decision."""
        state, decision = decide(state or State(), observation, self.config, now)
        return state, decision.allocation.grants


@dataclass(frozen=True, eq=False, slots=True)
class Clairvoyant:
    """An estimator that looks the future up: the trace's rates over the coming `horizon` seconds."""

    trace: Trace
    world: World
    horizon: float
    blind: Learned
    """What headgate would use without it, whose way to plan for queues and bursts it shares."""

    def update(self, state: Any, sample: Sample) -> Sample:  # noqa: ARG002
        """Nothing is learned; the sample says which pipeline it is."""
        return sample

    def estimate(self, state: Sample, now: float) -> Demand:
        """The true rate of each minute that the horizon touches, and the true cost of a request."""
        first = int(now // 60)
        last = max(first, int(np.ceil((now + self.horizon) / 60)) - 1)
        index = self.trace.pipelines.index(state.pipeline)
        rates = self.trace.requests[min(first, self.trace.minutes - 1) : last + 1, index] / 60
        law = self.world.laws.of(state.pipeline)
        return Demand(
            arrival_rates=tuple(rates.tolist()),
            cpu_seconds_per_request=law.mean,
            service_cv=law.deviation / law.mean,
            queue=(state.queue or 0.0) if self.blind.queued else 0.0,
            arrival_cv=self.blind.bursts.least,
        )


def contender(
    name: str, trace: Trace, world: World, interval: float, floor: int, wrap: Wrap = lambda estimator: estimator
) -> Contender:
    """The contender called `name`; `interval` seconds between decisions and `floor` millicores for each pipeline.

    `wrap` is what a plug-in makes of headgate's demand estimator.
    """
    pipelines = tuple(
        Pipeline(name=n, floor=floor, step=world.step, slo=Slo(world.latency, world.percentile))
        for n in trace.pipelines
    )
    if name == "hpa":
        return Contender(Hpa(pipelines, world.budget), world)
    if name == "kpa":
        return Contender(Kpa(pipelines, world.budget), world)
    delay = world.start + world.release
    config = Config.of(pipelines, Budget(world.budget), interval=interval, delay=delay)
    if name not in ORACLES:
        config = replace(config, policy=find_policy(name), estimator=wrap(config.estimator))
        return Contender(Headgate(name, interval, config), world)
    if name == "oracle-free":
        world, config = replace(world, start=0.0, release=0.0), replace(config, calm=RESTLESS)
    delay = world.start + world.release
    eye = Clairvoyant(trace, world, interval + delay, default_estimator(interval, delay))
    policy = "slo" if "slo" in policies() else "proportional"
    # The price of moves is for doubt, of which it has none: its moves cost what they take.
    config = replace(config, calm=replace(config.calm, price=0.0))
    return Contender(Headgate(name, interval, replace(config, policy=find_policy(policy), estimator=eye)), world)
