"""One queue for each pipeline and number of CPUs: the arithmetic behind `queueing`, whose docstring has the model.

Arrays of at least one axis that broadcast with one another. Most of the time of an allocation is spent here: arrays are
written in place, and each thing is worked out on the smallest shape that has it (scenarios x CPUs x pipelines, CPUs x
pipelines, pipelines).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

_TINY = 1e-12  # stands for 0 in a divisor
_NEARLY_FULL = 1e-4  # spare capacity
_LEAST_SERVICE, _MOST_SERVICE = 1e-18, 1e15  # seconds
# Beyond these nothing changes any more; within them no product leaves the range of floats.
_LEAST_CPUS, _MOST_CPUS = 1e-9, 1e15
_MOST_UTILISATION = 1e9
_MOST_CV = 1e3
_MOST_QUEUE = 1e15
_MOST_TIME = 1e60  # in service times


@dataclass(frozen=True, slots=True, eq=False)
class Services:
    """What requests ask for, whatever their rate and the CPUs. Times without a unit are in services at speed 1."""

    time: Array
    """Mean seconds of a service."""
    work: Array
    """The same, but 0 where it is too short to matter."""
    least: Array
    """The shortest service."""
    phases: tuple[tuple[Array, Array], ...]
    """Above it: (share of the requests, mean of an exponential time)."""
    varied: Ints | None
    """Those that have a second phase, as positions on the last axis; None: all have as many as there are."""
    variability: Array
    """Mean wait of those who wait, times servers and spare capacity (Allen and Cunneen)."""
    span: Array
    """The horizon."""
    edge: Array
    """Four times their ratio."""
    queue: Array | None
    """Requests waiting already; None: nowhere any."""
    parallel: Array | None
    """Share of the work that more CPUs speed up; None: all of it everywhere."""

    @classmethod
    def of(
        cls,
        horizon: float,
        time: Array,
        cv: Array,
        queue: Array,
        parallel: Array,
        arrival_cv: Array,
        *,
        pipelines_last: bool = False,
    ) -> Services:
        """From the columns of `queueing.Traffic`; `horizon` in seconds.

        `pipelines_last`: they are of one length, and so is the last axis of everything that is asked: what only some
        pipelines need is then worked out for those alone.
        """
        service = np.minimum(np.maximum(time, _LEAST_SERVICE), _MOST_SERVICE)
        varied = np.minimum(cv, _MOST_CV)
        square = varied * varied
        arriving = np.minimum(arrival_cv, _MOST_CV)
        variability = np.maximum((arriving * arriving + square) / 2, _TINY)
        span = horizon / service
        phases = _phases(varied, square)
        some = (cv > 1).nonzero()[0] if pipelines_last and len(phases) > 1 else None
        if some is not None:
            (share, mean), rare = phases
            phases = (np.where(cv > 1, share, 1.0), mean), rare
        return cls(
            time=service,
            work=np.where(service > _LEAST_SERVICE, service, 0.0),
            # A constant service is followed by next to nothing, so that it is over just before its mean.
            least=1 - np.minimum(np.maximum(varied, 1e-6), 1),
            phases=phases,
            varied=some,
            variability=variability,
            span=span,
            edge=4 * variability / span,
            queue=np.minimum(queue, _MOST_QUEUE) if queue.any() else None,
            parallel=None if (parallel == 1).all() else parallel,
        )

    def only(self, some: slice) -> Services:
        """Those of some pipelines, which are the last axis."""

        def part(array: Array) -> Array:
            return array[..., some] if array.size > 1 else array

        return Services(
            time=part(self.time),
            work=part(self.work),
            least=part(self.least),
            phases=tuple((part(share), part(mean)) for share, mean in self.phases),
            varied=None if self.varied is None else _inside(self.varied, some),
            variability=part(self.variability),
            span=part(self.span),
            edge=part(self.edge),
            queue=None if self.queue is None else part(self.queue),
            parallel=None if self.parallel is None else part(self.parallel),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Station:
    """Queues with their CPUs and arrivals. Times without a unit are in services at the server's speed."""

    services: Services
    servers: Array
    speed: Array
    spare: Array
    """1 - utilisation; negative in overload."""
    edge: Array
    """Product of the two roots that stand for the spare capacity over a finite horizon: mean wait / horizon."""
    relaxed: Array
    """What takes the place of the spare capacity where a short wait counts."""
    waits: Array
    """Probability of waiting."""

    @classmethod
    def of(cls, services: Services, rates: Array, cpus: Array) -> Station:
        """Queues for `rates` requests per second and `cpus`."""
        capacity = np.minimum(np.maximum(cpus, _LEAST_CPUS), _MOST_CPUS)
        if services.parallel is not None:
            fraction = services.parallel
            capacity = capacity / np.maximum(1, fraction + (1 - fraction) * capacity)
        # One speed for all keeps what does not depend on the CPUs a column, which saves exponentials.
        slow = bool(capacity.min(initial=1.0) < 1)
        speed = np.minimum(capacity, 1) if slow else np.ones(1)
        servers = np.maximum(capacity, 1) if slow else capacity
        spare = np.asarray(rates * services.work / capacity)
        np.minimum(spare, _MOST_UTILISATION, out=spare)
        np.subtract(1, spare, out=spare)
        edge = np.asarray(services.edge / capacity)
        relaxed = relax(spare, edge)
        edge *= 0.25
        # The other root of the same equation: the product is known, and so no difference cancels.
        np.divide(edge, relaxed, out=relaxed, where=spare < 0)
        waits = waiting(np.sqrt(servers), stirling(servers), spare)
        return cls(services, servers, speed, spare, edge, relaxed, waits)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of what is asked of it."""
        return np.broadcast_shapes(self.relaxed.shape, self.services.least.shape)

    @property
    def backlog(self) -> Array | None:
        """What the waiting queue delays the first newcomer by; None: nothing waits anywhere."""
        return None if self.services.queue is None else self.services.queue / self.servers

    def within(self, latency: Array) -> Array:
        """Share of the requests that answer within `latency` seconds."""
        services = self.services
        alone = np.minimum(latency / services.time, _MOST_TIME)
        parts = (services.least, services.variability, alone, self.speed, self.servers, self.relaxed, self.waits)
        (portion, mean), *rest = services.phases
        share = _answered(mean, *parts)
        if rest:
            share *= portion
        for portion, mean in rest:
            if services.varied is None:
                share += portion * _answered(mean, *parts)
            else:
                some = [part[..., services.varied] if part.shape[-1] > 1 else part for part in (portion, mean, *parts)]
                share[..., services.varied] += some[0] * _answered(*some[1:])
        if (backlog := self.backlog) is not None:
            decay = self.relaxed * (self.servers / services.variability)
            slack = np.maximum(alone * self.speed - 1 - self.waits / decay / 2, 0)
            behind = np.maximum(backlog - slack, 0) / (self.relaxed * services.span * self.speed)
            behind = np.minimum(behind, 1e30)
            share = share * (1 - behind / np.sqrt(np.sqrt(np.sqrt(1 + np.square(np.square(behind * behind))))))
        return np.minimum(np.maximum(share, 0), 1)

    def mean_wait(self) -> Array:
        """Mean seconds between arrival and start, nobody turned away."""
        services, spare = self.services, self.spare
        span = services.span * self.speed
        wait = services.variability / self.servers
        root = relax(spare, 8 * self.edge)
        mean = self.waits * np.where(spare >= 0, wait / root, span * root / 2)
        if (backlog := self.backlog) is not None:
            drained = np.maximum(spare, 0) * span
            rest = np.maximum(backlog - drained, 0)
            # The fluid queue falls from the backlog to the rest, in the share of the horizon that this takes.
            falling = np.minimum(backlog / np.maximum(drained, _TINY), 1)
            mean = mean + falling * (backlog + rest) / 2
        return np.asarray(mean * (services.time / self.speed))


def _answered(
    mean: Array,
    least: Array,
    variability: Array,
    alone: Array,
    speed: Array,
    servers: Array,
    relaxed: Array,
    waits: Array,
) -> Array:
    """Share of the requests with an exponential phase of this `mean` that answer in the time `alone`."""
    before = np.asarray(least / mean - alone / mean * speed)
    np.minimum(before, 0, out=before)
    served = np.exp(before)
    # P(wait + service <= t) = P(service <= t) - C e^(-decay t) * service, whose exponentials meet at ratio 1.
    ratio = relaxed * (mean / variability * servers)
    apart = np.asarray(1 - ratio)
    if np.abs(apart).min(initial=1.0) < 1e-6:
        meeting = np.abs(apart) < 1e-6
        ratio, apart = np.where(meeting, 1 - 1e-6, ratio), np.where(meeting, 1e-6, apart)
    late = ratio * before
    np.exp(late, out=late)
    late -= served
    late = np.asarray(late / apart)
    late *= waits
    late += served
    np.subtract(1, late, out=late)
    return late


def _inside(positions: Ints, some: slice) -> Ints:
    first, end = np.searchsorted(positions, (some.start, some.stop))
    inside: Ints = positions[first:end] - some.start
    return inside


def relax(spare: Array, edge: Array) -> Array:
    """The larger root, (|x| + sqrt(x^2 + edge)) / 2, for x = `spare`."""
    root = spare * spare
    root = np.asarray(root + edge)
    np.sqrt(root, out=root)
    root += np.abs(spare)
    root *= 0.5
    return root


def stirling(servers: Array) -> Array:
    """Gamma(m + 1) e^m / (m^m sqrt(2 pi m)) by Stirling's series."""
    i = 1 / servers
    # The last coefficient takes the place of the rest of the series, exact at m = 1.
    series = np.asarray(i * -0.0023680041)
    series += 1 / 288
    series *= i
    series += 1 / 12
    series *= i
    series += 1
    return series


