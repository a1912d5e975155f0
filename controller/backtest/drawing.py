"""Draws the requests of a trace: when they come, and how long each one's service takes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headgate.controller.backtest.grid import Trace
from headgate.controller.backtest.world import World

_MINUTE = 60.0

Requests = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Arrival times in seconds since the start, rising, and the service times of these requests."""


class Drawing:
    """The requests of each pipeline, minute by minute; they depend on the seed, the minute and the pipeline only."""

    def __init__(self, trace: Trace, world: World) -> None:
        self._trace = trace
        self._world = world
        nothing = np.zeros(0)
        self._over: list[Requests] = [(nothing, nothing)] * len(trace.pipelines)
        """What the generator was too late for in the minute before."""

    def minute(self, minute: int, index: int) -> Requests:
        """Those that come within a minute; the minutes in turn.

        Poisson at the minute's rate, or, as a load generator does that works a list off, exactly the minute's
        requests with exponential gaps from the minute's beginning: the last ones may come in the next minute, together
        with its own. What is late at the trace's end comes then.
        """
        random = np.random.default_rng((self._world.seed, minute, index))
        wanted = self._trace.requests[minute, index]
        begin, end = minute * _MINUTE, (minute + 1) * _MINUTE
        law = self._world.laws.of(self._trace.pipelines[index])
        if self._world.arrivals == "poisson":
            count = int(random.poisson(wanted))
            return np.sort(random.uniform(begin, end, count)), law.sample(random, count)
        count = round(float(wanted))
        times = begin + np.cumsum(random.exponential(_MINUTE / max(count, 1), count))
        late, their = self._over[index]
        times, services = np.concatenate((late, times)), np.concatenate((their, law.sample(random, count)))
        if minute == self._trace.minutes - 1:
            times = np.minimum(times, end)
        order = times.argsort(kind="stable")
        times, services = times[order], services[order]
        now = int(times.searchsorted(end, side="right"))
        self._over[index] = times[now:], services[now:]
        return times[:now], services[:now]
