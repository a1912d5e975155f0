"""`headgate run`, `pause`, `resume` and `doctor`, and the home `file`, registered as anybody's plug-in."""

from __future__ import annotations

import json
import logging
import signal
import sys
import threading
import time
from collections.abc import Mapping

import click

from headgate.controller.run.clock import steady_clock
from headgate.controller.run.doctor import doctor
from headgate.controller.run.file_home import FileHome, FileHomeSettings
from headgate.controller.run.opening import FIRST, Running, open_home, open_run
from headgate.controller.run.settings import LogSettings, RunSettings
from headgate.core.config import Model, SettingsError, validate
from headgate.core.hookspecs import CommandLine, HomeKind, hookimpl

log = logging.getLogger("headgate.run")

EXTRA = "this needs the controller's packages ({missing} is missing): pip install 'headgate[controller]'"


@hookimpl
def headgate_register_commands(cli: click.Group) -> None:
    """Add `run`, `pause`, `resume` and `doctor`."""
    cli.add_command(run)
    cli.add_command(doctor)
    cli.add_command(pause)
    cli.add_command(resume)


@hookimpl
def headgate_settings() -> Mapping[str, type[Model]]:
    """What `run` reads."""
    return {"run": RunSettings}


@hookimpl
def headgate_homes() -> Mapping[str, HomeKind]:
    """file: one controller on one machine."""
    return {"file": HomeKind(FileHomeSettings, FileHome)}


@click.command()
@click.argument("settings", type=click.Path(dir_okay=False, allow_dash=True))
@click.option("--once", is_flag=True, help="One turn, until what it moves is in force; then end.")
@click.option(
    "--dry-run", is_flag=True, help="Write nothing anywhere; show what would change, why, and by which request."
)
@click.option("--apply", "applies", is_flag=True, help="Put decisions in force, where a budget's mode is Apply.")
@click.option("-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True)
@click.pass_obj
def run(command_line: CommandLine, settings: str, output: str, *, once: bool, dry_run: bool, applies: bool) -> None:
    """Control the hosts that a SETTINGS file names: observe, decide, report and, with --apply, move CPUs.

    Ends with SIGTERM or Ctrl-C after what is half-way has been finished or taken back; a second one ends it at once.
    With --once or --dry-run, exit code 1: a budget is not as it should be.
    """
    clock = steady_clock()
    running = open_run(command_line, settings, applies=applies, clock=clock)
    set_up_logs(running.settings.log)
    try:
        code = _single(running, output, dry_run=dry_run) if dry_run or once else _for_ever(running)
    finally:
        running.close()
    sys.exit(code)


def _single(running: Running, output: str, *, dry_run: bool) -> int:
    from headgate.controller.run.show import show

    loop = running.loop
    loop.prime()
    running.wait_for_sources()
    if dry_run:
        loop.preview()
    else:
        _wait_for_lead(running)
        loop.turn()
        until = time.monotonic() + running.settings.grace
        while loop.pending and time.monotonic() < until:
            time.sleep(min(1.0, running.settings.interval))
            loop.tick()
        loop.finish(time.sleep)
    if loop.record.problem is not None:
        click.echo(f"headgate: {loop.record.problem}", err=True)
        return 1
    show(loop.views, loop.rejected, output, dry_run=dry_run, nodes=running.nodes)
    troubled = any(view.verdict.trouble or view.failed or view.pending for view in loop.views.values())
    unplanned = running.nodes is not None and running.nodes.record.problem is not None
    return int(bool(loop.rejected) or troubled or unplanned)


def _wait_for_lead(running: Running) -> None:
    running.home.campaign()
    until = time.monotonic() + FIRST
    while not running.home.leads():
        if time.monotonic() > until:
            raise click.ClickException("another controller leads: end it, or use --dry-run, which writes nothing")
        time.sleep(0.1)


def _for_ever(running: Running) -> int:
    try:
        from headgate.controller.run.server import Server
    except ModuleNotFoundError as error:
        raise click.ClickException(EXTRA.format(missing=error.name)) from None
    stop = threading.Event()

    def end(number: int, _frame: object) -> None:
        if stop.is_set():
            sys.stderr.write("headgate: ended at once\n")
            raise SystemExit(128 + number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    server = None
    if (address := running.settings.listen) is not None:
        try:
            server = Server(address, running, steady_clock())
        except OSError as error:
            raise SettingsError(f"listen: cannot listen on {address.host}:{address.port}: {error.strerror}") from None
        click.echo(f"listening on {server.url}")
    sys.stdout.flush()
    try:
        running.loop.run(stop)
    finally:
        if server is not None:
            server.close()
    return 0


@click.command()
@click.argument("settings", type=click.Path(dir_okay=False, allow_dash=True))
@click.option("--reason", default="paused by headgate pause", show_default=True, help="For the status.")
@click.pass_obj
def pause(command_line: CommandLine, settings: str, reason: str) -> None:
    """Hold every controller of the home in SETTINGS: nothing is changed until `headgate resume`. Works at once."""
    _switch(command_line, settings, reason)


@click.command()
@click.argument("settings", type=click.Path(dir_okay=False, allow_dash=True))
@click.pass_obj
def resume(command_line: CommandLine, settings: str) -> None:
    """Let the controllers go on that `headgate pause` holds."""
    _switch(command_line, settings, None)


def _switch(command_line: CommandLine, path: str, reason: str | None) -> None:
    document = command_line.read(path)
    home = open_home(document, validate(document, RunSettings))
    try:
        home.pause(reason)
    except OSError as error:
        raise click.ClickException(str(error)) from None
    finally:
        home.close()


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        found = {"time": record.created, "level": record.levelname.lower(), "logger": record.name}
        found["message"] = record.getMessage()
        if record.exc_info:
            found["trace"] = self.formatException(record.exc_info)
        return json.dumps(found, ensure_ascii=False)


def set_up_logs(settings: LogSettings) -> None:
    """Logs go to standard error, so that standard output is only what was asked for."""
    handler = logging.StreamHandler()
    plain = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(JsonFormatter() if settings.format == "json" else plain)
    logging.basicConfig(level=settings.level.upper(), handlers=[handler], force=True)
