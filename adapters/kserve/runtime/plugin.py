"""The subcommand `kserve`. KServe's SDK takes seconds to import: nothing imports it before the command runs."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from headgate.adapters.kserve.runtime.folder import MOUNTED, document_of
from headgate.core.hookspecs import CommandLine, hookimpl

EXTRA = "this needs KServe's packages ({missing} is missing): pip install 'headgate[kserve]'"


@hookimpl
def headgate_register_commands(cli: click.Group) -> None:
    """Add `kserve`."""
    cli.add_command(kserve)


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--settings", type=click.Path(dir_okay=False), help="Settings file, as `headgate serve` reads it.")
@click.option(
    "--model_dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=MOUNTED,
    show_default=True,
    help="Folder of ONNX models, without --settings.",
)
@click.option("--model_name", default="model", show_default=True, help="Name of the model where the folder has one.")
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[KSERVE'S OPTIONS]...")
@click.pass_obj
def kserve(
    command_line: CommandLine, settings: str | None, model_dir: Path, model_name: str, options: tuple[str, ...]
) -> None:
    """Serve ONNX models in a KServe model server, on one CPU budget that follows their load.

    KServe's own options (--http_port, --grpc_port, --enable_grpc and so on) mean what they mean to any of its servers.
    """
    try:
        from headgate.adapters.kserve.runtime.server import parse, serve
    except ModuleNotFoundError as error:
        raise click.ClickException(EXTRA.format(missing=error.name)) from None
    _log()
    parse(options)
    document = (
        document_of(model_dir, model_name, command_line.read) if settings is None else command_line.read(settings)
    )
    engine = command_line.engine("onnx", document)
    try:
        serve(engine)
    finally:
        engine.close()


def _log() -> None:
    """Only headgate's own: KServe sets up its loggers unless the root has been set up before."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("headgate")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
