"""A backtest's figures as a table for people and as JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from headgate.controller.backtest.figures import Figures
from headgate.controller.backtest.grid import Trace
from headgate.controller.backtest.world import World
from headgate.core.units import MILLI, format_cpu, format_duration

HEADINGS = (
    "policy",
    "SLO violations",
    "lost utility",
    "requests missed",
    "dropped",
    "CPU h granted",
    "CPU h used",
    "CPUs moved",
    "decision",
    "p99",
)


def cells(figures: Figures) -> tuple[str, ...]:
    """One row of the table, in the order of HEADINGS."""
    return (
        figures.policy,
        f"{figures.slo_violation_rate:.2%}",
        f"{figures.lost_utility:.3f}",
        f"{figures.request_violation_rate:.2%}",
        f"{figures.dropped:,}",
        f"{figures.cpu_hours_granted:.1f}",
        f"{figures.cpu_hours_used:.1f}",
        f"{figures.moves:,.0f}",
        f"{figures.decision_median_ms:.2f} ms",
        f"{figures.decision_p99_ms:.2f} ms",
    )


def describe(trace: Trace, world: World) -> str:
    """The setting of a backtest in one sentence."""
    moves = "CPUs move at once"
    if world.start or world.release:
        moves = (
            f"a CPU serves {format_duration(world.start)} after it was given and is free "
            f"{format_duration(world.release)} after it was taken"
        )
    return (
        f"{len(trace.pipelines)} pipelines, {trace.minutes} minutes, {format_cpu(world.budget)} CPUs; "
        f"SLO {format_duration(world.latency)} for {world.percentile:g} % of the requests; {moves}"
    )


def show(trace: Trace, world: World, results: Sequence[Figures]) -> None:
    """The table on standard output."""
    table = Table(title=describe(trace, world), box=None, pad_edge=False, title_justify="left")
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading == "policy" else "right")
    for figures in results:
        table.add_row(*cells(figures))
    Console(width=None if sys.stdout.isatty() else 160, markup=False, highlight=False).print(table)


def as_json(source: str, trace: Trace, world: World, results: Sequence[Figures]) -> str:
    """The same as a JSON object: rates are shares from 0 to 1, times in seconds unless the name says ms."""
    return json.dumps(
        {
            "trace": source,
            "pipelines": list(trace.pipelines),
            "minutes": trace.minutes,
            "cpus": world.budget / MILLI,
            "slo": {"latency": world.latency, "percentile": world.percentile},
            "start": world.start,
            "release": world.release,
            "seed": world.seed,
            "policies": [asdict(figures) for figures in results],
        },
        indent=2,
        ensure_ascii=False,
    )
