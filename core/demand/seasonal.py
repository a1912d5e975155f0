"""Seasonal: what comes back at the same time of the hour, the day or the week."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from headgate.core.demand.arrivals import Seen
from headgate.core.demand.forecast import Forecaster


class SeasonalState(NamedTuple):
    """The wrapped forecaster's state, the profile, and what is being added to it."""

    inner: Any
    since: float
    profile: tuple[float, ...]
    """By phase, the rate relative to the mean of its period."""
    latest: tuple[float, ...]
    """By phase, the rate when it was last seen; their mean is exactly that of the last period, without a ripple."""
    visits: tuple[float, ...]
    """How many times each phase has been seen, at most `memory`."""
    phase: int = 0
    """The phase at hand, and the requests and seconds seen in it so far."""
    requests: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Seasonal:
    """A profile over `period` seconds (any epoch; local time if the samples' times are), times what `inner` expects.

    The multiplicative seasonality of Holt and Winters (Winters, Management Science 6(3), 1960), with any forecaster
    for the rest. `inner` sees each count over an exposure of window * profile, as in a Poisson regression with an
    offset, so that it also knows how noisy the count is. Cannot tell until one whole period has been seen.
    """

    inner: Forecaster
    period: float
    phases: int = 30
    memory: float = 4.0
    """Periods after which what was seen at a phase has faded."""

    def update(self, state: SeasonalState | None, seen: Seen) -> SeasonalState | None:
        """Learns the profile at the interval's phase; after the first period, `inner` is shown the rest."""
        if seen.requests is None:
            return state
        window = seen.window
        phase = self._phase(seen.time - window / 2)
        if state is None:
            flat, none = (1.0,) * self.phases, (0.0,) * self.phases
            state = SeasonalState(None, seen.time - window, flat, none, none, phase)
        if phase != state.phase:
            state = self._learn(state, phase)
        inner, since, profile, latest, visits, _, requests, seconds = state
        if seen.time - since >= self.period:
            exposure = window * max(profile[phase], 0.02)
            inner = self.inner.update(inner, Seen(seen.pipeline, seen.time, exposure, seen.requests, seen.outcome))
        return SeasonalState(inner, since, profile, latest, visits, phase, requests + seen.requests, seconds + window)

    def _learn(self, state: SeasonalState, following: int) -> SeasonalState:
        """Adds the visit that is over to the profile."""
        inner, since, profile, latest, visits, phase, requests, seconds = state
        if seconds > 0.0:
            seen = min(visits[phase] + 1.0, self.memory)
            visits = _with(visits, phase, seen)
            latest = _with(latest, phase, requests / seconds)
            mean = sum(latest) / (self.phases - visits.count(0.0))
            if mean > 0.0:
                # Half a visit to a flat profile comes before the first, so that a noisy one does not count in full.
                learned = profile[phase] + (latest[phase] / mean - profile[phase]) / (seen + 0.5)
                profile = _with(profile, phase, learned)
        return SeasonalState(inner, since, profile, latest, visits, following)

    def rate(self, state: SeasonalState | None, start: float, end: float) -> float | None:
        """What `inner` expects, times the mean of the profile over the window."""
        if state is None or start - state.since < self.period:
            return None
        rate = self.inner.rate(state.inner, start, end)
        if rate is None:
            return None
        steps = max(1, min(self.phases, math.ceil((end - start) * self.phases / self.period)))
        step = (end - start) / steps
        profile = state.profile
        return rate * sum([profile[self._phase(start + (i + 0.5) * step)] for i in range(steps)]) / steps

    def _phase(self, time: float) -> int:
        return min(self.phases - 1, int(time % self.period / self.period * self.phases))


def _with(values: tuple[float, ...], place: int, value: float) -> tuple[float, ...]:
    changed = list(values)
    changed[place] = value
    return tuple(changed)
