"""`headgate nodes`: what the node scaler would do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from headgate.core.config import Model, SettingsError, validate
from headgate.core.hookspecs import CommandLine, hookimpl
from headgate.core.nodes.settings import GroupSettings, NodeSettings
from headgate.core.providers import NodeTemplate
from headgate.core.units import format_cpu, parse_cpu, parse_duration

if TYPE_CHECKING:
    from headgate.controller.nodes.simulate import Setting


@hookimpl
def headgate_register_commands(cli: click.Group) -> None:
    """Add `nodes`."""
    cli.add_command(nodes)


@hookimpl
def headgate_settings() -> Mapping[str, type[Model]]:
    """The file of `--settings`."""
    from headgate.controller.nodes.settings import NodesFile

    return {"nodes simulate": NodesFile}


@click.group()
def nodes() -> None:
    """Add and remove nodes by their load."""


@nodes.command()
@click.option("--trace", required=True, type=click.Path(dir_okay=False), help="CSV as for `headgate backtest`.")
@click.option("--columns", metavar="NAME=HEADING,...", help="The trace's own headings: pipeline=job.")
@click.option("--day", "days", multiple=True, type=int, help="Only these values of the column day.")
@click.option(
    "--settings", "path", type=click.Path(dir_okay=False, allow_dash=True), help="Thresholds, limits, timers."
)
@click.option("--node", default="4", show_default=True, metavar="CPUS", help="What a node offers.")
@click.option("--cost", default="180ms", show_default=True, help="CPU time of a request.")
@click.option("--start", default=3, show_default=True, type=click.IntRange(min=1), help="Nodes at the beginning.")
@click.option("--provision", default="2m", show_default=True, help="Until a new machine's node is Ready.")
@click.option("--slo", default="1s", show_default=True, help="What work may wait.")
@click.option("--unit", default="1", show_default=True, metavar="CPUS", help="A replica's size under the others.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.option("--report", type=click.Path(dir_okay=False, writable=True), help="Write an HTML page with plots.")
@click.pass_obj
def simulate(command_line: CommandLine, /, trace: str, output: str, report: str | None, **options: object) -> None:
    """Replay a load through allocator and node scaler, beside Cluster Autoscaler's and Escalator's documented rules."""
    from headgate.controller.backtest.table import COLUMNS
    from headgate.controller.backtest.traces import read_trace
    from headgate.controller.nodes.report import HEADINGS, cells, write_report
    from headgate.controller.nodes.rivals import RULES, rival
    from headgate.controller.nodes.simulate import Setting, headgate

    columns = dict(part.partition("=")[::2] for part in str(options["columns"] or "").split(",") if part)
    if not set(columns) <= set(COLUMNS) or not all(columns.values()):
        raise SettingsError(f"--columns: write it like pipeline=job,requests=count; known are {', '.join(COLUMNS)}")
    days = options["days"]
    assert isinstance(days, tuple)
    setting = Setting(
        trace=read_trace(trace, columns=columns, days=days),
        cost=_parsed("cost", options),
        settings=_settings(command_line, options),
        start=int(str(options["start"])),
        provision=_parsed("provision", options),
        slo=_parsed("slo", options),
        unit=_cpus("unit", options),
    )
    _check(setting)
    runs = [headgate(setting), *(rival(name, setting) for name in RULES)]
    figures, records = [f for f, _ in runs], [r for _, r in runs]
    told = (
        f"{len(setting.trace.pipelines)} pipelines, {setting.trace.minutes} minutes, nodes of "
        f"{format_cpu(setting.template.cpu)} CPUs, Ready after {setting.provision:g} s, SLO {setting.slo:g} s"
    )
    if report:
        write_report(report, told, figures, records)
    if output == "json":
        click.echo(json.dumps({"setting": told, "results": [asdict(f) for f in figures]}, indent=2))
        return
    table = Table(*HEADINGS, box=None, title=told, title_justify="left")
    for one in figures:
        table.add_row(*cells(one))
    Console(width=None if Console().is_terminal else 120).print(table)


def _check(setting: Setting) -> None:
    if setting.cost <= 0:
        raise SettingsError("--cost: must be more than 0")
    if setting.unit > setting.template.cpu:
        unit, node = format_cpu(setting.unit), format_cpu(setting.template.cpu)
        raise SettingsError(f"--unit: a replica of {unit} CPUs fits on no node of {node}")


def _settings(command_line: CommandLine, options: dict[str, object]) -> NodeSettings:
    from headgate.controller.nodes.settings import NodesFile

    template = NodeTemplate(_cpus("node", options))
    if options["path"] is None:
        return NodeSettings((GroupSettings("pool", minimum=1, maximum=1000, template=template),))
    file = validate(command_line.read(str(options["path"])), NodesFile)
    if len(file.groups) != 1:
        raise SettingsError(
            f"{options['path']}: groups: the simulation has one group, this file has {len(file.groups)}"
        )
    known = file.value(0.0)
    group = known.groups[0]
    return replace(known, groups=(replace(group, name="pool", template=group.template or template),))


def _parsed(name: str, options: dict[str, object]) -> float:
    try:
        return parse_duration(options[name])
    except ValueError as error:
        raise SettingsError(f"--{name}: {error}") from None


def _cpus(name: str, options: dict[str, object]) -> int:
    try:
        found = parse_cpu(options[name])
    except ValueError as error:
        raise SettingsError(f"--{name}: {error}") from None
    if not found:
        raise SettingsError(f"--{name}: must be more than 0")
    return found
