"""Keeps the account of a simulation, minute by minute."""

from __future__ import annotations

import math
from collections import deque

import numpy as np
from numpy.typing import NDArray

from headgate.controller.backtest.cluster import Cluster
from headgate.controller.backtest.grid import Trace
from headgate.controller.backtest.station import Station
from headgate.controller.backtest.world import Outcome, World
from headgate.core.units import MILLI


class Book:
    """Collects an Outcome while the simulation runs; pipelines are known by their index in the trace."""

    def __init__(self, trace: Trace, world: World) -> None:
        shape = trace.requests.shape
        self._slo, self._percentile = world.latency, world.percentile
        self._requests, self._late, self._dropped = (np.zeros(shape, np.int64) for _ in range(3))
        self._latency, self._granted, self._used = (np.zeros(shape) for _ in range(3))
        self._open: list[deque[tuple[int, int]]] = [deque() for _ in range(shape[1])]
        self._busy = np.zeros(shape[1])

    @property
    def complete(self) -> bool:
        """Whether all requests that were expected have been answered or dropped."""
        return not any(self._open)

    def expect(self, minute: int, pipeline: int, requests: int) -> None:
        """Requests that arrive in this minute."""
        self._open[pipeline].append((minute, requests))

    def hold(self, minute: int, seconds: float, cluster: Cluster) -> None:
        """CPUs held during `seconds` of this minute."""
        self._granted[minute] += [holding.held * seconds / (60.0 * MILLI) for holding in cluster.holdings.values()]

    def use(self, minute: int, pipeline: int, cpu_seconds: float) -> None:
        """CPU seconds used since the beginning, up to the end of this minute."""
        self._used[minute, pipeline] = (cpu_seconds - self._busy[pipeline]) / 60.0
        self._busy[pipeline] = cpu_seconds

    def settle(self, pipeline: int, station: Station, *, last: bool = False) -> None:
        """Enter the minutes all of whose requests are done; with `last` the others too, as if dropped."""
        pending = self._open[pipeline]
        while pending:
            minute, count = pending[0]
            latencies = station.abandon(count) if last else station.settled(count)
            if latencies is None:
                return
            pending.popleft()
            self._enter(minute, pipeline, latencies)

    def _enter(self, minute: int, pipeline: int, latencies: NDArray[np.float64]) -> None:
        count = len(latencies)
        self._requests[minute, pipeline] = count
        if not count:
            return
        dropped = int(np.isinf(latencies).sum())
        self._dropped[minute, pipeline] = dropped
        self._late[minute, pipeline] = int((latencies > self._slo).sum()) - dropped
        # Nearest rank, so that it is infinite exactly when more than 100 - percentile % were dropped.
        rank = max(1, math.ceil(round(self._percentile / 100 * count, 9)))
        self._latency[minute, pipeline] = np.partition(latencies, rank - 1)[rank - 1]

    def outcome(self, policy: str, moved: int, decision_seconds: NDArray[np.float64]) -> Outcome:
        """What was collected."""
        return Outcome(
            policy=policy,
            requests=self._requests,
            late=self._late,
            dropped=self._dropped,
            latency=self._latency,
            granted=self._granted,
            used=self._used,
            moved=moved,
            decision_seconds=decision_seconds,
        )
