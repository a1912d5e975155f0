"""What happened to the requests of one pipeline: counted once, read by the control loop, the status and the metrics."""

from __future__ import annotations

import math
import threading
from bisect import bisect_left
from collections import deque
from dataclasses import dataclass

import numpy as np

from headgate.core.model import Sample

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the latency histogram, seconds."""

RECENT = 10.0
"""Seconds over which the status gives percentiles."""

REMEMBERED = 8192
"""Latencies kept for the percentiles at the most."""


ENOUGH = 10
"""Requests in an interval that tell how much their CPU time varies."""


@dataclass(slots=True)
class _Interval:
    arrivals: int = 0
    completions: int = 0
    dropped: int = 0
    cpu_seconds: float = 0.0
    cpu_squares: float = 0.0


@dataclass(frozen=True, slots=True)
class Totals:
    """Counts since the start."""

    codes: dict[int, int]
    """Requests by HTTP status."""
    buckets: tuple[int, ...]
    """Answered requests by latency: one count for each of BUCKETS, and one for what was slower."""
    latency_seconds: float
    cpu_seconds: float
    slo_misses: int

    @property
    def requests(self) -> int:
        """All requests, refused ones included."""
        return sum(self.codes.values())

    @property
    def refused(self) -> int:
        """Requests that found the queue full."""
        return self.codes.get(503, 0)


class Tally:
    """The counts of one pipeline. Thread-safe."""

    def __init__(self, pipeline: str, slo_latency: float | None) -> None:
        """`slo_latency`: seconds; a request that fails, is refused, or answers later misses the SLO."""
        self.pipeline = pipeline
        self._slo = math.inf if slo_latency is None else slo_latency
        self._has_slo = slo_latency is not None
        self._lock = threading.Lock()
        self._codes: dict[int, int] = {}
        self._buckets = [0] * (len(BUCKETS) + 1)
        self._latency_seconds = 0.0
        self._cpu_seconds = 0.0
        self._slo_misses = 0
        self._interval = _Interval()
        self._recent: deque[tuple[float, float]] = deque(maxlen=REMEMBERED)

    def arrived(self) -> None:
        """A complete request came, refused or not."""
        with self._lock:
            self._interval.arrivals += 1

    def refused(self, code: int) -> None:
        """It was not accepted."""
        with self._lock:
            self._codes[code] = self._codes.get(code, 0) + 1
            self._interval.dropped += 1
            self._slo_misses += self._has_slo

    def answered(self, code: int, now: float, latency: float, cpu_seconds: float) -> None:
        """It was answered `latency` seconds after it had arrived, at the cost of `cpu_seconds`."""
        with self._lock:
            self._codes[code] = self._codes.get(code, 0) + 1
            self._buckets[bisect_left(BUCKETS, latency)] += 1
            self._latency_seconds += latency
            self._cpu_seconds += cpu_seconds
            # A mistake of the client's is answered in time or not, as any request is.
            self._slo_misses += self._has_slo and (code >= 500 or latency > self._slo)
            self._recent.append((now, latency))
            interval = self._interval
            interval.completions += 1
            interval.cpu_seconds += cpu_seconds
            interval.cpu_squares += cpu_seconds * cpu_seconds

    def sample(self, now: float, window: float, queue: int) -> Sample:
        """What happened since the last call, `window` seconds ago."""
        with self._lock:
            interval, self._interval = self._interval, _Interval()
        return Sample(
            pipeline=self.pipeline,
            time=now,
            window=window,
            arrivals=interval.arrivals,
            completions=interval.completions,
            dropped=interval.dropped,
            cpu_seconds=interval.cpu_seconds,
            queue=queue,
            service_cv=_variation(interval),
        )

    def totals(self) -> Totals:
        """The counts as they are now, all of one moment."""
        with self._lock:
            return Totals(
                dict(self._codes),
                tuple(self._buckets),
                self._latency_seconds,
                self._cpu_seconds,
                self._slo_misses,
            )

    def percentiles(self, now: float) -> dict[str, float | None]:
        """p50, p95 and p99 of the latencies of the last seconds, None without any."""
        with self._lock:
            recent = [latency for time, latency in self._recent if time >= now - RECENT]
        if not recent:
            return {"p50": None, "p95": None, "p99": None}
        values = np.percentile(recent, (50, 95, 99))
        return {f"p{p}": float(value) for p, value in zip((50, 95, 99), values, strict=True)}


def _variation(interval: _Interval) -> float | None:
    """Coefficient of variation of the CPU time of a request; None where too few were served to tell."""
    n = interval.completions
    if n < ENOUGH or interval.cpu_seconds <= 0:
        return None
    mean = interval.cpu_seconds / n
    variance = max(0.0, (interval.cpu_squares - n * mean * mean) / (n - 1))
    return math.sqrt(variance) / mean


class Durations:
    """How long decisions took, and how many could not be made. Written by one thread."""

    def __init__(self) -> None:
        self.buckets = [0] * (len(BUCKETS) + 1)
        self.seconds = 0.0
        self.failed = 0

    def add(self, seconds: float) -> None:
        """A decision took `seconds`."""
        self.buckets[bisect_left(BUCKETS, seconds)] += 1
        self.seconds += seconds
