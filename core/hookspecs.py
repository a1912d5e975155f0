"""The whole extension API on one page. A plug-in implements any of these and is found by the entry point `headgate`."""

from __future__ import annotations

from typing import Protocol

import pluggy

from headgate.core.config import Document

hookspec = pluggy.HookspecMarker("headgate")
hookimpl = pluggy.HookimplMarker("headgate")


class CommandLine(Protocol):
    """What a plug-in's subcommand may use of the command line that it joins."""

    def read(self, path: str) -> Document:
        """The parsed settings file at `path` ("-": standard input). Raises SettingsError."""
        ...


@hookspec
def headgate_register_commands(cli: object) -> None:
    """Add subcommands to `headgate`: `cli` is its `click.Group`; `click.pass_obj` gives a CommandLine."""
