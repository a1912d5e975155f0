"""A plug-in's process as the loop sees it: calls that end in time, whatever becomes of the process.

An answer that is late is not waited for; when it comes after all the process is as good as before. One that has not
come for `patience` seconds ends the process, with all that it started. A process that has ended is started anew, after
a pause that grows while it keeps ending soon.
"""

from __future__ import annotations

import math
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from headgate.controller.guard import Trouble
from headgate.controller.isolation.child import Task
from headgate.controller.isolation.wire import Channel, unpacked
from headgate.core.config import SettingsError
from headgate.core.observation import Nonsense

PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds before a process is started anew: twice as many each time, unless it lived for the longest pause."""

GOODBYE = 1.0
"""Seconds for a process that is told to end."""

# A plug-in's linear algebra must not take the CPUs of the pipelines; one thread does for what decisions need.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_START = (
    "import sys; sys.path[:] = {path!r}; from headgate.controller.isolation.child import main; main({socket}, {parent})"
)


@dataclass(frozen=True, slots=True)
class Terms:
    """What a process is granted."""

    load: float
    """Seconds to import the plug-in and get ready."""
    patience: float
    """Seconds without an answer after which it is ended."""


class Child:
    """One process of a plug-in. Not thread-safe; `starts` may be read by any thread."""

    def __init__(self, task: Task, terms: Terms) -> None:
        """Starts it and does not wait."""
        self.starts = 0
        self._task = task
        self._terms = terms
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel
        self._ended: list[subprocess.Popen[bytes]] = []
        self._since: float | None = None
        """When what it has not answered yet began, monotonic."""
        self._loading = False
        self._strikes = 0
        self._again = 0.0
        self._start()

    def ready(self) -> Any:
        """What it says when it has loaded. Raises Trouble when it does not in time, or cannot; then it is closed."""
        assert self._since is not None
        try:
            return _outcome(self._receive(self._since + self._terms.load))
        except (Trouble, Nonsense, SettingsError):
            self.close()
            raise

    def setup(self, method: str, *arguments: Any) -> None:
        """A call that is made again each time it is started anew, instead of an earlier one of the same method.

        Raises SettingsError, Trouble or Nonsense.
        """
        self.call(method, *arguments, until=None)
        task = self._task
        others = [setup for setup in task.setups if setup[0] != method]
        self._task = Task(task.name, task.value, task.memory, (*others, (method, arguments)))

    def call(self, method: str, *arguments: Any, until: float | None) -> Any:
        """The answer, of unchecked contents. Raises Trouble, Nonsense, and SettingsError where the call does.

        `until` (monotonic) when it is waited for; None: for as long as there is patience, and before that until it has
        loaded.
        """
        self.tend(patiently=until is None)
        since = time.monotonic()
        until = since + self._terms.patience if until is None else until
        self._send(method, arguments, since, until)
        return _outcome(self._receive(until))

    def tell(self, method: str, *arguments: Any, until: float) -> None:
        """Begin a call and do not wait for it. Raises Trouble, also on account of what it was told before."""
        before = self.tend()
        self._send(method, arguments, time.monotonic(), until)
        if before is not None:
            _outcome(before)

    def tend(self, *, patiently: bool = False) -> bytes | None:
        """See to it that it is free for a call, or on the way there. What it had still to answer. Raises Trouble.

        `patiently`: wait until it has loaded.
        """
        self._ended = [process for process in self._ended if process.poll() is None]
        if self._process is None:
            if time.monotonic() < self._again:
                raise Trouble("restarting", "its process has ended and is started anew in a while")
            self._start()
        if self._since is None:
            return None
        loading = self._loading
        try:
            frame = self._receive(self._since + self._terms.load if loading and patiently else 0.0)
        except Trouble as trouble:
            if trouble.reason != "late" or self._process is None:
                raise
            doing = ("restarting", "its process is starting") if loading else ("busy", "it is still at an earlier call")
            raise Trouble(*doing) from None
        if not loading:
            return frame
        try:
            _outcome(frame)
        except (SettingsError, Nonsense) as error:
            raise self._end("crashed", str(error)) from None
        except Trouble as trouble:
            raise self._end("crashed", str(trouble)) from None
        return None

    def hang_up(self) -> None:
        """Tell it to end, if it listens. Any thread may."""
        self._channel.hang_up()

    def close(self, until: float = 0.0) -> None:
        """End it: by itself until a monotonic time, then by force."""
        self.hang_up()
        self._again = math.inf
        if (process := self._process) is not None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, until - time.monotonic()))
            _kill(process)
            process.wait()
            self._process = None

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs, open(os.memfd_create("headgate-task"), "w+b") as task:
            pickle.dump(self._task, task)
            task.seek(0)
            code = _START.format(path=sys.path, socket=theirs.fileno(), parent=os.getpid())
            self._process = subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=task,
                stdout=2,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                env={**os.environ, **dict.fromkeys(_THREADS, "1")},
            )
        self._channel = Channel(ours)
        self._loading = True
        self._since = self._begun = time.monotonic()
        self.starts += 1

    def _send(self, method: str, arguments: tuple[Any, ...], since: float, until: float) -> None:
        frame = pickle.dumps((method, arguments), protocol=5)
        self._since = since
        try:
            self._channel.send(frame, until)
        except TimeoutError:
            raise self._end("late", "it does not take its call") from None
        except OSError:
            raise self._end("crashed") from None

    def _receive(self, until: float) -> bytes:
        assert self._since is not None
        allowed = self._terms.load if self._loading else self._terms.patience
        try:
            frame = self._channel.receive(until)
        except TimeoutError:
            if time.monotonic() < self._since + allowed:
                raise Trouble("late", "no answer in time") from None
            what = "it did not load" if self._loading else "no answer"
            raise self._end("late", f"{what} within {allowed:g} s; its process was ended") from None
        except EOFError:
            raise self._end("crashed") from None
        except Nonsense as error:
            raise self._end("nonsense", str(error)) from None
        self._since, self._loading = None, False
        return frame

    def _end(self, reason: str, text: str = "") -> Trouble:
        """It has ended, or is to end now. What to raise."""
        process, now = self._process, time.monotonic()
        assert process is not None
        self._channel.close()
        if not text:
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.05)  # its socket is closed a moment before it is gone
            text = f"its process ended: {_how(process.returncode)}"
        _kill(process)
        self._ended.append(process)
        self._process = self._since = None
        self._strikes = 1 if now - self._begun > LONGEST_PAUSE else self._strikes + 1
        self._again = now + pause(self._strikes)
        return Trouble(reason, text)


def pause(strikes: int) -> float:
    """Seconds before the start after so many ends in a row."""
    return min(LONGEST_PAUSE, PAUSE * 2.0 ** (strikes - 1))


def _kill(process: subprocess.Popen[bytes]) -> None:
    # It leads a session of its own: what it has started goes with it.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _how(code: int | None) -> str:
    if code is None:
        return "it hung up"
    return f"{signal.strsignal(-code)} (signal {-code})" if code < 0 else f"exit code {code}"


def _outcome(frame: bytes) -> Any:
    match unpacked(frame):
        case ("ok", value):
            return value
        case ("settings", str(text)):
            raise SettingsError(text)
        case ("raised" | "nonsense" as reason, str(text), bool(passing)):
            raise Trouble(reason, text, passing=passing)
    raise Nonsense("answers with what is no answer")
