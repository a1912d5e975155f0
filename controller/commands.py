"""`headgate plugins`, `headgate observe` and `headgate schema`: what is installed, what is seen, what may be set."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import asdict
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from headgate.controller import crd
from headgate.controller.extensions import LiveExtensions
from headgate.controller.plugins import Plugins, plugins
from headgate.controller.reference import markdown
from headgate.core.config import Document, Model, SettingsError, validate
from headgate.core.extensions import ExtensionSettings
from headgate.core.hookspecs import CommandLine, EstimatorKind, HomeKind, HostKind, SourceKind, StepKind, hookimpl
from headgate.core.observation import AMOUNTS, STATES

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
    Console(width=None if Console().is_terminal else 200).print(table)


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
        merged = extensions.merged(time.monotonic())
        report = extensions.report()
    finally:
        extensions.close()
    now = time.monotonic()
    if form == "json":
        rows: dict[str, Any] = {
            name: {
                "sample": None if (m := merged.get(name)) is None else {**asdict(m.sample), "age": now - m.sample.time},
                "origins": {} if m is None else {field: asdict(origin) for field, origin in m.origins.items()},
            }
            for name in names
        }
        sources = {name: asdict(source) for name, source in report.sources.items()}
        click.echo(json.dumps({"pipelines": rows, "sources": sources}, indent=2))
    else:
        table = Table("pipeline", "field", "value", "source", "age", box=None)
        for name in names:
            found = merged.get(name)
            for field in (*AMOUNTS, *STATES) if found else ():
                origin = found.origins.get(field) if found else None
                if found and origin:
                    table.add_row(name, field, _shown(found.sample, field), origin.source, f"{origin.age:.1f} s")
            if found is None:
                table.add_row(name, "-", "unknown", "-", "-")
        Console(width=None if Console().is_terminal else 200).print(table)
        for name, source in report.sources.items():
            if source.problem:
                click.echo(f"source {name}: {source.problem}", err=True)
    if any(source.problem for source in report.sources.values()):
        raise SystemExit(1)


def _shown(sample: Any, field: str) -> str:
    value = getattr(sample, field)
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
@click.option("--format", "form", type=click.Choice(["json", "markdown", "crd"]), default="json", show_default=True)
def schema(form: str) -> None:
    """Print what the settings files may say: a JSON schema for editors, or the reference for people.

    crd: the definition of the custom resource CPUBudget, as in deploy/crds.
    """
    models = _models()
    if form == "crd":
        click.echo(crd.text(), nl=False)
    elif form == "markdown":
        click.echo(markdown(models), nl=False)
    else:
        click.echo(json.dumps({title: model.model_json_schema() for title, model in models.items()}, indent=2))


def _models() -> dict[str, type[Model]]:
    """Every model that a settings file is checked against, with a title: whole files first, then kinds."""
    found = plugins()
    models: dict[str, type[Model]] = {}
    for name, (_, mapping) in found.named("headgate_settings").items():
        models[f"headgate {name}"] = mapping[name]
    kinds: list[tuple[str, str, type[SourceKind | EstimatorKind | StepKind | HostKind | HomeKind]]] = [
        ("headgate_host_adapters", "host: kind {}", HostKind),
        ("headgate_homes", "home: kind {}", HomeKind),
        ("headgate_metric_sources", "sources: kind {}", SourceKind),
        ("headgate_demand_estimators", "estimator: kind {}", EstimatorKind),
        ("headgate_engine_steps", "steps: step {}", StepKind),
    ]
    for hook, title, _ in kinds:
        for name, (_, mapping) in found.named(hook).items():
            models[title.format(name)] = mapping[name].settings
    return models
