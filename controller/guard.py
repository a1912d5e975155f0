"""Calls plug-ins within an allowance of time for each turn of the loop, and keeps the record of what fails.

What a plug-in's own process answers too late is left behind (`isolation`); one that runs in this process
(`plugins: {isolate: false}`) is waited for.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from headgate.core.observation import Nonsense

log = logging.getLogger("headgate.plugins")

T = TypeVar("T")

REPEAT = 60.0
"""Seconds before the same trouble is logged again."""


class HookFailed(RuntimeError):  # noqa: N818 - a state of a plug-in, not an error of ours
    """A plug-in did not give an answer that can be used; the message names it, the hook and the trouble."""


class Trouble(RuntimeError):  # noqa: N818
    """What went wrong in a plug-in's own process."""

    def __init__(self, reason: str, text: str, *, passing: bool = False) -> None:
        """`reason`: see `Guard.failures`. `passing`: what it is connected to has failed, not the plug-in."""
        super().__init__(text)
        self.reason = reason
        self.passing = passing


class Guard:
    """Runs plug-ins' hooks with a common allowance of time for each turn of the loop, and keeps the record."""

    def __init__(self, allowance: float) -> None:
        """`allowance`: seconds that all hooks of one turn may take together."""
        self._allowance = allowance
        self._until = time.monotonic() + allowance
        self._failures: Counter[tuple[str, str, str]] = Counter()
        self._said: dict[tuple[str, str, str], tuple[str, float]] = {}
        self._lock = threading.Lock()

    def begin(self) -> None:
        """A new turn of the loop, with the whole allowance."""
        self._until = time.monotonic() + self._allowance

    def call(self, plugin: str, hook: str, function: Callable[[float], Any], check: Callable[[Any], T]) -> T:
        """What `function` returns, made usable by `check`, which raises Nonsense. Raises HookFailed.

        `function` is told until when it is waited for, in monotonic time.
        """
        if time.monotonic() >= self._until:
            raise self.failed(plugin, hook, "late", "no time was left for it in this turn")
        try:
            return check(function(self._until))
        except Trouble as trouble:
            raise self.failed(plugin, hook, trouble.reason, str(trouble)) from None
        except Nonsense as error:
            raise self.failed(plugin, hook, "nonsense", str(error)) from None
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise self.failed(plugin, hook, "raised", brief(error)) from error

    def failed(self, plugin: str, hook: str, reason: str, text: str) -> HookFailed:
        """Puts a failure on record; what to raise."""
        message = f"plug-in {plugin}, {hook}: {text}"
        now = time.monotonic()
        with self._lock:
            self._failures[plugin, hook, reason] += 1
            before, when = self._said.get((plugin, hook, reason), ("", 0.0))
            fresh = before != message or now - when > REPEAT
            if fresh:
                self._said[plugin, hook, reason] = (message, now)
        if fresh:
            log.warning("%s", message)
        return HookFailed(message)

    def failures(self) -> Mapping[tuple[str, str, str], int]:
        """Failed calls since the start by plug-in, hook and reason.

        The reasons: raised, nonsense, late (no answer in time), busy (still at an earlier call), crashed (its process
        ended), restarting (its process is to be started anew).
        """
        with self._lock:
            return dict(self._failures)


def brief(error: BaseException) -> str:
    """An exception in one short line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
