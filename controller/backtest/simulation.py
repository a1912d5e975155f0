"""Replays a trace through a policy: the event loop that ties stations, cluster and decisions together."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from headgate.controller.backtest.book import Book
from headgate.controller.backtest.cluster import Cluster
from headgate.controller.backtest.drawing import Drawing
from headgate.controller.backtest.grid import Trace
from headgate.controller.backtest.station import Counters, Station
from headgate.controller.backtest.world import Outcome, Policy, World
from headgate.core.model import Observation, Sample
from headgate.core.units import MILLI

_MINUTE = 60.0
_LONGEST_DRAIN = 60
"""Minutes after the trace's end in which what is still queued may be served; then it counts as dropped."""


def simulate(
    trace: Trace, world: World, policy: Policy, progress: Callable[[int], None] = lambda _minutes: None
) -> Outcome:
    """Replay `trace` in `world` under `policy`; `progress` hears how many minutes have passed.

    Every policy meets the same requests. At the start each pipeline serves with one CPU, or an equal share of a budget
    that is smaller; the first decision follows after one interval.
    """
    run = _Run(trace, world, policy)
    for minute in range(trace.minutes):
        run.replay(minute)
        progress(minute + 1)
    return run.finish()


class _Run:
    def __init__(self, trace: Trace, world: World, policy: Policy) -> None:
        self._trace, self._world, self._policy = trace, world, policy
        self._drawing = Drawing(trace, world)
        self._now = 0.0
        deadline = world.latency if world.shed else math.inf
        self._stations = {
            name: Station(bound=world.bound, in_flight=world.in_flight, router=world.router, deadline=deadline)
            for name in trace.pipelines
        }
        self._cluster = Cluster(
            trace.pipelines, budget=world.budget, step=world.step, start=world.start, release=world.release
        )
        self._cluster.place(dict.fromkeys(trace.pipelines, min(MILLI, world.budget // len(trace.pipelines))))
        self._resize(trace.pipelines)
        self._book = Book(trace, world)
        self._state: Any = None
        self._seen = {name: station.counters() for name, station in self._stations.items()}
        self._decision_seconds: list[float] = []

    def replay(self, minute: int) -> None:
        """One minute of the trace."""
        for index, station in enumerate(self._stations.values()):
            arrivals, services = self._drawing.minute(minute, index)
            station.feed(arrivals, services)
            self._book.expect(minute, index, len(arrivals))
        self._pass((minute + 1) * _MINUTE, lambda seconds: self._book.hold(minute, seconds, self._cluster))
        for index, station in enumerate(self._stations.values()):
            self._book.use(minute, index, station.counters().cpu_seconds)
            self._book.settle(index, station)

    def finish(self) -> Outcome:
        """Serve what is left after the trace's end."""
        for _ in range(_LONGEST_DRAIN):
            if self._book.complete:
                break
            self._pass(self._now + _MINUTE, lambda _seconds: None)
            for index, station in enumerate(self._stations.values()):
                self._book.settle(index, station)
        for index, station in enumerate(self._stations.values()):
            self._book.settle(index, station, last=True)
        return self._book.outcome(self._policy.name, self._cluster.moved, np.array(self._decision_seconds))

    def _pass(self, until: float, hold: Callable[[float], None]) -> None:
        """Let time pass up to `until`, with decisions and changes of CPUs on the way; `hold` hears of each stretch."""
        while self._now < until:
            due = (len(self._decision_seconds) + 1) * self._policy.interval
            then = min(until, due, self._cluster.next_event())
            hold(then - self._now)
            self._now = then
            self._resize(self._cluster.advance(then))
            if then >= due:
                for station in self._stations.values():
                    station.advance(then)
                self._resize(self._cluster.want(self._decide(), then))
        for station in self._stations.values():
            station.advance(until)

    def _decide(self) -> Mapping[str, int]:
        observation = Observation(
            samples={name: self._sample(name, station) for name, station in self._stations.items()},
            granted={name: holding.granted for name, holding in self._cluster.holdings.items()},
        )
        begin = time.perf_counter()
        self._state, wanted = self._policy.decide(self._state, observation, self._now)
        self._decision_seconds.append(time.perf_counter() - begin)
        return wanted

    def _sample(self, name: str, station: Station) -> Sample:
        """What a source sees of the last interval: counters of the past, nothing of what comes."""
        before, after = self._seen[name], station.counters()
        self._seen[name] = after
        return Sample(
            pipeline=name,
            time=self._now,
            window=self._policy.interval,
            arrivals=after.arrivals - before.arrivals,
            completions=after.completions - before.completions,
            dropped=after.dropped - before.dropped,
            cpu_seconds=after.cpu_seconds - before.cpu_seconds,
            queue=after.waiting,
            service_cv=_variation(before, after),
        )

    def _resize(self, names: Iterable[str]) -> None:
        for name in names:
            holding, station = self._cluster.holdings[name], self._stations[name]
            station.advance(self._now)
            station.resize(open_servers=math.ceil(holding.serving / MILLI), cpus=holding.running / MILLI)


def _variation(before: Counters, after: Counters) -> float | None:
    """Coefficient of variation of the service times between two counts; None for fewer than two requests."""
    count = after.completions - before.completions
    if count < 2:
        return None
    mean = (after.work - before.work) / count
    variance = (after.work_squared - before.work_squared) / count - mean**2
    return math.sqrt(max(0.0, variance)) / mean
