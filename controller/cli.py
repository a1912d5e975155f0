"""The command line `headgate`. Settings that are wrong end it with exit code 2 and a message that says where."""

from __future__ import annotations

import click

import headgate
from headgate.controller import allocate, settings
from headgate.controller.plugins import plugins
from headgate.core.config import Document, SettingsError
from headgate.core.model import Infeasible


class Host:
    """The CommandLine that subcommands receive through `click.pass_obj`."""

    def read(self, path: str) -> Document:
        """The parsed settings file at `path`."""
        return settings.read(path)


class Commands(click.Group):
    """Turns what the user can mend into a message and exit code 2."""

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


def main() -> None:
    """Entry point: the built-in commands and those of every plug-in."""
    plugins().hook.headgate_register_commands(cli=cli)
    cli()
