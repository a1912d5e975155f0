"""What each pipeline needs, from what was seen of it: arrival rate and CPU seconds per request.

An estimator is a pure value with two methods; its state is a value too, so that a decision can be replayed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Protocol

from headgate.core.model import Demand, Sample, Unknown


class Estimator(Protocol):
    """Learns one pipeline's demand from its samples. Estimators wrap one another."""

    def update(self, state: Any, sample: Sample) -> Any:
        """The state after `sample`. `state` is None for the first one."""
        ...

    def estimate(self, state: Any, now: float) -> Demand | Unknown:
        """The demand over the coming horizon, or why it cannot be told."""
        ...


@dataclass(frozen=True, slots=True)
class EwmaState:
    """Exponentially weighted sums, and when they were last fed."""

    time: float
    arrivals: float = 0.0
    seconds: float = 0.0
    completions: float = 0.0
    cpu_seconds: float = 0.0
    queue: float = 0.0
    service_cv: float = 1.0


@dataclass(frozen=True, slots=True)
class Ewma:
    """Exponentially weighted arrival rate and CPU seconds per request.

    Both are ratios of sums that decay with their half-life in seconds, so that an interval with few requests
    counts for little. Samples older than `stale` seconds say nothing any more.
    """

    rate_half_life: float = 1.0
    cost_half_life: float = 30.0
    stale: float = 10.0

    def update(self, state: EwmaState | None, sample: Sample) -> EwmaState:
        """The sums after `sample`; parts that it does not know stay as they are."""
        if state is None:
            state = EwmaState(time=sample.time - sample.window)
        if sample.time <= state.time or sample.window <= 0:
            return state
        if sample.arrivals is not None:
            keep = math.exp2(-sample.window / self.rate_half_life)
            state = replace(
                state, arrivals=state.arrivals * keep + sample.arrivals, seconds=state.seconds * keep + sample.window
            )
        if sample.completions and sample.cpu_seconds is not None:
            keep = math.exp2(-sample.window / self.cost_half_life)
            state = replace(
                state,
                completions=state.completions * keep + sample.completions,
                cpu_seconds=state.cpu_seconds * keep + sample.cpu_seconds,
            )
        if sample.queue is not None:
            state = replace(state, queue=sample.queue)
        if sample.service_cv is not None:
            state = replace(state, service_cv=sample.service_cv)
        return replace(state, time=sample.time)

    def estimate(self, state: EwmaState | None, now: float) -> Demand | Unknown:
        """Rate and cost as learned, or Unknown before the first request was served or when samples stopped."""
        if state is None:
            return Unknown("no sample yet")
        if now - state.time > self.stale:
            return Unknown(f"last sample is {now - state.time:.0f} s old")
        if not state.seconds:
            return Unknown("the samples do not say how many requests arrive")
        if not state.completions:
            return Unknown("no request has been served yet, so the cost of one is not known")
        return Demand(
            arrival_rates=(state.arrivals / state.seconds,),
            cpu_seconds_per_request=state.cpu_seconds / state.completions,
            service_cv=state.service_cv,
            queue=state.queue,
        )
