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
from headgate.controller.guard import Trouble
from headgate.controller.installed import isolated, listed
from headgate.controller.plugins import Plugin, built_in
from headgate.controller.reference import fields, markdown
from headgate.controller.run.status import BudgetStatus
from headgate.core.budgets import BudgetSpec
from headgate.core.config import Document, SettingsError, validate
from headgate.core.extensions import ExtensionSettings
from headgate.core.hookspecs import CommandLine, hookimpl
from headgate.core.observation import AMOUNTS, STATES, Nonsense

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
    found = listed() if settings is None else _listed(command_line.read(settings))
    if form == "json":
        click.echo(json.dumps([asdict(plugin) for plugin in found], indent=2))
        return
    table = Table("plug-in", "package", "version", "hooks", "enabled", "error", box=None)
    for plugin in found:
        hooks = ", ".join(hook.removeprefix("headgate_") for hook in plugin.hooks)
        enabled = "yes" if plugin.enabled else "no"
        table.add_row(plugin.name, plugin.package, plugin.version, hooks, enabled, plugin.error or "")
    Console(width=None if Console().is_terminal else 200).print(table)


def _listed(document: Document) -> list[Plugin]:
    try:
        return listed(_extension_settings(document).plugins.disable)
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
    extensions = LiveExtensions(document, chosen, names, seconds)
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
@click.option(
    "--format", "form", type=click.Choice(["json", "markdown", "crd", "budget"]), default="json", show_default=True
)
def schema(form: str) -> None:
    """Print what the settings files may say: a JSON schema for editors, or the reference for people.

    crd: the definition of the custom resource CPUBudget, as in deploy/crds. budget: its fields for people.
    """
    if form == "crd":
        click.echo(crd.text(), nl=False)
    elif form == "budget":
        click.echo(
            fields({"spec": BudgetSpec.model_json_schema(), "status": BudgetStatus.model_json_schema()}), nl=False
        )
    elif form == "markdown":
        click.echo(markdown(_schemas()), nl=False)
    else:
        click.echo(json.dumps(_schemas(), indent=2))


_TITLES = {
    "headgate_settings": "headgate {}",
    "headgate_host_adapters": "host: kind {}",
    "headgate_homes": "home: kind {}",
    "headgate_metric_sources": "sources: kind {}",
    "headgate_demand_estimators": "estimator: kind {}",
    "headgate_engine_steps": "steps: step {}",
}


def _schemas() -> dict[str, Any]:
    """Of every model that a settings file is checked against, with a title: whole files first, then kinds."""
    others = isolated()
    try:
        schemas: dict[str, Any] = {}
        for hook, title in _TITLES.items():
            for name, (_, mapping) in built_in().named(hook).items():
                model = mapping[name] if hook == "headgate_settings" else mapping[name].settings
                schemas[title.format(name)] = model.model_json_schema()
            for plugin in others.hooks(hook):
                try:
                    found = others.decisions(plugin).call("schemas", hook, until=None)
                except (Trouble, Nonsense) as error:
                    raise click.ClickException(f"plug-in {plugin}, {hook}: {error}") from None
                for name, found_schema in found.items():
                    schemas.setdefault(title.format(name), found_schema)
        return schemas
    finally:
        others.close()
