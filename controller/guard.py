"""Calls plug-ins so that the caller neither fails nor waits on their account.

Each hook of each plug-in has one thread, which a call that hangs keeps; until it returns, further calls of that hook
fail at once. So there are never more threads than hooks, and being daemons they do not keep the process from ending.
Plug-ins share the process: one that holds the interpreter's lock within a C call, or ends the process, is not held off.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

from headgate.core.observation import Nonsense

log = logging.getLogger("headgate.plugins")

T = TypeVar("T")

REPEAT = 60.0
"""Seconds before the same trouble is logged again."""


class HookFailed(RuntimeError):  # noqa: N818 - a state of a plug-in, not an error of ours
    """A plug-in did not give an answer that can be used; the message names it, the hook and the trouble."""


class Worker:
    """A thread that runs one call at a time."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._running: Future[Any] | None = None

    @property
    def busy(self) -> bool:
        """Whether a call has not returned yet."""
        return self._running is not None and not self._running.done()

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Begin `call`; the worker must not be busy. Whatever it raises is the future's."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._loop, name=self._name, daemon=True)
            self._thread.start()
        future: Future[T] = Future()
        self._running = future
        self._calls.put((call, future))
        return future

    def stop(self) -> None:
        """End the thread after the call that it runs."""
        self._calls.put(None)

    def _loop(self) -> None:
        while (item := self._calls.get()) is not None:
            call, future = item
            try:
                future.set_result(call())
            except BaseException as error:  # noqa: BLE001 - a plug-in may raise SystemExit or MemoryError too
                future.set_exception(error)
            del item, call, future


class Guard:
    """Runs plug-ins' hooks with a common allowance of time for each turn of the loop, and keeps the record."""

    def __init__(self, allowance: float) -> None:
        """`allowance`: seconds that all hooks of one turn may take together."""
        self._allowance = allowance
        self._until = time.monotonic() + allowance
        self._workers: dict[tuple[str, str], Worker] = {}
        self._failures: Counter[tuple[str, str, str]] = Counter()
        self._rests: dict[tuple[str, str], tuple[int, float]] = {}
        self._said: dict[tuple[str, str], tuple[str, float]] = {}
        self._lock = threading.Lock()

    def begin(self) -> None:
        """A new turn of the loop, with the whole allowance."""
        self._until = time.monotonic() + self._allowance

    def call(self, plugin: str, hook: str, function: Callable[[], Any], check: Callable[[Any], T]) -> T:
        """What `function` returns, made usable by `check`, which raises Nonsense. Raises HookFailed."""
        worker = self._workers.setdefault((plugin, hook), Worker(f"headgate-{plugin}"))
        left = self._until - time.monotonic()
        if worker.busy:
            raise self._failed(plugin, hook, "busy", "an earlier call has not returned yet")
        strikes, until = self._rests.get((plugin, hook), (0, 0.0))
        if time.monotonic() < until:
            raise self._failed(plugin, hook, "resting", "it was late, and is left out for a while")
        if left <= 0:
            raise self._failed(plugin, hook, "late", "no time was left for it in this turn")
        future = worker.submit(function)
        try:
            value = future.result(left)
            if time.monotonic() > self._until + self._allowance:
                # It answered, but held up the whole process meanwhile, as filling a gigabyte does.
                raise self._late(plugin, hook, strikes)
            self._rests.pop((plugin, hook), None)
            return check(value)
        except HookFailed:
            raise
        except TimeoutError:
            if not future.done():
                raise self._late(plugin, hook, strikes) from None
            raise self._failed(plugin, hook, "raised", "TimeoutError") from None
        except Nonsense as error:
            raise self._failed(plugin, hook, "nonsense", str(error)) from None
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and not future.done():
                raise  # it was ours
            raise self._failed(plugin, hook, "raised", brief(error)) from error

    def tell(self, plugin: str, hook: str, function: Callable[[], Any]) -> None:
        """Begin `function` and do not wait; left out when the one before has not returned."""
        worker = self._workers.setdefault((plugin, hook), Worker(f"headgate-{plugin}"))
        if worker.busy:
            self._failed(plugin, hook, "busy", "an earlier call has not returned yet")
            return

        def look(future: Future[Any]) -> None:
            if (error := future.exception()) is not None:
                self._failed(plugin, hook, "raised", brief(error))

        worker.submit(function).add_done_callback(look)

    def failures(self) -> Mapping[tuple[str, str, str], int]:
        """Failed calls since the start by plug-in, hook and reason (raised, late, busy, resting, nonsense)."""
        with self._lock:
            return dict(self._failures)

    def close(self) -> None:
        """Let the threads end; one that hangs is left behind."""
        for worker in self._workers.values():
            worker.stop()

    def _late(self, plugin: str, hook: str, strikes: int) -> HookFailed:
        """On record as late, and left out for twice as long as the last time."""
        self._rests[plugin, hook] = strikes + 1, time.monotonic() + min(REPEAT, self._allowance * 2**strikes)
        return self._failed(plugin, hook, "late", f"no answer within {self._allowance:g} s")

    def _failed(self, plugin: str, hook: str, reason: str, text: str) -> HookFailed:
        message = f"plug-in {plugin}, {hook}: {text}"
        now = time.monotonic()
        with self._lock:
            self._failures[plugin, hook, reason] += 1
            before, when = self._said.get((plugin, hook), ("", 0.0))
            fresh = before != message or now - when > REPEAT
            if fresh:
                self._said[plugin, hook] = (message, now)
        if fresh:
            log.warning("%s", message)
        return HookFailed(message)


def brief(error: BaseException) -> str:
    """An exception in one short line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
