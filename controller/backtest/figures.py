"""The figures that policies are compared by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from headgate.controller.backtest.world import Outcome, World


@dataclass(frozen=True, slots=True)
class Figures:
    """One policy's result. Rates are shares from 0 to 1."""

    policy: str
    slo_violation_rate: float
    """Mean over minutes and pipelines of the share of requests that were late or dropped."""
    lost_utility: float
    """Number of pipelines minus the mean over minutes of the sum of utilities (see `utilities`)."""
    request_violation_rate: float
    """Share of all requests that were late or dropped."""
    requests: int
    dropped: int
    cpu_hours_granted: float
    cpu_hours_used: float
    moves: float
    """CPUs that changed hands."""
    decision_median_ms: float
    decision_p99_ms: float


def figures(outcome: Outcome, world: World) -> Figures:
    """The figures of an outcome."""
    missed = outcome.late + outcome.dropped
    total = int(outcome.requests.sum())
    pipelines = outcome.requests.shape[1]
    decisions = outcome.decision_seconds if len(outcome.decision_seconds) else np.zeros(1)
    return Figures(
        policy=outcome.policy,
        slo_violation_rate=float(violations(outcome).mean()),
        lost_utility=float(pipelines - utilities(outcome, world).sum(axis=1).mean()),
        request_violation_rate=int(missed.sum()) / max(total, 1),
        requests=total,
        dropped=int(outcome.dropped.sum()),
        cpu_hours_granted=float(outcome.granted.sum() / 60),
        cpu_hours_used=float(outcome.used.sum() / 60),
        moves=outcome.moved / 1000,
        decision_median_ms=float(np.median(decisions) * 1000),
        decision_p99_ms=float(np.percentile(decisions, 99) * 1000),
    )


def violations(outcome: Outcome) -> NDArray[np.float64]:
    """Share of requests late or dropped, minutes x pipelines; 0 in a minute without requests."""
    return (outcome.late + outcome.dropped) / np.maximum(outcome.requests, 1)


def utilities(outcome: Outcome, world: World) -> NDArray[np.float64]:
    """min(1, SLO / latency percentile), minutes x pipelines; 1 in a minute without requests.

    The percentile is infinite, and the utility 0, when more requests were dropped than the percentile leaves out.
    """
    return np.minimum(1.0, world.latency / np.maximum(outcome.latency, world.latency))


def average(runs: Sequence[Figures]) -> Figures:
    """The mean of each figure over runs of one policy; counts are rounded."""
    first = runs[0]
    means = {
        field.name: sum(getattr(run, field.name) for run in runs) / len(runs)
        for field in fields(first)
        if field.name != "policy"
    }
    counts = {name: round(means.pop(name)) for name in ("requests", "dropped")}
    return replace(first, **means, **counts)
