"""What the demo shows while it runs: a live view in a terminal, plain lines anywhere else."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from headgate.core.units import MILLI
from headgate.engine.demo.client import UNSENT
from headgate.engine.demo.figures import OK, Plan
from headgate.engine.demo.loadgen import Progress
from headgate.engine.demo.session import Event, Stage, Tick

COLOURS = ("#2b6cb0", "#c05621", "#2f855a", "#6b46c1", "#b7791f")
"""One for each pipeline, here and in the report."""

_WINDOW = 2.0
_BAR = 20
_PLAIN_EVERY = 5.0


class View(Protocol):
    """Where events go."""

    def show(self, event: Event) -> None:
        """Show it."""
        ...

    def plan(self, plan: Plan) -> None:
        """What the coming runs play."""
        ...

    def say(self, text: str) -> None:
        """Something that stays on the screen."""
        ...


@dataclass(slots=True)
class Window:
    """What ended in the last seconds, and the counts of the whole run."""

    regions: int
    recent: deque[Progress] = field(default_factory=deque)
    sent: list[int] = field(default_factory=list)
    missed: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.sent, self.missed = [0] * self.regions, [0] * self.regions

    def add(self, progress: Progress, slos: Sequence[float]) -> None:
        """Take in a message."""
        self.recent.append(progress)
        while self.recent[0].time < progress.time - _WINDOW:
            self.recent.popleft()
        for region in range(self.regions):
            self.sent[region] += progress.sent[region]
            mine = progress.regions == region
            late = (progress.status != OK) | (progress.latencies > slos[region])
            self.missed[region] += int((mine & late & (progress.status != UNSENT)).sum())

    def rate(self, region: int) -> float:
        """Requests sent per second."""
        span = max(0.25, self.recent[-1].time - self.recent[0].time) if len(self.recent) > 1 else _WINDOW
        return sum(progress.sent[region] for progress in list(self.recent)[1:]) / span

    def p95(self, region: int) -> float | None:
        """Seconds; of the answers of the last two seconds."""
        values = [p.latencies[(p.regions == region) & (p.status == OK)] for p in self.recent]
        together = np.concatenate(values) if values else np.array([])
        return float(np.percentile(together, 95)) if together.size else None


def open_view(console: Console) -> LiveView | PlainView:
    """The live view where the console is a terminal, plain lines elsewhere."""
    return LiveView(console) if console.is_terminal and not console.is_dumb_terminal else PlainView(console)


class PlainView:
    """A line for each stage, and one every few seconds of a run."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._plan: Plan | None = None
        self._window: Window | None = None
        self._last = 0.0

    def __enter__(self) -> PlainView:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def plan(self, plan: Plan) -> None:
        """See View."""
        self._plan = plan

    def say(self, text: str) -> None:
        """See View."""
        self._console.print(text, highlight=False, soft_wrap=True)

    def show(self, event: Event) -> None:
        """See View."""
        if isinstance(event, Stage):
            self.say(event.title)
            self._window, self._last = None, 0.0
            return
        if self._plan is None:
            return
        window = self._window = self._window or Window(len(self._plan.models))
        window.add(event.progress, self._plan.slos.tolist())
        if event.progress.time < self._last + _PLAIN_EVERY:
            return
        self._last = event.progress.time
        parts = [
            f"{name} {window.rate(index):.0f}/s {_granted(event, name)} CPUs p95 {_ms(window.p95(index))} "
            f"missed {_share(window, index)}"
            for index, name in enumerate(self._plan.names)
        ]
        self.say(f"  {event.progress.time:4.0f} s  " + "  |  ".join(parts))


class LiveView:
    """One table for the run that is on, redrawn in place."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._plan: Plan | None = None
        self._window: Window | None = None
        self._done: list[str] = []
        self._stage = ""

    def __enter__(self) -> LiveView:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def plan(self, plan: Plan) -> None:
        """See View."""
        self._plan = plan

    def say(self, text: str) -> None:
        """See View."""
        self._live.console.print(text, highlight=False)

    def show(self, event: Event) -> None:
        """See View."""
        if isinstance(event, Stage):
            self._stage, self._window = event.title, None
            self._live.update(Text(f"{event.title} ...", style="bold"), refresh=True)
        elif self._plan is not None:
            window = self._window = self._window or Window(len(self._plan.models))
            window.add(event.progress, self._plan.slos.tolist())
            self._live.update(frame(self._stage, self._plan, event, window), refresh=True)


def frame(stage: str, plan: Plan, tick: Tick, window: Window) -> RenderableType:
    """The view at one moment."""
    now, flood, budget = tick.progress.time, plan.day.flood, plan.budget / MILLI
    head = Text.assemble((stage, "bold"), f"   {min(now, plan.day.seconds):.0f} of {plan.day.seconds:.0f} s   ")
    if flood.start <= now < flood.end:
        head.append(f"{plan.names[flood.region]} floods the server", style="bold red")
    offered = plan.day.offered(np.array([now]))[:, 0]
    table = Table(expand=False, pad_edge=False, box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("pipeline", no_wrap=True)
    table.add_column("sent/s", justify="right", no_wrap=True)
    table.add_column("offered CPUs", no_wrap=True)
    table.add_column("granted CPUs", no_wrap=True)
    table.add_column("used CPUs", no_wrap=True)
    for title in ("queue", "p95", "SLO", "missed"):
        table.add_column(title, justify="right", no_wrap=True)
    for index, name in enumerate(plan.names):
        colour = COLOURS[index % len(COLOURS)]
        seen: Mapping[str, Any] = tick.look.status["pipelines"][name] if tick.look else {}
        p95, slo = window.p95(index), float(plan.slos[index])
        table.add_row(
            Text(name, style=f"bold {colour}"),
            f"{window.rate(index):.0f}",
            bar(float(offered[index]), budget, colour),
            Text("shared by all", style="dim") if _uncontrolled(tick) else _bar_of(seen, "granted", budget, colour),
            _bar_of(seen, "used", budget, colour),
            str(seen.get("queue", "")),
            Text(_ms(p95), style="red" if p95 is not None and p95 > slo else ""),
            _ms(slo),
            _share(window, index),
        )
    progress = ProgressBar(total=plan.day.seconds, completed=min(now, plan.day.seconds), width=60)
    return Group(head, progress, Text(), table)


def bar(cpus: float, budget: float, colour: str) -> Text:
    """A number of CPUs and a bar whose full length is the budget; what is beyond it is marked."""
    cells = round(min(1.0, cpus / budget) * _BAR)
    text = Text.assemble(f"{cpus:5.2f} ", ("█" * cells, colour), ("░" * (_BAR - cells), "bright_black"))
    return text.append("▸" if cpus > budget else " ", style="bold red")


def _bar_of(seen: Mapping[str, Any], key: str, budget: float, colour: str) -> Text:
    value = seen.get(key)
    return Text("") if value is None else bar(value / MILLI, budget, colour)


def _uncontrolled(tick: Tick) -> bool:
    return tick.control.settings.get("control") == "none"


def _granted(tick: Tick, name: str) -> str:
    if tick.look is None or _uncontrolled(tick):
        return "all"
    return f"{tick.look.status['pipelines'][name]['granted'] / MILLI:.2f}"


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.0f} ms"


def _share(window: Window, index: int) -> str:
    return f"{window.missed[index] / window.sent[index]:.0%}" if window.sent[index] else "-"
