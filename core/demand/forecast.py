"""Forecasters: the arrival rate to expect over a coming window, as a point. They wrap one another.

margin.Margin turns any of them into a distribution. Rates are in requests per second, times in seconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from headgate.core.demand.arrivals import Seen


class Forecaster(Protocol):
    """Learns the arrival rate of one pipeline. Its state is a value; None before the first interval."""

    def update(self, state: Any, seen: Seen) -> Any:
        """The state after one more interval; the same one where its count is not known."""
        ...

    def rate(self, state: Any, start: float, end: float) -> float | None:
        """Mean rate expected over (start, end], or None while it cannot tell."""
        ...


@dataclass(frozen=True, slots=True)
class Last:
    """The rate of the last interval."""

    def update(self, state: float | None, seen: Seen) -> float | None:
        """The rate of the interval."""
        return state if seen.requests is None else seen.requests / seen.window

    def rate(self, state: float | None, start: float, end: float) -> float | None:  # noqa: ARG002 - it never changes
        """The last rate."""
        return state


@dataclass(frozen=True, slots=True)
class Ewma:
    """Exponentially weighted mean: requests over seconds, both fading with their half-life in seconds.

    A ratio of sums gives an interval the weight of its length, and is right from the first one.
    """

    half_life: float

    def update(self, state: tuple[float, float] | None, seen: Seen) -> tuple[float, float] | None:
        """The two sums (requests, seconds)."""
        if seen.requests is None:
            return state
        count, seconds = state or (0.0, 0.0)
        keep = math.exp2(-seen.window / self.half_life)
        return count * keep + seen.requests, seconds * keep + seen.window

    def rate(self, state: tuple[float, float] | None, start: float, end: float) -> float | None:  # noqa: ARG002
        """The weighted mean."""
        return None if state is None else state[0] / state[1]


class LevelState(NamedTuple):
    """Kalman mean and variance of the rate, and the two one-sided CUSUMs of its standardised innovations."""

    mean: float
    variance: float
    up: float = 0.0
    down: float = 0.0


@dataclass(frozen=True, slots=True)
class Level:
    """Calm in Poisson noise, and at the new rate at once when it really changes.

    A local-level Kalman filter (Harvey, "Forecasting, Structural Time Series Models and the Kalman Filter", 1989,
    2.3.1) whose measurement noise is the Poisson variance of the count, mean / window, and whose rate wanders by
    the relative variance `drift` per interval. A combined Shewhart-CUSUM chart (Lucas, J. Quality Technology
    14(2), 1982) watches the innovations in standard deviations: one beyond `limit`, or a run whose sum beyond
    `slack` each passes `decision`, is a change of the rate, after which the filter trusts what it sees.
    """

    drift: float = 1e-3
    limit: float = 3.0
    slack: float = 0.5
    decision: float = 5.0

    def update(self, state: LevelState | None, seen: Seen) -> LevelState | None:
        """Predict, compare, correct."""
        if seen.requests is None:
            return state
        rate = seen.requests / seen.window
        if state is None:
            return LevelState(rate, max(rate, 1.0 / seen.window) / seen.window)
        mean, variance, up, down = state
        noise = max(mean, 1.0 / seen.window) / seen.window
        variance += self.drift * mean * mean
        error = rate - mean
        score = error / math.sqrt(variance + noise)
        up = max(0.0, up + score - self.slack)
        down = max(0.0, down - score - self.slack)
        if up > self.decision or down > self.decision or abs(score) > self.limit:
            variance += error * error
            noise = max(noise, rate / seen.window)
            up = down = 0.0
        gain = variance / (variance + noise)
        return LevelState(mean + gain * error, (1.0 - gain) * variance, up, down)

    def rate(self, state: LevelState | None, start: float, end: float) -> float | None:  # noqa: ARG002
        """The level."""
        return None if state is None else state.mean


class HoltState(NamedTuple):
    """Level (requests per second), its slope (per second), and the time at which both hold."""

    time: float
    level: float
    slope: float = 0.0


@dataclass(frozen=True, slots=True)
class Holt:
    """Holt's linear trend, damped (Gardner and McKenzie, Management Science 31(10), 1985).

    Smoothing constants follow from half-lives in seconds, so that intervals may be of any length. The slope fades
    with the half-life `damping`: a forecast h seconds ahead is level + slope * integral of the fading over h.
    """

    level_half_life: float
    slope_half_life: float
    damping: float

    def update(self, state: HoltState | None, seen: Seen) -> HoltState | None:
        """One step of the recursion, over the seconds since the last known interval."""
        if seen.requests is None:
            return state
        rate = seen.requests / seen.window
        middle = seen.time - seen.window / 2
        if state is None or middle <= state.time:
            return HoltState(middle, rate)
        elapsed = middle - state.time
        expected = state.level + state.slope * self._faded(elapsed)
        level = expected + (1.0 - math.exp2(-elapsed / self.level_half_life)) * (rate - expected)
        faded = state.slope * math.exp2(-elapsed / self.damping)
        slope = faded + (1.0 - math.exp2(-elapsed / self.slope_half_life)) * ((level - state.level) / elapsed - faded)
        return HoltState(middle, level, slope)

    def rate(self, state: HoltState | None, start: float, end: float) -> float | None:
        """The trend in the middle of the window, not below 0."""
        if state is None:
            return None
        return max(0.0, state.level + state.slope * self._faded((start + end) / 2 - state.time))

    def _faded(self, seconds: float) -> float:
        return self.damping / math.log(2) * (1.0 - math.exp2(-seconds / self.damping))


class PeakState(NamedTuple):
    """The wrapped forecaster's state, and its rates that no later one exceeds, as (time, rate)."""

    inner: Any = None
    peaks: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Peak:
    """Holds the highest rate that `inner` gave during the last `window` seconds."""

    inner: Forecaster
    window: float

    def update(self, state: PeakState | None, seen: Seen) -> PeakState:
        """Forgets what is older than the window and what the new rate exceeds."""
        inner, peaks = state or PeakState()
        inner = self.inner.update(inner, seen)
        rate = self.inner.rate(inner, seen.time, seen.time)
        if rate is None:
            return PeakState(inner, peaks)
        kept = tuple(p for p in peaks if p[0] > seen.time - self.window and p[1] > rate)
        return PeakState(inner, (*kept, (seen.time, rate)))

    def rate(self, state: PeakState | None, start: float, end: float) -> float | None:
        """The peak, or what `inner` expects where that is more."""
        if state is None or not state.peaks:
            return None
        return max(state.peaks[0][1], self.inner.rate(state.inner, start, end) or 0.0)
