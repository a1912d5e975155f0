"""The simulation's table and its HTML page with plots."""

from __future__ import annotations

import io
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from headgate.controller.nodes.fluid import Figures, Record
from headgate.core.config import SettingsError

HEADINGS = ("node scaler", "node hours", "violations", "dropped", "most nodes", "added", "removed")


def cells(figures: Figures) -> tuple[str, ...]:
    """A row of the table."""
    return (
        figures.policy,
        f"{figures.node_hours:.1f}",
        f"{figures.violations:.2%}",
        f"{figures.dropped:.2%}",
        str(figures.most_nodes),
        str(figures.additions),
        str(figures.removals),
    )


def write_report(path: str, setting: str, figures: Sequence[Figures], records: Sequence[Record]) -> None:
    """The page. Raises SettingsError without the extra `nodes`, or when `path` cannot be written."""
    try:
        from jinja2 import Environment
        from matplotlib.figure import Figure
    except ImportError:
        raise SettingsError("--report needs the extra nodes: pip install 'headgate[nodes]'") from None
    nodes = Figure(figsize=(11, 4), layout="constrained")
    axes: Any = nodes.subplots()
    for record in records:
        axes.step([t / 3600 for t in record.times], record.machines, where="post", label=record.policy)
    axes.set_xlabel("hours")
    axes.set_ylabel("nodes paid for")
    nodes.legend(loc="outside upper left", ncols=len(records))
    load = Figure(figsize=(11, 4), layout="constrained")
    axes = load.subplots()
    hours = [t / 3600 for t in records[0].times]
    axes.fill_between(hours, records[0].load, color="#bbb", label="offered load")
    for record in records:
        axes.step(hours, record.capacity, where="post", label=f"CPUs of Ready nodes: {record.policy}")
    axes.set_xlabel("hours")
    axes.set_ylabel("CPUs")
    load.legend(loc="outside upper left", ncols=1 + len(records))
    template = files("headgate.controller.nodes").joinpath("report.html").read_text(encoding="utf-8")
    page = (
        Environment(autoescape=True)
        .from_string(template)
        .render(
            setting=setting, headings=HEADINGS, rows=[cells(f) for f in figures], nodes=_svg(nodes), load=_svg(load)
        )
    )
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(page)
    except OSError as error:
        raise SettingsError(f"{path}: cannot be written: {error.strerror}") from None


def _svg(figure: Any) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg")
    return text.getvalue().partition("<svg")[1] + text.getvalue().partition("<svg")[2]
