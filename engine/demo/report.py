"""The report: one HTML file that needs nothing else, and all figures as JSON."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

import headgate
from headgate.core.units import MILLI, format_cpu
from headgate.engine.demo import plots
from headgate.engine.demo.findings import Findings, as_json
from headgate.engine.demo.session import QUEUE_SECONDS, TIMEOUT
from headgate.engine.demo.summary import TOTALS, misses, ms
from headgate.engine.demo.view import COLOURS


def write_json(findings: Findings, file: Path) -> None:
    """All figures, for programs."""
    file.write_text(json.dumps(as_json(findings), indent=1) + "\n", encoding="utf-8")


def write_html(findings: Findings, file: Path) -> None:
    """The report for people."""
    file.write_text(render(findings), encoding="utf-8")


def render(findings: Findings) -> str:
    """The page."""
    environment = Environment(
        loader=PackageLoader("headgate.engine.demo", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(ms=ms, misses=misses, percent=lambda value: f"{value:.1%}", cpu=format_cpu)
    return environment.get_template("report.html.j2").render(**context(findings))


def context(findings: Findings) -> dict[str, Any]:
    """What the template shows."""
    plan = findings.plan
    outcomes = [findings.outcomes[run.control.name] for run in findings.runs]
    worst = max((outcome.sustainable.miss_rate for outcome in outcomes), default=0.0)
    return {
        "version": headgate.__version__,
        "findings": findings,
        "plan": plan,
        "flood": plan.day.flood,
        "flooder": plan.names[plan.day.flood.region],
        "flood_times": plan.day.offered(np.array([plan.day.flood.start]))[plan.day.flood.region, 0]
        / (plan.budget / MILLI),
        "columns": list(zip(findings.runs, outcomes, strict=True)),
        "outcomes": outcomes,
        "worst": worst or 1.0,
        "colours": dict(zip(plan.names, COLOURS, strict=False)),
        "totals": TOTALS,
        "lags": {
            run.control.name: [lag for lag in outcome.status.lag.values() if not math.isnan(lag)]
            for run, outcome in zip(findings.runs, outcomes, strict=True)
        },
        "plots": plots.runs_over_time(findings),
        "queue_seconds": QUEUE_SECONDS,
        "timeout": TIMEOUT,
        "summary": summary(findings),
    }


def summary(findings: Findings) -> list[str]:
    """What came out, in sentences, whatever came out."""
    if not findings.complete:
        return ["The demo was interrupted. What follows are the runs that were complete."]
    none, static, live = (findings.outcomes[name] for name in ("none", "static", "headgate"))
    flooder = findings.plan.names[findings.plan.day.flood.region]
    return [
        f"With headgate {live.sustainable.miss_rate:.1%} of the requests missed their SLO; with equal static shares "
        f"{static.sustainable.miss_rate:.1%}, without control {none.sustainable.miss_rate:.1%}. "
        f"(The flood itself, which no division of these CPUs can serve, is counted apart.)",
        f"While {flooder} flooded the server, the other regions missed {live.others_in_flood.miss_rate:.1%} with "
        f"headgate, {static.others_in_flood.miss_rate:.1%} with static shares and "
        f"{none.others_in_flood.miss_rate:.1%} without control.",
        f"Answers within the SLO: {live.total.good_throughput:.0f} per second with headgate, "
        f"{static.total.good_throughput:.0f} with static shares, {none.total.good_throughput:.0f} without control.",
    ]
