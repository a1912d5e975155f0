"""Everything that was measured in one value, what speaks against trusting it, and all of it as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import headgate
from headgate.core.units import MILLI
from headgate.engine.demo import calibration
from headgate.engine.demo.calibration import Cost
from headgate.engine.demo.figures import Outcome, Plan, Run, Verdict, outcome, timeline, verdicts
from headgate.engine.demo.machine import Layout, Machine
from headgate.engine.demo.server import CONTROLS
from headgate.engine.demo.session import QUEUE_SECONDS, TIMEOUT, Options

STEP = 0.5
"""Seconds of a step of the timelines."""
_MUCH_OTHERS, _MUCH_STOLEN = 0.10, 0.05
_MUCH_LAG = 0.25


@dataclass(frozen=True, slots=True)
class Findings:
    """The demo's result: of all three runs, or of those that ended before it was interrupted."""

    machine: Machine
    layout: Layout
    options: Options
    costs: Sequence[Cost]
    plan: Plan
    runs: Sequence[Run]
    outcomes: Mapping[str, Outcome]
    verdicts: Sequence[Verdict]
    """Empty unless all runs are there."""
    doubts: Sequence[str]
    """Why the figures may not mean what they should; empty when nothing was seen."""

    @property
    def complete(self) -> bool:
        """Whether all runs are there."""
        return len(self.runs) == len(CONTROLS)


def conclude(
    machine: Machine, layout: Layout, options: Options, costs: Sequence[Cost], plan: Plan, runs: Sequence[Run]
) -> Findings:
    """The figures of the runs that there are."""
    outcomes = {run.control.name: outcome(run, plan) for run in runs}
    complete = len(runs) == len(CONTROLS)
    doubts = [*calibration.doubts(costs, layout.budget), *disturbances(layout, plan, runs, outcomes)]
    return Findings(
        machine,
        layout,
        options,
        costs,
        plan,
        runs,
        outcomes,
        verdicts(outcomes, plan.names[plan.day.flood.region]) if complete else [],
        doubts,
    )


def disturbances(layout: Layout, plan: Plan, runs: Sequence[Run], outcomes: Mapping[str, Outcome]) -> list[str]:
    """What else was going on during the runs, where it was enough to change their figures."""
    found = []
    cpus = layout.budget / MILLI
    for run in runs:
        seen, title = run.disturbance, run.control.title
        if seen.others > _MUCH_OTHERS * cpus:
            found.append(f"{title}: other processes used {seen.others:.2f} CPUs")
        if seen.stolen > _MUCH_STOLEN * cpus:
            found.append(f"{title}: the hypervisor gave {seen.stolen:.2f} CPUs to other machines")
        lag = outcomes[run.control.name].send_lag_p99
        # Without control, the server's spinning threads crowd out the generator that shares its CPUs: part of the case.
        crowded = run.control.name == "none" and not layout.separate
        if lag > _MUCH_LAG * float(plan.slos.min()) and not crowded:
            found.append(f"{title}: the load generator itself was late (p99 {lag * 1e3:.0f} ms)")
    return found


def as_json(findings: Findings) -> dict[str, Any]:
    """Durations in seconds, CPU in CPUs unless a name says millicores; NaN becomes null."""
    plan = findings.plan
    flood = plan.day.flood
    found = {
        "headgate": headgate.__version__,
        "complete": findings.complete,
        "doubts": list(findings.doubts),
        "verdicts": [asdict(verdict) for verdict in findings.verdicts],
        "machine": asdict(findings.machine),
        "setting": {
            **asdict(findings.options),
            "budget_millicores": plan.budget,
            "generator_has_own_cpus": findings.layout.separate,
            "timeout": TIMEOUT,
            "queue_seconds": QUEUE_SECONDS,
            "flood": {"pipeline": plan.names[flood.region], "start": flood.start, "end": flood.end},
        },
        "pipelines": {
            model.name: {
                "model": model.title,
                "rows_per_request": int(model.inputs.shape[1]),
                "accuracy_of_scikit_learn": model.accuracy,
                "slo": float(plan.slos[index]),
                **asdict(findings.costs[index]),
            }
            for index, model in enumerate(plan.models)
        },
        "runs": {run.control.name: _run(findings, run) for run in findings.runs},
    }
    clean: dict[str, Any] = _without_nan(found)
    return clean


def _run(findings: Findings, run: Run) -> dict[str, Any]:
    figures = asdict(findings.outcomes[run.control.name])
    lines = timeline(run.records, findings.plan, STEP)
    started = run.records.started
    return {
        "title": run.control.title,
        "settings": dict(run.control.settings),
        "figures": figures,
        "disturbance": asdict(run.disturbance),
        "server_cpu_seconds": run.server_cpu_seconds,
        "generator_cpu_seconds": run.records.cpu_seconds,
        "timeline": {
            "time": lines.times.tolist(),
            **{
                name: {
                    "arrivals": lines.arrivals[index].tolist(),
                    "p95": lines.p95[index].tolist(),
                    "misses": lines.misses[index].tolist(),
                }
                for index, name in enumerate(findings.plan.names)
            },
        },
        "status": [
            {
                "time": look.time - started,
                "granted": {name: seen["granted"] for name, seen in look.status["pipelines"].items()},
                "used": {name: seen["used"] for name, seen in look.status["pipelines"].items()},
            }
            for look in run.looks
        ],
    }


def _without_nan(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(inner) for inner in value]
    return value