def waiting(root: Array, series: Array, spare: Array) -> Array:
    """`queueing.erlang_c` from the square root of the servers, `stirling` of them, and the spare capacity."""
    # Nearer to full load r - 1 - ln r would cancel: from there on 1 / C falls to 1 in a straight line.
    free = np.maximum(spare, _NEARLY_FULL)
    np.minimum(free, 1 - _TINY, out=free)
    y = 1 - free
    np.log(y, out=y)
    y += free
    y *= -2
    np.sqrt(y, out=y)
    z = root * y
    # Mills' ratio (1 - Phi) / phi by Zelen and Severo's 26.2.16 (Abramowitz and Stegun 1964), error 1e-5 of phi.
    t = z * 0.33267
    t += 1
    np.divide(1, t, out=t)
    mills = t * 0.9372980
    mills -= 0.1201676
    mills *= t
    mills += 0.4361836
    mills *= t
    odds = z * z
    odds *= 0.5
    np.exp(np.minimum(odds, 600, out=odds), out=odds)
    odds *= math.sqrt(2 * math.pi)
    odds -= mills
    odds *= z
    odds += 1
    odds *= np.divide(free, y, out=y)
    odds -= 1
    odds *= series
    odds *= np.divide(np.maximum(spare, 0, out=y), free, out=free)
    odds += 1
    probability: Array = np.divide(1, odds, out=odds)
    return probability


def _phases(cv: Array, square: Array) -> tuple[tuple[Array, Array], ...]:
    """Exponential parts of a service of mean 1, as (share, mean)."""
    steady = np.minimum(np.maximum(cv, 1e-8), 1)
    if cv.max(initial=0.0) <= 1:
        return ((np.ones(1), steady),)
    square = np.maximum(square, 1)
    rare = (1 - np.sqrt((square - 1) / (square + 1))) / 2
    return ((1 - rare, np.where(cv > 1, 0.5 / (1 - rare), steady)), (rare, np.where(cv > 1, 0.5 / rare, steady)))
