"""A live view of a running engine in the terminal."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import click
import httpx
from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from headgate.core.units import MILLI, format_cpu

BAR = 12
"""Characters of a bar that stands for the whole budget."""


def watch(url: str, *, once: bool, interval: float) -> None:
    """Show the status of the engine at `url` until Ctrl-C, or `once`. Raises ClickException when it cannot be had."""
    console = Console()
    with httpx.Client(timeout=5.0) as client:
        if once:
            console.print(render(fetch(client, url)))
            return
        try:
            with Live(render(fetch(client, url)), console=console, screen=console.is_terminal) as live:
                while True:
                    time.sleep(interval)
                    live.update(render(fetch(client, url)), refresh=True)
        except KeyboardInterrupt:
            return


def fetch(client: httpx.Client, url: str) -> dict[str, Any]:
    """The status at `url`. Raises ClickException that says what is there instead."""
    try:
        answer = client.get(f"{url.rstrip('/')}/headgate/status")
        answer.raise_for_status()
        found = answer.json()
    except httpx.HTTPStatusError as error:
        raise click.ClickException(f"{url} answers {error.response.status_code}: is it headgate?") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise click.ClickException(f"no engine at {url}: {error}; start one with `headgate serve`") from None
    except ValueError:
        found = None
    if not isinstance(found, dict) or "pipelines" not in found:
        raise click.ClickException(f"{url} answers, but not with headgate's status")
    return found


def render(status: Mapping[str, Any]) -> Group:
    """The status as a table."""
    budget = status["budget"]
    used = sum(pipeline["used"] for pipeline in status["pipelines"].values())
    head = Text.assemble(
        ("headgate ", "bold"),
        f"{status['version']}  budget {format_cpu(budget)} CPUs, used {used / MILLI:.2f}  ",
        f"control {status['control']}, policy {status['policy']}, lend {'yes' if status['lend'] else 'no'}  ",
        f"decisions {status['decisions']}  ",
        time.strftime("%H:%M:%S", time.localtime(status["time"])),
    )
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("pipeline", no_wrap=True)
    for title in ("req/s", "offered"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("granted/used", no_wrap=True)
    for title in ("queue", "p50 ms", "p95 ms", "p99 ms", "missed"):
        table.add_column(title, justify="right", no_wrap=True)
    for name, pipeline in status["pipelines"].items():
        table.add_row(*_row(name, pipeline, budget))
    reasons = [Text(f"{name}: {pipeline['reason']}", style="dim") for name, pipeline in status["pipelines"].items()]
    if recommended := status.get("recommended"):
        style = "dim" if recommended["cpus"] == budget else "yellow"
        reasons.append(Text(f"machine: {format_cpu(recommended['cpus'])} CPUs: {recommended['reason']}", style=style))
    if status.get("problem"):
        reasons.append(Text(f"no decision could be made: {status['problem']}", style="bold red"))
    return Group(head, table, *reasons)


def _row(name: str, pipeline: Mapping[str, Any], budget: int) -> list[str | Text]:
    latency = pipeline["latency"]
    offered = pipeline["offered_load"]
    requests, misses = pipeline["requests"], pipeline["slo_misses"]
    return [
        name,
        f"{pipeline['arrival_rate']:.1f}",
        "?" if offered is None else f"{offered / MILLI:.2f}",
        _bars(pipeline["granted"], pipeline["used"], budget),
        str(pipeline["queue"]),
        *(_milliseconds(latency[key]) for key in ("p50", "p95", "p99")),
        f"{misses / requests:.1%}" if requests and pipeline["slo"] else "-",
    ]


def _bars(granted: int, used: int, budget: int) -> Text:
    """Used CPU as a full bar, the rest of the grant as a light one, and used CPU above the grant in another colour."""
    cells = [round(amount / budget * BAR) for amount in (min(granted, used), max(granted, used))]
    over = "magenta" if used > granted else "bright_black"
    return Text.assemble(
        f"{granted / MILLI:.2f}/{used / MILLI:.2f} ",
        ("█" * cells[0], "green"),
        ("█" * (cells[1] - cells[0]) if used > granted else "░" * (cells[1] - cells[0]), over),
    )


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.1f}"
