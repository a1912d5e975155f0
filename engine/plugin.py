"""The engine's place in headgate: its subcommands, registered as any plug-in's are.

Nothing heavy is imported before a subcommand runs: `headgate --help` does not load ONNX Runtime.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from headgate.core.address import parse_address
from headgate.core.config import Document, Model, validate
from headgate.core.hookspecs import CommandLine, EngineKind, hookimpl
from headgate.core.serving import InferenceEngine

if TYPE_CHECKING:
    from headgate.engine.settings import EngineSettings

EXTRA = "this needs the engine's packages ({missing} is missing): pip install 'headgate[engine]'"
DEMO_EXTRA = "the demo needs more packages ({missing} is missing): pip install 'headgate[demo]'"


@hookimpl
def headgate_register_commands(cli: click.Group) -> None:
    """Add `serve`, `top` and `demo`."""
    cli.add_command(serve)
    cli.add_command(top)
    cli.add_command(demo)


@hookimpl
def headgate_engines() -> Mapping[str, EngineKind]:
    """The same engine inside another server's process."""
    from headgate.engine.settings import EngineSettings

    return {"onnx": EngineKind(EngineSettings, _open)}


def _open(settings: EngineSettings, document: Document, command_line: CommandLine) -> InferenceEngine:
    try:
        from headgate.engine.embedded import open_embedded
    except ModuleNotFoundError as error:
        raise click.ClickException(EXTRA.format(missing=error.name)) from None
    return open_embedded(settings, document, command_line)


@hookimpl
def headgate_settings() -> Mapping[str, type[Model]]:
    """What `serve` reads."""
    from headgate.engine.settings import EngineSettings

    return {"serve": EngineSettings}


@click.command()
@click.argument("settings", type=click.Path(dir_okay=False, allow_dash=True))
@click.option("--listen", metavar="HOST:PORT", help="Instead of the address in the settings.")
@click.pass_obj
def serve(command_line: CommandLine, settings: str, listen: str | None) -> None:
    """Serve the pipelines of a SETTINGS file on the Open Inference Protocol.

    Ends with SIGTERM or Ctrl-C after every accepted request was answered; a second one ends it at once.
    """
    try:
        from headgate.engine.embedded import assemble
        from headgate.engine.server import serve as run
        from headgate.engine.settings import EngineSettings
    except ModuleNotFoundError as error:
        raise click.ClickException(EXTRA.format(missing=error.name)) from None
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    document = command_line.read(settings)
    chosen = validate(document, EngineSettings)
    if listen is not None:
        try:
            chosen = chosen.model_copy(update={"listen": parse_address(listen)})
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--listen") from None
    engine, control = assemble(chosen, document, command_line)
    control.start()
    try:
        code = run(engine, control, lambda url: click.echo(f"listening on {url}"))
    except OSError as error:
        raise click.ClickException(
            f"cannot listen on {chosen.listen.host}:{chosen.listen.port}: {error.strerror}"
        ) from None
    finally:
        control.stop()
        control.extensions.close()
    if code:
        click.echo("headgate: the grace period ended before every request was answered", err=True)
        sys.exit(code)
    engine.close()


@click.command()
@click.option("--url", default="http://127.0.0.1:8080", show_default=True, help="Where `headgate serve` listens.")
@click.option("--once", is_flag=True, help="Print one table and end.")
@click.option("--interval", default=1.0, show_default=True, type=click.FloatRange(min=0.1), help="Seconds.")
def top(url: str, *, once: bool, interval: float) -> None:
    """Watch a running engine: each pipeline's load, CPUs and latency."""
    try:
        from headgate.engine.top import watch
    except ModuleNotFoundError as error:
        raise click.ClickException(EXTRA.format(missing=error.name)) from None
    watch(url, once=once, interval=interval)


@click.command()
@click.option("--seconds", default=40.0, show_default=True, type=click.FloatRange(2, 3600), help="Of each run.")
@click.option("--seed", default=1, show_default=True, help="Of the traffic.")
@click.option(
    "--output",
    default="headgate-demo",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the report, the figures and the servers' logs go.",
)
@click.option(
    "--cache",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where trained models are kept. [default: $XDG_CACHE_HOME/headgate or ~/.cache/headgate]",
)
def demo(seconds: float, seed: int, output: Path, cache: Path | None) -> None:
    """Watch three regions' models share this machine's CPUs.

    Plays the same traffic three times against a real server: without control, with equal static shares, and with
    headgate. Compares latency, SLO misses and throughput, and writes an HTML report. Takes about three minutes.
    """
    try:
        from rich.console import Console

        from headgate.engine.demo.command import default_cache, run
        from headgate.engine.demo.problem import ProblemError
        from headgate.engine.demo.session import Options
    except ModuleNotFoundError as error:
        raise click.ClickException(DEMO_EXTRA.format(missing=error.name)) from None
    try:
        code = run(Options(seconds=seconds, seed=seed), output, cache or default_cache(), Console())
    except ProblemError as error:
        raise click.ClickException(str(error)) from None
    sys.exit(code)
