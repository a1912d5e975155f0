"""From a settings file to a loop: finds host and home by their kinds, and connects them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, cast
from zlib import crc32

from headgate.controller.installed import plugins
from headgate.controller.kinds import find_kind, own_settings
from headgate.controller.run.budgets import FileBudgets
from headgate.controller.run.clock import Clock
from headgate.controller.run.loop import Loop
from headgate.controller.run.memory import Memory
from headgate.controller.run.nodes import Nodes
from headgate.controller.run.parts import Parts
from headgate.controller.run.reporter import Reporter
from headgate.controller.run.settings import NodesSettings, RunSettings
from headgate.core.budgets import CPUBudget
from headgate.core.config import Document, Model, Path, SettingsError, field_name, validate
from headgate.core.decision import Config
from headgate.core.demand import default_estimator
from headgate.core.extensions import Extensions
from headgate.core.hookspecs import CommandLine, HomeKind, HostKind, ProviderKind
from headgate.core.hosting import Home, HostAdapter, Housed, Rejected
from headgate.core.model import Budget

FIRST = 20.0
"""Seconds that a single turn waits at the most for every source's first answer, and for the lead."""


@dataclass(frozen=True, slots=True)
class Running:
    """All that runs, to be closed in the end."""

    settings: RunSettings
    loop: Loop
    home: Home
    host: HostAdapter
    extensions: Extensions
    reporter: Reporter
    budgets: Callable[[], Sequence[CPUBudget | Rejected]]
    nodes: Nodes | None = None

    def wait_for_sources(self) -> None:
        """Until every source has answered or failed once, for a single look; they are read in threads of their own."""
        until = time.monotonic() + FIRST
        while time.monotonic() < until:
            sources = self.extensions.report().sources.values()
            if all(source.age is not None or source.problem is not None for source in sources):
                return
            time.sleep(0.05)

    def close(self) -> None:
        """Give up connections, sources and, last, the lead."""
        self.extensions.close()
        self.host.close()
        self.home.close()


def open_home(document: Document, settings: RunSettings) -> Home:
    """The place that the settings name. Raises SettingsError."""
    return cast("Home", _open(document, settings, "home"))


def open_run(command_line: CommandLine, path: str, *, applies: bool, clock: Clock) -> Running:
    """Everything that the settings at `path` name, opened. Raises SettingsError."""
    document = command_line.read(path)
    settings = validate(document, RunSettings)
    applies = applies or settings.apply
    estimator = default_estimator(settings.cadence)
    home = open_home(document, settings)
    host = cast("HostAdapter", _open(document, settings, "host"))
    extensions = command_line.extensions(document, settings, (), settings.interval)
    extensions.config(Config((), Budget(0), estimator=estimator))  # what is wrong in there is said now
    chosen = settings.estimator.model_dump() if settings.estimator else None
    learned_by = f"{crc32(repr((estimator, json.dumps(chosen, sort_keys=True))).encode()):08x}"
    budgets: Callable[[], Sequence[CPUBudget | Rejected]] = home.budgets
    if settings.budgets is not None:
        budgets = FileBudgets(path, command_line.read, settings).budgets
    elif isinstance(settings.home.kind, str) and settings.home.kind == "file":
        raise SettingsError(f"{document.place(())}: budgets: required where the home is a file")
    reporter = Reporter(home)
    memory = Memory(settings.state, learned_by)
    nodes = _open_nodes(document, settings, home, clock, applies=applies)
    parts = Parts(home, host, extensions, estimator, memory, budgets, nodes)
    loop = Loop(settings, parts, reporter, applies=applies, clock=clock)
    return Running(settings, loop, home, host, extensions, reporter, budgets, nodes)


def _open_nodes(document: Document, settings: RunSettings, home: Home, clock: Clock, *, applies: bool) -> Nodes | None:
    """The node scaler, where the settings ask for one."""
    if settings.nodes is None:
        return None
    if not isinstance(home, Housed):
        raise SettingsError(f"{document.place(('nodes',))}: nodes: need a home that is a cluster, such as kubernetes")
    at: Path = ("nodes", "provider")
    kind = settings.nodes.provider.kind
    plugin, chosen = find_kind(plugins(), document, "headgate_node_providers", kind, ProviderKind, (*at, "kind"))
    own = own_settings(document, at, chosen.settings, {"kind"})
    _check_groups(document, settings.nodes, own)
    try:
        return Nodes(settings.nodes, chosen.open(own), home.nodes(), clock, applies=applies)
    except SettingsError:
        raise
    except Exception as error:
        raise SettingsError(
            f"{document.place(at)}: nodes.provider: {kind} of plug-in {plugin} cannot be opened: {error}"
        ) from error


def _check_groups(document: Document, settings: NodesSettings, own: Model) -> None:
    """That the provider has the groups, where its settings list them. Raises SettingsError."""
    listed = {str(getattr(group, "name", "")) for group in getattr(own, "groups", ())}
    for index, group in enumerate(settings.groups):
        if listed and group.name not in listed:
            path: Path = ("nodes", "groups", index, "name")
            raise SettingsError(
                f"{document.place(path)}: {field_name(path)}: {group.name!r} is none of nodes.provider.groups "
                f"({', '.join(sorted(listed))}): give both the same name"
            )


def _open(document: Document, settings: RunSettings, part: Literal["host", "home"]) -> object:
    """A part of the kind that the settings name, from the keys beside its kind."""
    kind = settings.host.kind if part == "host" else settings.home.kind
    at: Path = (part,)
    chosen: HostKind | HomeKind
    if part == "host":
        plugin, chosen = find_kind(plugins(), document, "headgate_host_adapters", kind, HostKind, (*at, "kind"))
    else:
        plugin, chosen = find_kind(plugins(), document, "headgate_homes", kind, HomeKind, (*at, "kind"))
    own = validate(Document(document.source, {part: settings.kind_of(part)}, document.lines), chosen.settings, at)
    try:
        return chosen.open(own)
    except (SettingsError, PermissionError):
        raise
    except Exception as error:
        raise SettingsError(
            f"{document.place(at)}: {part}: {kind} of plug-in {plugin} cannot be opened: {error}"
        ) from error
