"""The engine's state as JSON, for people, `headgate top` and other programs."""

from __future__ import annotations

import time
from dataclasses import asdict

import headgate
from headgate.core.model import Demand, Pipeline
from headgate.core.units import MILLI
from headgate.engine.engine import Engine, Standing


def status(engine: Engine) -> dict[str, object]:
    """CPU in millicores, durations in seconds. All grants are of one decision, so they sum to what it divided."""
    standing = engine.standing
    settings = engine.settings
    now = time.monotonic()
    return {
        "time": time.time(),
        "version": headgate.__version__,
        "control": settings.control,
        "policy": settings.policy,
        "lend": settings.lend,
        "budget": standing.budget,
        "decisions": standing.decisions,
        "problem": standing.problem,
        "recommended": asdict(standing.recommended) if standing.recommended else None,
        "pipelines": {p.name: _pipeline(engine, standing, p, now) for p in engine.pipelines},
    }


def _pipeline(engine: Engine, standing: Standing, pipeline: Pipeline, now: float) -> dict[str, object]:
    name = pipeline.name
    tally = engine.tallies[name]
    totals = tally.totals()
    queue, running = engine.load(name)
    demand = standing.demands.get(name)
    known = demand if isinstance(demand, Demand) else None
    return {
        "granted": standing.allocation.grants[name],
        "used": standing.used.get(name, 0),
        "queue": queue,
        "running": running,
        "arrival_rate": standing.arrival_rates.get(name, 0.0),
        "cpu_seconds_per_request": known.cpu_seconds_per_request if known else None,
        "offered_load": round(known.offered_load * MILLI) if known else None,
        "unmet": standing.allocation.unmet.get(name, 0),
        "reason": standing.allocation.reasons.get(name, ""),
        "floor": pipeline.floor,
        "ceiling": pipeline.ceiling,
        "weight": pipeline.weight,
        "slo": asdict(pipeline.slo) if pipeline.slo else None,
        "latency": tally.percentiles(now),
        "requests": totals.requests,
        "refused": totals.refused,
        "slo_misses": totals.slo_misses,
    }
