"""`headgate plugins`, `headgate observe` and `headgate schema`: what is installed, what is seen, what may be set."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from headgate.controller.extensions import LiveExtensions
from headgate.controller.plugins import Plugins, plugins
from headgate.controller.reference import markdown
from headgate.core.config import Document, Model, SettingsError, validate
from headgate.core.extensions import ExtensionSettings, Report
from headgate.core.hookspecs import CommandLine, hookimpl
from headgate.core.model import Sample
from headgate.core.observation import AMOUNTS, STATES, Merged

PARTS = set(ExtensionSettings.model_fields)


@hookimpl
def headgate_register_commands(cli: click.Group) -> None:
    """Add `plugins`, `observe` and `schema`."""
    cli.add_command(list_plugins)
    cli.add_command(observe)
    cli.add_command(schema)


@click.command("plugins")
@click.option("--settings", type=click.Path(dir_okay=False, allow_dash=True), help="Show what this file disables.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.pass_obj
def list_plugins(command_line: CommandLine, settings: str | None, form: str) -> None:
    """List plug-ins: where each is from, which hooks it implements, and whether it takes part."""
    found = plugins() if settings is None else _enabled(command_line.read(settings))
    if form == "json":
        click.echo(json.dumps([asdict(plugin) for plugin in found], indent=2))
        return
    table = Table("plug-in", "package", "version", "hooks", "enabled", "error", box=None)
    for plugin in found:
        hooks = ", ".join(hook.removeprefix("headgate_") for hook in plugin.hooks)
        enabled = "yes" if plugin.enabled else "no"
        table.add_row(plugin.name, plugin.package, plugin.version, hooks, enabled, plugin.error or "")
    _print(table)


def _enabled(document: Document) -> Plugins:
    chosen = _extension_settings(document)
    try:
        return plugins().without(chosen.plugins.disable)
    except LookupError as error:
        raise SettingsError(f"{document.place(('plugins', 'disable'))}: plugins.disable: {error.args[0]}") from None


def _extension_settings(document: Document) -> ExtensionSettings:
    """The part of any settings file that concerns plug-ins; the rest is its own subcommand's business."""
    data = document.data if isinstance(document.data, dict) else {}
    part = {key: value for key, value in data.items() if key in PARTS}
    return validate(Document(document.source, part, document.lines), ExtensionSettings)


@click.command()
@click.argument("settings", type=click.Path(dir_okay=False, allow_dash=True))
@click.option("--for", "seconds", default=5.0, show_default=True, type=click.FloatRange(min=0.1), help="Seconds.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.pass_obj
def observe(command_line: CommandLine, settings: str, seconds: float, form: str) -> None:
    """Read the sources of a SETTINGS file for a while and show what they say of each pipeline.

    Counters that are scraped directly need two reads: give it longer than `every`.
    Exit code 1 when a source has trouble.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    document = command_line.read(settings)
    chosen = _extension_settings(document)
    names = _pipeline_names(document)
    extensions = LiveExtensions(plugins(), document, chosen, names, seconds)
    try:
        time.sleep(seconds)
        now = time.monotonic()
        seen, report = extensions.merged(now), extensions.report()
    finally:
        extensions.close()
    if form == "json":
        click.echo(json.dumps(_seen_as_data(names, seen, report, now), indent=2))
    else:
        _show_seen(names, seen, report)
    if any(source.problem for source in report.sources.values()):
        raise SystemExit(1)


def _seen_as_data(names: list[str], seen: Mapping[str, Merged], report: Report, now: float) -> dict[str, Any]:
    pipelines = {}
    for name in names:
        found = seen.get(name)
        pipelines[name] = {
            "sample": {**asdict(found.sample), "age": now - found.sample.time} if found else None,
            "origins": {field: asdict(origin) for field, origin in found.origins.items()} if found else {},
        }
    return {"pipelines": pipelines, "sources": {name: asdict(source) for name, source in report.sources.items()}}


def _show_seen(names: list[str], seen: Mapping[str, Merged], report: Report) -> None:
    table = Table("pipeline", "field", "value", "source", "age", box=None)
    for name in names:
        found = seen.get(name)
        if found is None:
            table.add_row(name, "-", "unknown", "-", "-")
            continue
        for field in (*AMOUNTS, *STATES):
            if (origin := found.origins.get(field)) is not None:
                table.add_row(name, field, _shown(found.sample, field), origin.source, f"{origin.age:.1f} s")
    _print(table)
    for name, source in report.sources.items():
        if source.problem:
            click.echo(f"source {name}: {source.problem}", err=True)


def _print(table: Table) -> None:
    # Not wrapped to 80 columns when the output is piped to something that reads lines.
    Console(width=None if sys.stdout.isatty() else 200, markup=False, highlight=False).print(table)


def _shown(sample: Sample, field: str) -> str:
    value: Any = getattr(sample, field)
    if field in AMOUNTS:
        return f"{value / sample.window:.4g} /s" if sample.window else f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"p{percentile:g} {seconds * 1000:.4g} ms" for percentile, seconds in sorted(value.items()))
    return f"{value:.4g}"


def _pipeline_names(document: Document) -> list[str]:
    data = document.data if isinstance(document.data, dict) else {}
    listed = data.get("pipelines")
    items = [item for item in listed if isinstance(item, dict)] if isinstance(listed, list) else []
    names = [name for item in items if isinstance(name := item.get("name"), str)]
    if not names:
        place = document.place(("pipelines",))
        raise SettingsError(f"{place}: pipelines: name the pipelines to observe: pipelines: [{{name: NAME}}]")
    return names


@click.command()
@click.option("--format", "form", type=click.Choice(["json", "markdown"]), default="json", show_default=True)
def schema(form: str) -> None:
    """Print what the settings files may say: a JSON schema for editors, or the reference for people."""
    models = _models()
    if form == "markdown":
        click.echo(markdown(models), nl=False)
    else:
        click.echo(json.dumps({title: model.model_json_schema() for title, model in models.items()}, indent=2))


def _models() -> dict[str, type[Model]]:
    """Every model that a settings file is checked against, with a title: whole files first, then kinds."""
    found = plugins()
    models: dict[str, type[Model]] = {}
    for name, (_, mapping) in found.named("headgate_settings").items():
        models[f"headgate {name}"] = mapping[name]
    for hook, title in (
        ("headgate_metric_sources", "sources: kind {}"),
        ("headgate_demand_estimators", "estimator: kind {}"),
        ("headgate_engine_steps", "steps: step {}"),
    ):
        for name, (_, mapping) in found.named(hook).items():
            models[title.format(name)] = mapping[name].settings
    return models
