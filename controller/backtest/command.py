"""`headgate backtest`: what headgate and others would have done with a recorded load."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from headgate.controller.backtest.contenders import Contender, Wrap, contender, names
from headgate.controller.backtest.figures import Figures, average, figures
from headgate.controller.backtest.grid import Trace
from headgate.controller.backtest.service import Laws, parse_law, read_measured
from headgate.controller.backtest.show import as_json, show
from headgate.controller.backtest.table import COLUMNS
from headgate.controller.backtest.traces import read_trace
from headgate.controller.backtest.world import Outcome, World
from headgate.controller.installed import plugins
from headgate.controller.kinds import estimator_of
from headgate.controller.settings import parse
from headgate.core.config import SettingsError, validate
from headgate.core.extensions import ExtensionSettings
from headgate.core.units import MILLI, format_cpu, parse_cpu, parse_duration

_DEFAULTS = ("equal", "proportional", "slo")


def _parsed(parse: Callable[[str], object]) -> Callable[[click.Context, click.Parameter, str | None], Any]:
    def convert(_context: click.Context, parameter: click.Parameter, value: str | None) -> object:
        try:
            return None if value is None else parse(value)
        except ValueError as error:
            raise SettingsError(f"--{parameter.name}: {error}") from None

    return convert


def _columns(text: str) -> dict[str, str]:
    pairs = dict(pair.partition("=")[::2] for pair in text.split(","))
    if not set(pairs) <= set(COLUMNS) or not all(pairs.values()):
        raise ValueError(f"{text!r}: write it like pipeline=job,requests=count; known are {', '.join(COLUMNS)}")
    return pairs


_duration, _cpu = _parsed(parse_duration), _parsed(parse_cpu)


@click.command("backtest")
@click.argument("trace", metavar="TRACE")
@click.option("--cpus", required=True, metavar="CPUS", callback=_cpu, help="The budget, as a Kubernetes quantity.")
@click.option("--policy", "policies", multiple=True, metavar="NAME", help="May be given several times.")
@click.option(
    "--estimator", metavar="KIND", help="A plug-in's demand estimator: backlog, or {kind: backlog, drain: 30s}."
)
@click.option("--compare", is_flag=True, help="Try every policy, side by side.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.option("--report", type=click.Path(dir_okay=False, writable=True), help="Write an HTML page with plots.")
@click.option("--latency", default="720ms", show_default=True, callback=_duration, help="SLO: within this time ...")
@click.option(
    "--percentile",
    default=99.0,
    show_default=True,
    type=click.FloatRange(0, 100, True, True),
    help="... for so many %.",
)
@click.option(
    "--service",
    default="lognormal:79.3ms,68.6ms,0.4225",
    show_default=True,
    callback=_parsed(parse_law),
    help="Law of the service times: constant:MEAN, exponential:MEAN or lognormal:OFFSET,SCALE,SIGMA.",
)
@click.option("--measured", type=click.Path(dir_okay=False), help="CSV pipeline,seconds: service times to draw from.")
@click.option(
    "--queue",
    default=50,
    show_default=True,
    type=click.IntRange(0, 10_000_000),
    help="A request that finds more than this many queued is dropped.",
)
@click.option(
    "--start",
    default="0s",
    show_default=True,
    callback=_duration,
    help="A CPU that is given serves after this time. 0: a live CPU; about 35s: a new replica.",
)
@click.option(
    "--release",
    default="0s",
    show_default=True,
    callback=_duration,
    help="A CPU that is taken is free after this time.",
)
@click.option(
    "--step", callback=_cpu, metavar="CPUS", help="CPUs move in multiples of this.  [default: 10m live, otherwise 1]"
)
@click.option(
    "--floor", callback=_cpu, metavar="CPUS", help="What each pipeline keeps.  [default: 100m live, otherwise 1]"
)
@click.option("--interval", callback=_duration, help="Between headgate's decisions.  [default: 1s live, otherwise 10s]")
@click.option(
    "--in-flight",
    default=1,
    show_default=True,
    type=click.IntRange(1, 1000),
    help="Requests that a replica accepts at a time; 1: a central queue.",
)
@click.option("--router", default="0s", show_default=True, callback=_duration, help="Time in a router, each way.")
@click.option("--shed", is_flag=True, help="Refuse at once a request that will miss the SLO in all likelihood.")
@click.option(
    "--arrivals",
    type=click.Choice(["poisson", "counted"]),
    default="poisson",
    show_default=True,
    help="Poisson at the minute's rate, or exactly its requests, with exponential gaps from its beginning.",
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0))
@click.option("--seeds", default=1, show_default=True, type=click.IntRange(1), help="Average over so many seeds.")
@click.option(
    "--day", "days", multiple=True, type=click.IntRange(0), help="Of a trace with a column day; several: in turn."
)
@click.option(
    "--columns",
    default="",
    callback=lambda c, p, v: _parsed(_columns)(c, p, v or None) or {},
    help="The trace's own headings: pipeline=service,requests=count.",
)
@click.option("--label", default="pipeline", show_default=True, help="Prometheus label that names the pipeline.")
@click.option("--fill", is_flag=True, help="A minute without a row had no requests.")
def command(**options: Any) -> None:
    """Replay TRACE through headgate and others in a queueing simulation.

    TRACE is CSV with the columns minute, pipeline, requests, or the JSON of a Prometheus range query.
    docs/backtest.md describes both, the simulation and the figures.
    """
    trace = read_trace(
        options["trace"], columns=options["columns"], days=options["days"], fill=options["fill"], label=options["label"]
    )
    world = _world(options)
    live = world.start == world.release == 0
    interval = (1.0 if live else 10.0) if options["interval"] is None else options["interval"]
    floor = (100 if live else MILLI) if options["floor"] is None else options["floor"]
    _check(trace, world, interval, floor)
    wrap = _wrap(options["estimator"])
    contenders = [contender(name, trace, world, interval, floor, wrap) for name in _chosen(options)]
    outcomes, results = _run(trace, contenders, options["seeds"])
    if options["report"]:
        from headgate.controller.backtest.report import write_report

        write_report(options["report"], trace, world, outcomes, results)
    if options["output"] == "json":
        click.echo(as_json(options["trace"], trace, world, results))
    else:
        show(trace, world, results)


def _chosen(options: dict[str, Any]) -> tuple[str, ...]:
    known = names()
    for name in options["policies"]:
        if name not in known:
            raise SettingsError(f"--policy: {name!r} is not known; known are {', '.join(known)}")
    chosen = known if options["compare"] else options["policies"] or tuple(n for n in _DEFAULTS if n in known)
    return tuple(dict.fromkeys(chosen))


def _wrap(text: str | None) -> Wrap:
    if text is None:
        return lambda estimator: estimator
    document = parse(f"estimator: {text}", "--estimator")
    chosen = estimator_of(plugins(), document, validate(document, ExtensionSettings))
    assert chosen is not None
    return chosen[1]


def _world(options: dict[str, Any]) -> World:
    live = options["start"] == options["release"] == 0
    own = read_measured(options["measured"]) if options["measured"] else {}
    return World(
        laws=Laws(options["service"], own),
        budget=options["cpus"],
        latency=options["latency"],
        percentile=options["percentile"],
        step=(10 if live else MILLI) if options["step"] is None else options["step"],
        start=options["start"],
        release=options["release"],
        bound=options["queue"],
        in_flight=options["in_flight"],
        router=options["router"],
        shed=options["shed"],
        arrivals=options["arrivals"],
        seed=options["seed"],
    )


def _check(trace: Trace, world: World, interval: float, floor: int) -> None:
    if world.latency <= 0:
        raise SettingsError("--latency: must be above 0")
    if interval < 0.01:
        raise SettingsError("--interval: must be 10ms or more")
    if world.step <= 0:
        raise SettingsError("--step: must be above 0")
    least = max(floor, 1) * len(trace.pipelines)
    if least > world.budget:
        raise SettingsError(
            f"--cpus: {format_cpu(world.budget)} is less than the floors of {len(trace.pipelines)} pipelines "
            f"({format_cpu(max(floor, 1))} each): raise it, or lower --floor"
        )
    unknown = sorted(set(world.laws.own) - set(trace.pipelines))
    if unknown:
        raise SettingsError(
            f"--measured: {unknown[0]} is not a pipeline of the trace: {', '.join(trace.pipelines[:10])}"
        )


def _run(trace: Trace, contenders: list[Contender], seeds: int) -> tuple[list[Outcome], list[Figures]]:
    # Imported here because numba takes a second, which the other subcommands should not.
    from headgate.controller.backtest import compiled
    from headgate.controller.backtest.simulation import simulate

    console = Console(stderr=True)
    if not compiled.AVAILABLE:
        console.print(
            "numba is not installed, the simulation runs about fifty times slower: pip install headgate[backtest]"
        )
    outcomes: list[Outcome] = []
    results: list[Figures] = []
    columns = (
        TextColumn("{task.description:>14}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f}%"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        tasks = [progress.add_task(c.policy.name, total=trace.minutes * seeds) for c in contenders]
        for task, (policy, world) in zip(tasks, ((c.policy, c.world) for c in contenders), strict=True):
            runs = []
            for seed in range(seeds):
                seeded = replace(world, seed=world.seed + seed)
                run = simulate(trace, seeded, policy, partial(_advance, progress, task))
                runs.append(figures(run, seeded))
                if seed == 0:
                    outcomes.append(run)
            results.append(average(runs))
    return outcomes, results


def _advance(progress: Progress, task: TaskID, _minutes: int) -> None:
    progress.advance(task)
