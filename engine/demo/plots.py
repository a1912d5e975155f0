"""The report's plots, as SVG to be put into the page: one column for each run, on the same axes."""

from __future__ import annotations

import io
import re
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from headgate.core.units import MILLI
from headgate.engine.demo.figures import Plan, Run, Timeline, timeline
from headgate.engine.demo.findings import STEP, Findings
from headgate.engine.demo.traffic import Array
from headgate.engine.demo.view import COLOURS

STYLE: Any = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#a0aec0",
    "axes.grid": True,
    "axes.labelcolor": "#4a5568",
    "axes.labelsize": 9,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "grid.color": "#e2e8f0",
    "grid.linewidth": 0.6,
    "svg.fonttype": "path",
    "svg.hashsalt": "headgate",
    "text.color": "#2d3748",
    "xtick.color": "#718096",
    "xtick.labelsize": 8,
    "ytick.color": "#718096",
    "ytick.labelsize": 8,
}
_ROWS = (
    "offered load\nCPUs",
    "CPUs granted\nstacked",
    "CPUs used\nstacked",
    "latency p95\nms",
    "SLO misses\nper second",
)
_FLOOD = "#fed7d7"


def runs_over_time(findings: Findings) -> str:
    """Load, CPUs granted and used, latency and misses of every run."""
    plan, runs = findings.plan, findings.runs
    lines = [timeline(run.records, plan, STEP) for run in runs]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(12.4, 11.2), layout="constrained")
        axes = figure.subplots(
            len(_ROWS), len(runs), sharex=True, sharey="row", squeeze=False, height_ratios=(1, 1.15, 1.15, 1.15, 0.9)
        )
        for column, (run, line) in enumerate(zip(runs, lines, strict=True)):
            cells: list[Axes] = list(axes[:, column])
            cells[0].set_title(run.control.title, pad=10)
            _offered(cells[0], plan)
            _stacked(cells[1], plan, run, "granted")
            _stacked(cells[2], plan, run, "used")
            _latency(cells[3], plan, line)
            _misses(cells[4], plan, line)
            for cell in cells:
                cell.axvspan(plan.day.flood.start, plan.day.flood.end, color=_FLOOD, alpha=0.55, lw=0, zorder=0)
            cells[-1].set_xlabel("seconds")
            cells[-1].set_xlim(0, plan.day.seconds)
        for row, title in enumerate(_ROWS):
            axes[row, 0].set_ylabel(title)
        figure.align_ylabels(axes[:, 0])
        return svg(figure)


def svg(figure: Figure) -> str:
    """The figure as an SVG element without fixed size, for a page that decides on its width."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    element = text.getvalue().partition("<svg")[2]
    return "<svg" + re.sub(r' (width|height)="[\d.]+pt"', "", element, count=2)


def _offered(cell: Axes, plan: Plan) -> None:
    times = np.arange(0, plan.day.seconds, 0.05)
    budget = plan.budget / MILLI
    _stack(cell, times, plan.day.offered(times))
    cell.axhline(budget, color="#2d3748", lw=1.0, ls=(0, (4, 3)))
    top = 1.75 * budget
    cell.set_ylim(0, top)
    if plan.day.flood.cpus:
        peak = float(plan.day.offered(np.array([(plan.day.flood.start + plan.day.flood.end) / 2])).sum())
        if peak > top:
            cell.annotate(
                f"{peak:.1f} CPUs",
                ((plan.day.flood.start + plan.day.flood.end) / 2, top * 0.97),
                ha="center",
                va="top",
                fontsize=8,
                color="white",
            )


def _stacked(cell: Axes, plan: Plan, run: Run, key: str) -> None:
    budget = plan.budget / MILLI
    cell.set_ylim(0, 1.12 * budget)
    if key == "granted" and run.control.settings.get("control") == "none":
        cell.text(0.5, 0.5, "nothing is divided", transform=cell.transAxes, ha="center", color="#718096", fontsize=9)
    else:
        looks = [look for look in run.looks if 0 <= look.time - run.records.started <= plan.day.seconds]
        times = np.array([look.time - run.records.started for look in looks])
        values = [[look.status["pipelines"][name][key] / MILLI for look in looks] for name in plan.names]
        _stack(cell, times, np.array(values), step="post")
    cell.axhline(budget, color="#2d3748", lw=1.0, ls=(0, (4, 3)))


def _stack(cell: Axes, times: Array, values: Array, step: Any = None) -> None:
    if not times.size:
        return
    below = np.zeros_like(times)
    for index, value in enumerate(values):
        colour = COLOURS[index % len(COLOURS)]
        cell.fill_between(times, below, below + value, step=step, color=colour, alpha=0.78, lw=0)
        below = below + value


def _latency(cell: Axes, plan: Plan, line: Timeline) -> None:
    for index, slo in enumerate(plan.slos):
        colour = COLOURS[index % len(COLOURS)]
        cell.axhline(slo * 1e3, color=colour, lw=0.9, ls=(0, (2, 2)), alpha=0.8)
        cell.plot(line.times, line.p95[index] * 1e3, color=colour, lw=1.5)
    cell.set_yscale("log")
    cell.set_ylim(5, 6000)
    cell.set_yticks([10, 100, 1000], ["10", "100", "1,000"])
    cell.minorticks_off()


def _misses(cell: Axes, plan: Plan, line: Timeline) -> None:
    normal = 1.15 * plan.day.cpus / min(plan.day.costs)
    for index in range(len(plan.models)):
        rate = np.nan_to_num(line.misses[index]) * line.arrivals[index]
        cell.plot(line.times, rate, color=COLOURS[index % len(COLOURS)], lw=1.4)
    # The flood's own misses are many times as many; the axis is for everything else.
    cell.set_ylim(0, normal)
