"""A backtest as one HTML page: the figures, and plots of load, CPUs and violations over time."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from headgate.controller.backtest.figures import Figures, violations
from headgate.controller.backtest.grid import Trace
from headgate.controller.backtest.show import HEADINGS, cells, describe
from headgate.controller.backtest.world import Outcome, World
from headgate.core.config import SettingsError
from headgate.core.units import MILLI

_DRAWN = 12
"""Pipelines with a colour of their own, the busiest; the others are one area."""
_POINTS = 720
"""Points on a time axis at the most: more are averaged."""


def write_report(
    path: str, trace: Trace, world: World, outcomes: Sequence[Outcome], results: Sequence[Figures]
) -> None:
    """Write the page. Raises SettingsError when matplotlib or jinja2 is missing or the file cannot be written."""
    try:
        import jinja2
        import matplotlib as mpl
    except ImportError as error:
        raise SettingsError(f"--report: {error.name} is not installed: pip install 'headgate[backtest]'") from None
    mpl.use("svg")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("headgate.controller.backtest", "templates"), autoescape=True
    )
    order = np.argsort(-trace.requests.sum(axis=0), kind="stable")
    page = environment.get_template("report.html.j2").render(
        setting=describe(trace, world),
        headings=HEADINGS,
        rows=[cells(figures) for figures in results],
        load=_stack(trace, trace.requests / 60, order, "requests/s", None),
        misses=_misses(outcomes),
        policies=[
            (outcome.policy, _stack(trace, outcome.granted, order, "CPUs held", world.budget / MILLI))
            for outcome in outcomes
        ],
    )
    try:
        Path(path).write_text(page, encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"{path}: cannot be written: {error.strerror}") from None


def _stack(trace: Trace, values: Any, order: Any, unit: str, budget: float | None) -> str:
    figure, axes = _axes(unit)
    drawn, rest = order[:_DRAWN], order[_DRAWN:]
    hours, series = _thin(values[:, drawn])
    labels = [trace.pipelines[index] for index in drawn]
    if len(rest):
        series = np.column_stack((series, _thin(values[:, rest].sum(axis=1, keepdims=True))[1]))
        labels.append(f"{len(rest)} others")
    axes.stackplot(hours, series.T, labels=labels, step="mid" if len(hours) > 1 else None)
    if budget is not None:
        axes.axhline(budget, color="black", linewidth=0.8, linestyle="--", label="budget")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=7, frameon=False)
    return _svg(figure)


def _misses(outcomes: Sequence[Outcome]) -> str:
    figure, axes = _axes("% late or dropped")
    for outcome in outcomes:
        hours, share = _thin(violations(outcome).mean(axis=1, keepdims=True) * 100)
        axes.plot(hours, share[:, 0], label=outcome.policy, linewidth=1)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=7, frameon=False)
    return _svg(figure)


def _axes(unit: str) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 2.6), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel("hours")
    axes.set_ylabel(unit)
    axes.margins(x=0)
    return figure, axes


def _thin(values: Any) -> tuple[Any, Any]:
    """Hours and the series, averaged over stretches so that a long trace stays drawable."""
    width = -(-len(values) // _POINTS)
    starts = np.arange(0, len(values), width)
    counts = np.diff(np.append(starts, len(values)))
    means = np.add.reduceat(values, starts, axis=0) / counts[:, None]
    return (starts + counts / 2) / 60, means


def _svg(figure: Any) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue().partition("<svg")[1] + text.getvalue().partition("<svg")[2]
