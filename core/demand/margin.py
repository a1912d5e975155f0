"""From a point to a distribution: scenarios of the rate from a forecaster's own past errors."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist
from typing import Any, NamedTuple, Protocol
from zlib import crc32

from headgate.core.demand.arrivals import Seen
from headgate.core.demand.forecast import Forecaster


class Outlook(Protocol):
    """Learns the distribution of one pipeline's arrival rate over the coming horizon."""

    def update(self, state: Any, seen: Seen) -> Any:
        """The state after one more interval. `state` is None for the first one."""
        ...

    def scenarios(self, state: Any, now: float) -> tuple[float, ...]:
        """Equally likely requests per second, ascending, over the horizon after `now`; () while it cannot tell."""
        ...

    def loss(self, state: Any) -> float:
        """Mean continuous ranked probability score of its recent scenarios, in requests per second; less is better."""
        ...


class Record(NamedTuple):
    """How the forecasts have fared, and the one that waits for its outcome."""

    errors: tuple[float, ...]
    """Outcome over forecast, oldest first."""
    ordered: tuple[float, ...]
    """The same, ascending."""
    next: float = -math.inf
    """When the next forecast is to be judged or, where none waits, made."""
    rate: float | None = None
    """What was forecast, if one waits."""
    scenarios: tuple[float, ...] = ()
    loss: float = 0.0
    judged: int = 0
    spread: float = 0.0
    """Recent mean of (error - 1)^2, and the part of it that counting noise explains."""
    noise: float = 0.0


class MarginState(NamedTuple):
    """The wrapped forecaster's state, and its record."""

    inner: Any
    record: Record


@dataclass(frozen=True, slots=True)
class Margin:
    """Scenarios of the mean rate over (now + lead, now + lead + span]: the forecast times its past relative errors.

    An error is outcome / forecast at this very horizon, with half a request added to both so that idle pipelines
    have errors too. The scenarios stand at `count` even steps through the empirical quantiles of the last `memory`
    errors. Before there are enough of them, a lognormal prior of mean 1 and relative deviation `prior` stands in.

    A forecast is judged every `every` seconds, or once a horizon where that is longer: the errors of overlapping
    horizons say little that is new. Pipelines start at different intervals, so that not all are judged in the same.

    An outcome is a count, and so noisier than the rate: its relative Poisson variance is 1 / expected requests. The
    scenarios are of the rate, since who plans for them adds the noise of single arrivals anyway: deviations from the
    median shrink by sqrt(1 - Poisson variance / observed variance), as in the method of moments.
    """

    inner: Forecaster
    lead: float = 0.0
    span: float = 1.0
    count: int = 12
    memory: int = 120
    every: float = 0.0
    fading: int = 60
    """Outcomes over which the loss is averaged."""
    prior: float = 0.2
    highest: float = 5.0
    """Errors count for this at most: a rise from nothing must not multiply what is expected in busier times."""

    def update(self, state: MarginState | None, seen: Seen) -> MarginState:
        """Judges the forecast that is due and makes the next one."""
        if state is None:
            start = _prior(self.count, self.prior)
            state = MarginState(None, Record(start, start, next=seen.time + self._delay(seen)))
        before, record = state
        inner = self.inner.update(before, seen)
        # Half a window's tolerance: sampling jitter must not shift which outcome a forecast is compared with.
        if seen.time + 0.5 * seen.window < record.next:
            return MarginState(inner, record)
        if record.rate is not None and seen.outcome is not None:
            record = self._judge(record, record.rate, seen.outcome)
        return MarginState(inner, self._forecast(inner, record, seen.time))

    def scenarios(self, state: MarginState | None, now: float) -> tuple[float, ...]:
        """The forecast times the quantiles of its errors."""
        if state is None:
            return ()
        rate = self.inner.rate(state.inner, now + self.lead, now + self.lead + self.span)
        return () if rate is None else self._scenarios(state.record, rate)

    def loss(self, state: MarginState | None) -> float:
        """Mean score, infinite until a tenth of `fading` outcomes were judged."""
        return state.record.loss if state is not None and state.record.judged * 10 >= self.fading else math.inf

    def _delay(self, seen: Seen) -> float:
        turns = max(1, round(max(self.every, self.lead + self.span) / seen.window))
        return crc32(seen.pipeline.encode()) % turns * seen.window

    def _forecast(self, inner: Any, record: Record, now: float) -> Record:
        horizon = self.lead + self.span
        following = now + max(self.every, horizon)
        rate = self.inner.rate(inner, now + self.lead, now + horizon)
        if rate is None:
            return record._replace(next=following, rate=None)
        errors, ordered, _, _, _, loss, judged, spread, noise = record
        return Record(errors, ordered, following, rate, self._scenarios(record, rate), loss, judged, spread, noise)

    def _judge(self, record: Record, rate: float, outcome: float) -> Record:
        half = 0.5 / self.span
        error = min((outcome + half) / (rate + half), self.highest)
        errors, ordered = (*record.errors, error), list(record.ordered)
        insort(ordered, error)
        if len(errors) > self.memory:
            del ordered[bisect_left(ordered, errors[0])]
            errors = errors[1:]
        judged = record.judged + 1
        weight = 1.0 / min(judged, self.fading)
        return Record(
            errors,
            tuple(ordered),
            record.next,
            rate,
            record.scenarios,
            record.loss + weight * (crps(record.scenarios, outcome) - record.loss),
            judged,
            record.spread + weight * (min((error - 1.0) ** 2, 1.0) - record.spread),
            record.noise + weight * (min(1.0 / ((rate + half) * self.span), 1.0) - record.noise),
        )

    def _scenarios(self, record: Record, rate: float) -> tuple[float, ...]:
        ordered = record.ordered
        size, count = len(ordered), self.count
        shrink = math.sqrt(max(0.0, 1.0 - record.noise / record.spread)) if record.spread > 0.0 else 1.0
        half = 0.5 / self.span
        scale = (rate + half) * shrink
        base = (rate + half) * ordered[size // 2] * (1.0 - shrink) - half
        rates = [base + scale * ordered[place] for place in _places(size, count)]
        return tuple(rates) if rates[0] >= 0.0 else tuple([max(0.0, rate) for rate in rates])


@cache
def _places(size: int, count: int) -> tuple[int, ...]:
    """Of `count` even quantiles among `size` numbers."""
    return tuple([(2 * i + 1) * size // (2 * count) for i in range(count)])


@cache
def _prior(count: int, deviation: float) -> tuple[float, ...]:
    quantiles = [math.exp(deviation * NormalDist().inv_cdf((i + 0.5) / count)) for i in range(count)]
    return tuple(quantile * count / sum(quantiles) for quantile in quantiles)


def crps(scenarios: Sequence[float], outcome: float) -> float:
    """Continuous ranked probability score of equally likely `scenarios`, ascending: E|X - y| - E|X - X'| / 2.

    The mean of the pinball losses over all quantiles, twice (Gneiting and Raftery, JASA 102(477), 2007, eq. 21).
    """
    size = len(scenarios)
    distance = sum([abs(s - outcome) for s in scenarios])
    spread = sum([place * s for place, s in zip(range(1 - size, size, 2), scenarios, strict=True)])
    return distance / size - spread / (size * size)
