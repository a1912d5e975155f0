"""How many CPUs would meet every pipeline's SLO, before any budget cuts them: what nodes are added and kept for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from headgate.core.model import Demand, Demands, Pipeline
from headgate.core.queueing import HORIZON, Traffic, within
from headgate.core.units import MILLI

MOST = 8.0
"""Times the offered load, and 1 CPU more, beyond which an SLO is not bought with CPUs."""
_HALVINGS = 12


def needs(pipelines: Sequence[Pipeline], demands: Demands, current: Mapping[str, int]) -> dict[str, int | None]:
    """Millicores by pipeline, within its floor and ceiling; None: its demand is not known.

    With an SLO the fewest CPUs at which its percentile answers in time, by the queueing model and the mean of the
    scenarios. Without one, where no number of CPUs would do, and where nothing counts requests: the offered load, and
    what waits within a minute. A pinned pipeline needs what it has (`current`).
    """
    found: dict[str, int | None] = {}
    strict = []
    for pipeline in pipelines:
        demand = demands.get(pipeline.name)
        if pipeline.pinned:
            found[pipeline.name] = current.get(pipeline.name, 0)
        elif not isinstance(demand, Demand):
            found[pipeline.name] = None
        else:
            waiting = demand.queue * demand.cpu_seconds_per_request / HORIZON
            found[pipeline.name] = _bounded(pipeline, demand.offered_load + waiting)
            if pipeline.slo is not None and demand.basis == "requests" and demand.offered_load > 0:
                strict.append((pipeline, demand))
    if strict:
        for (pipeline, _), cpus in zip(strict, _by_slo(strict), strict=True):
            if not math.isnan(cpus):
                found[pipeline.name] = max(found[pipeline.name] or 0, _bounded(pipeline, cpus))
    return found


def _bounded(pipeline: Pipeline, cpus: float) -> int:
    wanted = max(pipeline.floor, math.ceil(cpus * MILLI - 1e-6))
    return wanted if pipeline.ceiling is None else min(wanted, pipeline.ceiling)


def _by_slo(of: Sequence[tuple[Pipeline, Demand]]) -> list[float]:
    """CPUs that meet the SLO of each by bisection, to 1 part in 4096 of the range; NaN: none would."""

    def column(values: Sequence[float]) -> np.ndarray:
        return np.array(values, dtype=np.float64)

    traffic = Traffic(
        arrival_rate=column([d.arrival_rate for _, d in of]),
        service_time=column([d.cpu_seconds_per_request for _, d in of]),
        service_cv=column([d.service_cv for _, d in of]),
        queue=column([d.queue for _, d in of]),
        parallel_fraction=column([p.parallel_fraction for p, _ in of]),
        arrival_cv=column([d.arrival_cv for _, d in of]),
    )
    latency = column([p.slo.latency if p.slo else math.inf for p, _ in of])
    share = column([p.slo.percentile / 100 if p.slo else 0.0 for p, _ in of])
    load = column([d.offered_load for _, d in of])
    low, high = np.zeros_like(load), load * MOST + 1
    reached = within(traffic, high, latency) >= share
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        short = within(traffic, middle, latency) < share
        low, high = np.where(short, middle, low), np.where(short, high, middle)
    result: list[float] = np.where(reached, high, np.nan).tolist()
    return result
