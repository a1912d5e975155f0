"""The command line `headgate`. Settings that are wrong end it with exit code 2 and a message that says where."""

from __future__ import annotations

from collections.abc import Sequence

import click

import headgate
from headgate.controller import allocate, settings
from headgate.controller.backtest import command as backtest
from headgate.controller.extensions import LiveExtensions
from headgate.controller.guard import brief
from headgate.controller.installed import plugins
from headgate.controller.kinds import find_kind
from headgate.controller.plugins import Plugins, built_in
from headgate.core.config import Document, SettingsError, validate
from headgate.core.extensions import Extensions, ExtensionSettings
from headgate.core.hookspecs import EngineKind
from headgate.core.model import Infeasible
from headgate.core.serving import InferenceEngine


class Host:
    """The CommandLine that subcommands receive through `click.pass_obj`."""

    def read(self, path: str) -> Document:
        """The parsed settings file at `path`."""
        return settings.read(path)

    def engine(self, kind: str, document: Document) -> InferenceEngine:
        """The engine that a plug-in, or headgate itself, offers."""
        _, chosen = find_kind(plugins(), document, "headgate_engines", kind, EngineKind, ())
        return chosen.open(validate(document, chosen.settings), document, self)

    def extensions(
        self, document: Document, settings: ExtensionSettings, pipelines: Sequence[str], interval: float
    ) -> Extensions:
        """The plug-ins of this installation, watched over."""
        return LiveExtensions(document, settings, pipelines, interval)


class Commands(click.Group):
    """Turns what the user can mend into a message and exit code 2.

    The subcommands of others' plug-ins are looked for when nobody else knows a name, and for the list of all.
    """

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Built in, or a plug-in's."""
        if (found := super().get_command(ctx, cmd_name)) is None:
            _register(self, plugins())
            found = super().get_command(ctx, cmd_name)
        return found

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all."""
        _register(self, plugins())
        return super().list_commands(ctx)

    def invoke(self, ctx: click.Context) -> object:
        """Run the subcommand."""
        try:
            return super().invoke(ctx)
        except (SettingsError, Infeasible) as error:
            click.echo(f"headgate: {error}", err=True)
            ctx.exit(2)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(headgate.__version__, prog_name="headgate")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Share a fixed CPU budget among machine-learning inference pipelines, live."""
    ctx.obj = Host()


cli.add_command(allocate.command)
cli.add_command(backtest.command)


def _register(group: click.Group, found: Plugins) -> None:
    known = dict(group.commands)
    for hook in found.hooks("headgate_register_commands"):
        try:
            hook.call(cli=group)
        except Exception as error:  # noqa: BLE001 - one plug-in's trouble is not the others'
            click.echo(f"headgate: plug-in {hook.plugin}, {hook.name}: {brief(error)}", err=True)
    group.commands.update(known)


def main() -> None:
    """Entry point: the built-in commands and those of every plug-in."""
    _register(cli, built_in())
    cli()
