"""The engine's place in headgate: its subcommands, registered as any plug-in's are."""

from __future__ import annotations

from headgate.core.hookspecs import hookimpl


@hookimpl
def headgate_register_commands(cli: object) -> None:
    """Add `serve`, `top` and `demo`."""
