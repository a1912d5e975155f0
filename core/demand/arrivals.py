"""How many requests a pipeline was asked to serve, from whichever counters its samples carry."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from headgate.core.model import Sample
from headgate.core.units import MILLI

_HUGE = 1e12
_SHORTEST = 1e-6
"""Bounds of sense for times, counts (seconds, requests) and windows, far inside those of floating point."""


class Seen(NamedTuple):
    """One interval of a pipeline's arrivals, `window` seconds up to `time`."""

    pipeline: str
    time: float
    window: float
    requests: float | None
    """Requests that arrived; None: not known, or known only to be at least fewer than usual."""
    outcome: float | None = None
    """Requests per second over the last `Counter.span` seconds; None where too little of them is known."""


class CounterState(NamedTuple):
    """What the next sample is compared with."""

    time: float
    recent: tuple[tuple[float, float, float], ...] = ()
    """(end, seconds, requests) of the known intervals that the next outcome may need."""
    queue: float | None = None
    rate: float | None = None
    """Requests per second when arrivals were last known for certain."""
    counted: float | None = None
    """When arrivals were last known, or at least known not to have fallen."""


@dataclass(frozen=True, slots=True)
class Counter:
    """Turns samples into intervals of arrivals.

    Where the arrivals themselves are not counted they are what left plus what stayed: completions, requests
    dropped, and the growth of the queue. Completions of a pipeline that uses `saturated` of its grant, or that
    drops requests, only say that *at least* as many arrived (the arrivals are censored): such an interval may
    raise the rate, and never lowers it.
    """

    span: float = 1.0
    """Seconds over which an outcome is taken."""
    saturated: float = 0.95
    beyond: float = 1.05
    """Share of the grant above which it evidently is no limit, as a request without one; quotas and clocks round."""
    rounded: float = 0.01
    """CPUs by which a quota may be more than the grant: systemd rounds up to 10 ms in a second."""

    def update(self, state: CounterState | None, sample: Sample) -> tuple[CounterState, Seen | None]:
        """The state after `sample`, and what was seen; None for a sample that is repeated, late or broken."""
        time, window = sample.time, sample.window
        if not (abs(time) < _HUGE and _SHORTEST <= window < _HUGE):
            return state or CounterState(-math.inf), None
        if state is None:
            state = CounterState(-math.inf)
        if time <= state.time:
            return state, None
        queue = known(sample.queue)
        count, censored = self._count(state, sample, queue)
        rate, counted = state.rate, state.counted
        if count is not None:
            counted = time
            if censored and rate is not None and count < rate * window:
                count = None
            else:
                rate = count / window
        oldest = time - self.span - 0.5 * window
        recent = [entry for entry in state.recent if entry[0] - entry[1] >= oldest]
        outcome = None
        if count is not None:
            recent.append((time, window, count))
            seconds = sum([entry[1] for entry in recent])
            if seconds * 2 > self.span:
                outcome = sum([entry[2] for entry in recent]) / seconds
        return CounterState(time, tuple(recent), queue, rate, counted), Seen(
            sample.pipeline, time, window, count, outcome
        )

    def _count(self, state: CounterState, sample: Sample, queue: float | None) -> tuple[float | None, bool]:
        arrivals = known(sample.arrivals)
        if arrivals is not None:
            return arrivals, False
        completions = known(sample.completions)
        if completions is None:
            return None, False
        dropped = known(sample.dropped)
        growth = queue - state.queue if queue is not None and state.queue is not None else 0.0
        count = max(0.0, completions + (dropped or 0.0) + growth)
        counted_whole = dropped is not None and queue is not None and state.queue is not None
        return count, self.limited(sample) and not counted_whole

    def limited(self, sample: Sample) -> bool:
        """Whether all of the grant was in use, and it is what kept the pipeline from using more."""
        cpu, granted = known(sample.cpu_seconds), (sample.granted or 0) / MILLI * sample.window
        if cpu is None or not granted:
            return False
        return self.saturated * granted <= cpu <= max(self.beyond * granted, granted + self.rounded * sample.window)


def known(value: float | None) -> float | None:
    """`value`, or None for what no counter can have counted: NaN, more than 1e12, or negative as after a reset."""
    return value if value is not None and 0.0 <= value <= _HUGE else None
