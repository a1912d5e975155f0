"""The comparison at the end, as tables for the terminal."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from headgate.engine.demo.figures import Slice
from headgate.engine.demo.findings import Findings

Row = tuple[str, Callable[[Slice], str]]

TOTALS: Sequence[Row] = (
    ("requests", lambda cut: f"{cut.requests:,}"),
    ("answers per second", lambda cut: f"{cut.throughput:.1f}"),
    ("  of which within the SLO", lambda cut: f"{cut.good_throughput:.1f}"),
    ("latency p50", lambda cut: ms(cut.p50)),
    ("latency p95", lambda cut: ms(cut.p95)),
    ("latency p99", lambda cut: ms(cut.p99)),
    ("refused (503)", lambda cut: f"{cut.refused:,}"),
    ("failed", lambda cut: f"{cut.failed:,}"),
    ("wrong answers", lambda cut: f"{cut.wrong:,}"),
)
"""What is shown of all requests of a run."""


def ms(seconds: float) -> str:
    """Milliseconds for people."""
    return "-" if math.isnan(seconds) else f"{seconds * 1e3:,.0f} ms"


def misses(cut: Slice) -> str:
    """How many requests missed their SLO, and of how many."""
    return f"{cut.miss_rate:.1%}  ({cut.misses:,} of {cut.requests:,})" if cut.requests else "-"


def print_summary(findings: Findings, console: Console) -> None:
    """The runs side by side, what they mean, and what speaks against it."""
    console.print()
    console.print(comparison(findings))
    for verdict in findings.verdicts:
        mark = "[green]yes[/green]" if verdict.holds else "[bold red]no [/bold red]"
        console.print(f" {mark}  {escape(verdict.claim)}: [bold]{escape(verdict.measured)}[/bold]", highlight=False)
    if findings.doubts:
        console.print(
            "\n[bold red]This machine was too slow or too loaded for the result to mean much:[/bold red]",
            highlight=False,
        )
        for doubt in findings.doubts:
            console.print(f"  - {escape(doubt)}", highlight=False)
    if not findings.complete:
        console.print("\n[bold]Interrupted: only the runs above are complete.[/bold]", highlight=False)
    console.print()


def comparison(findings: Findings) -> Table:
    """One column for each run."""
    table = Table(pad_edge=False, header_style="bold", title="The same traffic, three times", title_justify="left")
    table.add_column("", no_wrap=True)
    for run in findings.runs:
        table.add_column(run.control.title, justify="right", no_wrap=True)
    outcomes = [findings.outcomes[run.control.name] for run in findings.runs]
    flooder = findings.plan.names[findings.plan.day.flood.region]
    for title, show in TOTALS:
        table.add_row(title, *(show(each.total) for each in outcomes))
    table.add_section()
    table.add_row("SLO misses, all but the flood", *(misses(each.sustainable) for each in outcomes), style="bold")
    table.add_row("  outside the flood", *(misses(each.total_outside) for each in outcomes))
    table.add_row("  other regions in the flood", *(misses(each.others_in_flood) for each in outcomes))
    table.add_row("SLO misses, everything", *(misses(each.total) for each in outcomes))
    for name in findings.plan.names:
        table.add_section()
        table.add_row(f"{name}: misses outside the flood", *(misses(each.outside[name]) for each in outcomes))
        of_flood = " (floods)" if name == flooder else ""
        table.add_row(f"  during the flood{of_flood}", *(misses(each.flood[name]) for each in outcomes))
        table.add_row("  p50 / p95 / p99", *(_percentiles(each.whole[name]) for each in outcomes))
    return table


def _percentiles(cut: Slice) -> str:
    if math.isnan(cut.p50):
        return "-"
    return " / ".join(f"{seconds * 1e3:,.0f}" for seconds in (cut.p50, cut.p95, cut.p99)) + " ms"
