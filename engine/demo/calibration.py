"""How much CPU a request really takes on this machine: measured through the server, not guessed from the model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from headgate.core.units import MILLI
from headgate.engine.demo.loadgen import Burst
from headgate.engine.demo.models import Model, direct

SLO_FACTOR = 8.0
"""An SLO is this many times what a request takes on an idle server."""
_SUSPECT_CAPACITY = 0.5
_SUSPECT_SPREAD = 1.6


@dataclass(frozen=True, slots=True)
class Timing:
    """A model run without a server, on one thread."""

    median: float
    """Seconds."""
    p90: float


@dataclass(frozen=True, slots=True)
class Cost:
    """One pipeline as measured."""

    direct: Timing
    idle: float
    """Seconds of a request when it is the only one, over HTTP (median)."""
    per_second: float
    """Requests per second when all of the budget is its own."""
    cpu_seconds: float
    """CPU seconds of the budget that a request takes, with its share of HTTP and load generator."""

    @property
    def slo(self) -> float:
        """Seconds, in steps of 5 ms."""
        return max(0.005, math.ceil(SLO_FACTOR * self.idle / 0.005) * 0.005)


def time_direct(model: Model, count: int = 24) -> Timing:
    """Time `count` runs of the model in this process."""
    run = direct(model.files)
    times = []
    for index in range(count + 2):
        start = perf_counter()
        run(model.inputs[index % len(model.inputs)])
        times.append(perf_counter() - start)
    times = times[2:]  # the first ones also allocate
    return Timing(float(np.median(times)), float(np.percentile(times, 90)))


def costs(models: Sequence[Model], direct_runs: Sequence[Timing], bursts: Sequence[Burst], budget: int) -> list[Cost]:
    """What the closed loops say: `bursts` holds for each model one with a single caller and one that saturates."""
    found = []
    for index in range(len(models)):
        single, full = bursts[2 * index : 2 * index + 2]
        found.append(
            Cost(
                direct=direct_runs[index],
                idle=float(np.median(single.latencies)),
                per_second=full.per_second,
                cpu_seconds=budget / MILLI / full.per_second,
            )
        )
    return found


def doubts(costs: Sequence[Cost], budget: int) -> list[str]:
    """What about the calibration says that this machine is too slow or too busy to measure on; empty: nothing."""
    cpus = budget / MILLI
    found = []
    for cost in costs:
        if cost.direct.p90 > _SUSPECT_SPREAD * cost.direct.median:
            found.append(
                f"the same inference takes {cost.direct.median * 1e3:.1f} ms or {cost.direct.p90 * 1e3:.1f} ms: "
                "something else uses the CPUs"
            )
            break
    share = min(cost.per_second * cost.direct.median / cpus for cost in costs)
    if share < _SUSPECT_CAPACITY:
        found.append(
            f"the server reaches only {share:.0%} of the requests that {cpus:.3g} CPUs should serve: "
            "the CPUs are not all there"
        )
    return found
