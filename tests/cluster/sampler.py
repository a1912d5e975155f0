"""Reads all pods many times a second beside whatever runs, and keeps what it must never see."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .double.quantities import milli
from .harness import Cluster
from .recorder import MAIN, SERVICE

Object = dict[str, Any]
BETWEEN = 0.04
"""Seconds between the answer to one read and the next read."""


@dataclass(frozen=True)
class Sums:
    """Millicores of all main containers together, and the most of the three of each pod together."""

    asked: int
    allocated: int
    actual: int
    taken: int


@dataclass
class Sampler:
    """From its making until `close`."""

    cluster: Cluster
    total: int
    problems: list[str] = field(default_factory=list)
    samples: int = 0
    longest: float = 0.0
    """Seconds between two reads at the most."""
    most: Sums = Sums(0, 0, 0, 0)
    moves: int = 0
    """Changes of what is in force that it has seen."""

    def __post_init__(self) -> None:
        self._containers: dict[str, tuple[str, str]] = {}
        self._actual: dict[str, int] = {}
        self._client = self.cluster.plane.client("sampler")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Raises AssertionError with what it has seen."""
        self._stop.set()
        self._thread.join()
        assert self.samples, "nothing was read"
        assert not self.problems, self.problems[:5]

    def _run(self) -> None:
        last = time.monotonic()
        while not self._stop.wait(BETWEEN):
            try:
                found = self._client.list("pods")
            except Exception as error:  # noqa: BLE001 - told in the end
                self.problems.append(f"not read: {error}")
                return
            now = time.monotonic()
            self.longest, last = max(self.longest, now - last), now
            self.samples += 1
            self._look([pod for pod in found if SERVICE in (pod["metadata"].get("labels") or {})])

    def _look(self, pods: list[Object]) -> None:
        rows = [self._amounts(pod) for pod in pods if pod["status"].get("phase") not in ("Succeeded", "Failed")]
        sums = Sums(*(sum(column) for column in zip(*rows, strict=True))) if rows else Sums(0, 0, 0, 0)
        self.most = Sums(*(max(pair) for pair in zip(_tuple(self.most), _tuple(sums), strict=True)))
        if sums.taken > self.total:
            told = {p["metadata"]["name"]: row for p, row in zip(pods, rows, strict=False)}
            self.problems.append(f"{sums} of {self.total}: {told}")

    def _amounts(self, pod: Object) -> tuple[int, int, int, int]:
        name = pod["metadata"]["name"]
        states = {one["name"]: one for one in pod["status"].get("containerStatuses") or []}
        for container in pod["spec"]["containers"]:
            if container["name"] not in MAIN:
                continue
            state = states.get(container["name"], {})
            self._same(name, state)
            asked = _cpu((container.get("resources") or {}).get("requests"))
            allocated = _cpu(state.get("allocatedResources"))
            actual = _cpu((state.get("resources") or {}).get("requests"))
            if actual and self._actual.get(name) != actual:
                self.moves += name in self._actual
                self._actual[name] = actual
            return asked, allocated, actual, max(asked, allocated, actual)
        return 0, 0, 0, 0

    def _same(self, pod: str, state: Mapping[str, Any]) -> None:
        """No restart, and the container is the one that it was."""
        if state.get("restartCount"):
            self.problems.append(f"{pod} restarted")
        found = state.get("containerID")
        if found and self._containers.setdefault(pod, found) != found:
            self.problems.append(f"{pod} has another container: {found}")


def _cpu(amounts: Mapping[str, str] | None) -> int:
    return milli((amounts or {}).get("cpu", "0"))


def _tuple(sums: Sums) -> tuple[int, int, int, int]:
    return sums.asked, sums.allocated, sums.actual, sums.taken
