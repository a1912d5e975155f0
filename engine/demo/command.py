"""The order of things: what is measured, shown and written, and what happens on Ctrl-C."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

from rich.console import Console

from headgate.engine.demo import calibration, session
from headgate.engine.demo.calibration import Cost
from headgate.engine.demo.figures import Plan, Run
from headgate.engine.demo.findings import Findings, conclude
from headgate.engine.demo.interrupts import interruptible
from headgate.engine.demo.machine import Layout, describe, layout
from headgate.engine.demo.models import RECIPES, Model, Recipe, prepare
from headgate.engine.demo.report import write_html, write_json
from headgate.engine.demo.server import CONTROLS
from headgate.engine.demo.session import Options, Stage
from headgate.engine.demo.summary import print_summary
from headgate.engine.demo.view import LiveView, PlainView, open_view

INTERRUPTED = 130


def default_cache() -> Path:
    """$XDG_CACHE_HOME/headgate, by default ~/.cache/headgate."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headgate"


@dataclass(slots=True)
class Collected:
    """What there is so far, so that an interruption loses only the run that was on."""

    costs: Sequence[Cost] = ()
    plan: Plan | None = None
    runs: list[Run] = field(default_factory=list)

    def findings(self, here: Layout, options: Options) -> Findings | None:
        """What can be said of it; None without a complete run."""
        if self.plan is None or not self.runs:
            return None
        return conclude(describe(), here, options, self.costs, self.plan, self.runs)


def run(options: Options, output: Path, cache: Path, console: Console, recipes: Mapping[str, Recipe] = RECIPES) -> int:
    """The whole demo: its exit code. Raises ProblemError when a part of it cannot run."""
    started = perf_counter()
    output.mkdir(parents=True, exist_ok=True)
    here, collected, code = layout(), Collected(), 0
    with interruptible():
        try:
            with open_view(console) as view:
                models = prepare(cache, recipes, lambda text: view.show(Stage(text)))
                _measure(collected, models, options, output, here, view)
        except KeyboardInterrupt:
            code = INTERRUPTED
    if (findings := collected.findings(here, options)) is not None:
        print_summary(findings, console)
        write_json(findings, output / "results.json")
        write_html(findings, output / "report.html")
        console.print(f"report   {output / 'report.html'}", highlight=False, soft_wrap=True)
        console.print(f"figures  {output / 'results.json'}", highlight=False, soft_wrap=True)
    if code:
        console.print("interrupted; the servers are stopped" + ("" if findings else ", no run was complete"))
    else:
        console.print(f"{perf_counter() - started:.0f} seconds in all", highlight=False)
    return code


def _measure(
    collected: Collected,
    models: Sequence[Model],
    options: Options,
    output: Path,
    here: Layout,
    view: LiveView | PlainView,
) -> None:
    for model in models:
        view.say(
            f"{model.name:9} {model.title}, {len(model.files)} ONNX file(s), {model.inputs.shape[1]} rows a request"
        )
    collected.costs = session.calibrate(models, here, options, output, view.show)
    for model, cost in zip(models, collected.costs, strict=True):
        view.say(
            f"{model.name:9} {cost.direct.median * 1e3:.1f} ms on one CPU, {cost.idle * 1e3:.1f} ms over HTTP, "
            f"{cost.per_second:.0f} a second on the whole budget; SLO: 95 % within {cost.slo * 1e3:.0f} ms"
        )
    for doubt in calibration.doubts(collected.costs, here.budget):
        view.say(f"[bold red]the result may not mean much: {doubt}[/bold red]")
    collected.plan = session.plan(models, collected.costs, here, options)
    view.plan(collected.plan)
    for control in CONTROLS:
        collected.runs.append(session.play(collected.plan, control, here, output, view.show))
