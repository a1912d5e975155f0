"""What goes wrong on purpose, and the record of all requests."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .errors import StatusError
from .requests import Answer, Request, answer

Match = Callable[[Request], bool]


def matching(method: str = "", path: str = "", dry_run: bool | None = None, agent: str = "") -> Match:
    """Requests by method ("" any, "write": what may change something) and a part of the path."""

    def test(request: Request) -> bool:
        if method and (not request.writes if method == "write" else request.method != method):
            return False
        if dry_run is not None and request.dry_run != dry_run:
            return False
        return path in request.path and agent in request.agent

    return test


@dataclass
class Entry:
    """One request of the record. `code` is 0 until it is answered."""

    request: Request
    time: float
    code: int = 0
    lost: bool = False


@dataclass
class _Fault:
    match: Match
    skip: int
    times: int
    failure: StatusError | None = None
    delay: float = 0.0
    drop: bool = False
    silent: bool = False

    def hits(self, request: Request) -> bool:
        if not self.times or not self.match(request):
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.times -= 1
        return True


@dataclass
class Faults:
    """Each is armed with which requests it hits: after `skip` of them, for `times` (-1: for good)."""

    log: list[Entry] = field(default_factory=list)
    latency: float = 0.0
    """Seconds that every request takes longer."""

    def __post_init__(self) -> None:
        self._armed: list[_Fault] = []
        self._lock = threading.Lock()
        self._open = threading.Event()
        self._open.set()
        self._lost: set[int] = set()

    def fail(
        self, match: Match, code: int, message: str = "a fault was asked for", *, skip: int = 0, times: int = 1
    ) -> None:
        """Answer an error, and do nothing."""
        reason = {500: "InternalError", 503: "ServiceUnavailable", 429: "TooManyRequests", 403: "Forbidden"}
        failure = StatusError(code, reason.get(code, "Conflict" if code == 409 else "Unknown"), message)
        self._armed.append(_Fault(match, skip, times, failure=failure))

    def drop(self, match: Match, *, skip: int = 0, times: int = 1) -> None:
        """Do it, and close the connection without an answer."""
        self._armed.append(_Fault(match, skip, times, drop=True))

    def slow(self, match: Match, seconds: float, *, skip: int = 0, times: int = -1) -> None:
        """Answer that much later."""
        self._armed.append(_Fault(match, skip, times, delay=seconds))

    def hang(self) -> None:
        """Take requests and answer none, until `heal`."""
        self._open.clear()

    def heal(self) -> None:
        """Everything works again."""
        self._armed.clear()
        self._open.set()

    def begin(self, request: Request) -> Entry:
        """Record it; wait as long as is asked for."""
        entry = Entry(request, time.monotonic())
        with self._lock:
            self.log.append(entry)
            wait = self.latency + sum(f.delay for f in self._armed if f.delay and f.hits(request))
        if wait:
            time.sleep(wait)
        self._open.wait()
        return entry

    def before(self, request: Request) -> Answer | None:
        """An error instead of serving it."""
        with self._lock:
            for fault in self._armed:
                if fault.failure is not None and fault.hits(request):
                    return answer(fault.failure.status(), fault.failure.code)
        return None

    def after(self, request: Request) -> bool:
        """Whether the answer is lost."""
        with self._lock:
            hits = [fault.hits(request) for fault in self._armed if fault.drop]  # each counts what it saw
            return any(hits)

    def count(self, method: str = "", path: str = "") -> int:
        """Requests so far; see `matching`."""
        test = matching(method, path)
        return sum(test(entry.request) for entry in self.log)

    def forget(self) -> None:
        """Begin the record anew."""
        with self._lock:
            self.log.clear()


def replay(log: list[Entry]) -> list[dict[str, Any]]:
    """The record as plain values: what was asked, in order, and the status of each answer."""
    return [
        {"method": e.request.method, "path": e.request.path, "query": dict(e.request.query), "body": e.request.body}
        | {"content_type": e.request.content_type, "code": e.code}
        for e in log
    ]
