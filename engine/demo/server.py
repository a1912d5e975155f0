"""Starts `headgate serve` as a user would, watches its status and stops it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep, time
from typing import Any

import yaml

from headgate.core.units import format_cpu, format_duration
from headgate.engine.demo.interrupts import held
from headgate.engine.demo.models import Model
from headgate.engine.demo.problem import ProblemError

_START = 30.0
_STOP = 20.0
FLOOR = 0.2
"""A region's share of the budget that it always keeps, in every run. What is idle of it is lent."""
POLL = 0.25
"""Seconds between two looks at the status."""


class ServerError(ProblemError):
    """The server did not start, or ended on its own; the message holds what it said."""


def floor_of(budget: int) -> int:
    """A pipeline's floor in millicores."""
    return int(FLOOR * budget)


@dataclass(frozen=True, slots=True)
class Control:
    """One way of sharing the CPUs: its name, and the settings that make it."""

    name: str
    title: str
    settings: Mapping[str, Any]


CONTROLS = (
    Control("none", "no control", {"control": "none"}),
    Control("static", "equal static shares", {"control": "live", "policy": "equal", "lend": False}),
    Control("headgate", "headgate", {"control": "live"}),
)


def settings(
    control: Control, models: Sequence[Model], slos: Mapping[str, float], budget: int, queue: int
) -> dict[str, Any]:
    """The settings file of one run. Everything but `control` is the same for all of them."""
    return {
        "listen": "127.0.0.1:0",
        "budget": format_cpu(budget),
        **control.settings,
        "pipelines": [
            {
                "name": model.name,
                "steps": [{"model": str(file)} for file in model.files],
                "floor": format_cpu(floor_of(budget)),
                "queue": queue,
                **({"slo": {"latency": format_duration(slos[model.name]), "percentile": 95}} if slos else {}),
            }
            for model in models
        ],
    }


@dataclass(frozen=True, slots=True)
class Server:
    """A running server."""

    pid: int
    host: str
    port: int


@contextmanager
def serving(content: Mapping[str, Any], folder: Path, cpus: frozenset[int]) -> Iterator[Server]:
    """A server with the settings `content`, ready to answer; it is stopped at the end, whatever happens.

    Settings and log are kept in `folder`. Raises ServerError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file, log = folder / "engine.yaml", folder / "server.log"
    file.write_text(yaml.safe_dump(dict(content), sort_keys=False))
    process: subprocess.Popen[bytes] | None = None
    try:
        with held():
            process = _start([sys.executable, "-m", "headgate", "serve", str(file)], log, cpus)
        yield _wait(process, log)
    finally:
        if process is not None:
            _stop(process)


def _start(command: Sequence[str], log: Path, cpus: frozenset[int]) -> subprocess.Popen[bytes]:
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)  # inherited by what is started now
    try:
        with log.open("wb") as output:
            # A process group of its own: Ctrl-C is for the demo, which then stops the server.
            return subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, process_group=0
            )
    finally:
        os.sched_setaffinity(0, mine)


def _wait(process: subprocess.Popen[bytes], log: Path) -> Server:
    end = monotonic() + _START
    while monotonic() < end:
        text = log.read_text(errors="replace")
        if process.poll() is not None:
            raise ServerError(f"headgate serve ended with exit code {process.returncode}:\n{text[-2000:]}")
        _, found, after = text.partition("listening on http://")
        if found and "\n" in after:
            host, _, port = after.split("\n", 1)[0].strip().rstrip("/").rpartition(":")
            if _ready(host, int(port)):
                return Server(process.pid, host, int(port))
        sleep(0.05)
    raise ServerError(f"headgate serve is not ready after {_START:.0f} s:\n{log.read_text(errors='replace')[-2000:]}")


def _ready(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=2)
    try:
        connection.request("GET", "/v2/health/ready")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


@dataclass(frozen=True, slots=True)
class Look:
    """The server's status at `time` (Unix seconds)."""

    time: float
    status: Mapping[str, Any]


class Watcher:
    """Collects the server's status every quarter of a second, in a thread of its own."""

    def __init__(self, server: Server) -> None:
        self.looks: list[Look] = []
        self._server = server
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="status", daemon=True)

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(5)

    def _run(self) -> None:
        connection = http.client.HTTPConnection(self._server.host, self._server.port, timeout=5)
        while not self._end.wait(POLL):
            try:
                connection.request("GET", "/headgate/status")
                response = connection.getresponse()
                body = response.read()
                if response.status == 200:
                    self.looks.append(Look(time(), json.loads(body)))
            except (OSError, http.client.HTTPException, ValueError):
                connection.close()  # reconnects with the next request; a gap in the samples says the rest
        connection.close()
