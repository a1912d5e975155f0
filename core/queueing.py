"""The latency of a pipeline as a function of its CPUs: one M/G/c queue for each pipeline and number of CPUs, at once.

All functions take arrays that broadcast with one another by numpy's rules, `Traffic`'s included: pipelines as a
column (n, 1) and CPUs as (n, k) or (k,) give (n, k). Time is in seconds, rates in requests per second, CPUs are
floats. Nothing loops over CPUs, so a million cost as much as one. Every finite input that is not negative has a
finite answer without warnings, which more load never improves and more CPUs or more latency never worsen.

The model, with service time S (mean s, coefficient of variation cs), arrival rate l, c CPUs:

*Servers.* c CPUs do the work of m = c / max(1, f + (1 - f) c) (Amdahl 1967; f: parallel fraction). m >= 1 is m
servers, between whole numbers by the analytic continuation of Erlang's formula (Jagerman 1974). m < 1 is one server
at speed m: a service takes s / m. A cgroup quota does that in the mean over its periods (100 ms): a request shorter
than what is left of a period's quota is faster than said here. Utilisation is r = l s / m.

*Probability of waiting.* Erlang's C(m, r), see `erlang_c`; exact for M/M/c, the usual stand-in for M/G/c.

*Waiting time.* Those who wait do so for an exponential time (exact for M/M/c; the heavy-traffic limit for GI/G/c,
Kingman 1962, Koellerstroem 1974) with the mean of Allen and Cunneen: w = v s / (m (1 - r)), v = (ca^2 + cs^2) / 2
(Allen, "Probability, Statistics, and Queueing Theory", 1990). For one server this is Pollaczek and Khinchine's mean.

*Overload.* At r -> 1 the stationary wait is infinite, over a finite horizon H it is not. The spare capacity 1 - r is
replaced by x = ((1 - r) + sqrt((1 - r)^2 + 4 a / H)) / 2 where a = v s / m, so w = a / x. It is the time-dependent
delay of road traffic engineering (the coordinate transformation of Kimber and Hollis 1979): below capacity the
stationary wait, above it (r - 1) H, what a fluid queue grows to. Their form is made for the mean (`mean_wait` uses
it); the one here has the probability of a *short* wait right instead, 1 / ((r - 1) H) per second in the fluid limit,
as latencies are short against the horizon. The price: far percentiles in overload are pessimistic (p95 up to three
times the fluid's).

*A queue already there.* q requests delay newcomers by b = q s / m at first and drain at the spare capacity. What a
newcomer can bear ahead of it is g = t - s - C w / 2; the share y = (b - g)+ / (x H) of the horizon's newcomers finds
more and is late. y (1 + y^8)^(-1/8) keeps that share below 1.

*Service time.* What is known of it is its mean and cv. cs <= 1: a constant and an exponential time, (1 - cs) s +
Exp(cs s): an inference has a least duration and a tail. cs > 1: two exponentials mixed with balanced means (Whitt
1982). Both give the sojourn time in closed form, exact for M/M/c.

*How good it is* (tests/core/test_queueing_simulation.py): against simulated queues with lognormal service, 1 to 32
servers and utilisations of 0.3 to 0.9, the share of requests within a latency is right to 0.03 (cs <= 0.5) or 0.04
(cs <= 2) where 90 % or more answer in time, to 0.09 where half do; mean wait and p95 to a tenth (cs <= 1). In overload
and behind a queue the share is right to 0.1, but up to 0.35 too low at utilisations of 0.95 to 1.1, where it falls
from 1 to 0 (behind a queue it may be as much too high there).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

HORIZON = 60.0
"""Seconds over which a queue grows or drains, unless told otherwise."""

_CHUNK = 16_384  # cells worked on at once: what the second-level cache holds of the temporary arrays
_TINY = 1e-12  # stands for 0 in a divisor
_NEARLY_FULL = 1e-4  # spare capacity
_LEAST_SERVICE, _MOST_SERVICE = 1e-18, 1e15  # seconds
# Beyond these nothing changes any more; within them no product leaves the range of floats.
_LEAST_CPUS, _MOST_CPUS = 1e-9, 1e15
_MOST_UTILISATION = 1e9
_MOST_CV = 1e3
_MOST_QUEUE = 1e15
_MOST_TIME = 1e60  # in service times
_BRACKETS = 100  # factors of 4: all of that range


@dataclass(frozen=True, slots=True)
class Traffic:
    """What arrives at pipelines, in columns: arrays that broadcast with one another, finite and not negative."""

    arrival_rate: ArrayLike
    """Requests per second."""
    service_time: ArrayLike
    """Mean CPU seconds of a request."""
    service_cv: ArrayLike = 1.0
    """Coefficient of variation of the service time."""
    queue: ArrayLike = 0.0
    """Requests already waiting."""
    parallel_fraction: ArrayLike = 1.0
    """Share of the work that more CPUs speed up (Amdahl), 0 to 1."""
    arrival_cv: ArrayLike = 1.0
    """Coefficient of variation of the time between arrivals; 1: Poisson."""


def within(traffic: Traffic, cpus: ArrayLike, latency: ArrayLike, *, horizon: float = HORIZON) -> Array:
    """Share of the next `horizon` seconds' requests that answer within `latency` seconds, 0 to 1."""
    return _by_rows(lambda t, c, x: _Station.of(t, c, horizon).within(t.arrival_rate, x), traffic, cpus, latency)


def expected_within(traffic: Traffic, cpus: ArrayLike, latency: ArrayLike, *, horizon: float = HORIZON) -> Array:
    """The mean of `within` over equally likely arrival rates, which are the leading axis of `arrival_rate`.

    Rates (s, n, 1) and CPUs (n, k) give (n, k): `within(...).mean(axis=0)`, without its (s, n, k) array.
    """
    rates = np.asarray(traffic.arrival_rate, dtype=np.float64)
    if not len(rates):
        raise ValueError("expected_within needs at least one scenario of arrival rates")

    def mean(t: _Columns, c: Array, x: Array) -> Array:
        share = _Station.of(t, c, horizon).within(t.arrival_rate, x)
        return np.asarray(share[0] if len(share) == 1 else np.add.reduce(share, axis=0) / len(share))

    return _by_rows(mean, traffic, cpus, latency, scenarios=len(rates))


def percentile(traffic: Traffic, cpus: ArrayLike, percent: float, *, horizon: float = HORIZON) -> Array:
    """The latency in seconds that `percent` % of the next `horizon` seconds' requests do not exceed.

    The inverse of `within`, by bisection to 1 part in 10^12. Raises ValueError unless 0 < percent < 100.
    """
    if not 0 < percent < 100:
        raise ValueError(f"percentile {percent} is not above 0 and below 100")
    share = percent / 100

    def invert(t: _Columns, c: Array) -> Array:
        station = _Station.of(t, c, horizon)
        high = station.service / station.speed + np.zeros(np.broadcast_shapes(station.shape, t.arrival_rate.shape))
        low = np.zeros_like(high)
        for _ in range(_BRACKETS):
            short = station.within(t.arrival_rate, high) < share
            if not short.any():
                break
            low, high = np.where(short, high, low), np.where(short, high * 4, high)
        # Halving the ratio's logarithm would need low > 0: most percentiles lie near their upper bracket anyway.
        for _ in range(44):
            middle = (low + high) / 2
            short = station.within(t.arrival_rate, middle) < share
            low, high = np.where(short, middle, low), np.where(short, high, middle)
        return high

    return _by_rows(invert, traffic, cpus)


def mean_wait(traffic: Traffic, cpus: ArrayLike, *, horizon: float = HORIZON) -> Array:
    """Mean seconds between a request's arrival and its start over the next `horizon` seconds, nobody turned away."""
    return _by_rows(lambda t, c: _Station.of(t, c, horizon).mean_wait(t.arrival_rate), traffic, cpus)


def dropped(traffic: Traffic, cpus: ArrayLike) -> Array:
    """Share of the requests that in the long run cannot be served: 1 - 1 / utilisation in overload, else 0."""

    def excess(t: _Columns, c: Array) -> Array:
        station = _Station.of(t, c, HORIZON)
        return 1 - 1 / np.maximum(station.utilisation(t.arrival_rate), 1)

    return _by_rows(excess, traffic, cpus)


def erlang_c(servers: ArrayLike, utilisation: ArrayLike) -> Array:
    """Probability that a request waits in M/M/m, m >= 1 servers, whole or not, at a utilisation; 1 from 1 on.

    Erlang's B is an incomplete gamma function of m (Jagerman 1974); this is the first term of its uniform asymptotic
    expansion (Temme 1979), as in Janssen, van Leeuwaarden and Zwart 2008, put into 1 / C = r + (1 - r) / B:

        1 / C = 1 + G (sqrt(m) (1 - r) Phi(z) / phi(z) + (1 - r) / y - 1),   z = sqrt(m) y,   y^2 / 2 = r - 1 - ln r

    with G = m! e^m / (m^m sqrt(2 pi m)) by Stirling's series. The error is at most 0.001 (m = 1), 0.00014 from m = 2
    and 0.00001 from m = 5 on; C falls in m at a fixed load and rises in the utilisation.
    """
    m, used = np.asarray(servers, dtype=np.float64), np.asarray(utilisation, dtype=np.float64)
    shape = np.broadcast_shapes(m.shape, used.shape)
    m, used = np.atleast_1d(m, used)
    return _erlang_c(np.sqrt(m), _stirling(m), 1 - used).reshape(shape)


def _stirling(servers: Array) -> Array:
    i = 1 / servers
    # The last coefficient takes the place of the rest of Stirling's series, exact at m = 1.
    series: Array = 1 + i * (1 / 12 + i * (1 / 288 - i * 0.0023680041))
    return series


def _erlang_c(root: Array, stirling: Array, spare: Array) -> Array:
    """Erlang's C by the square root of the servers, Stirling's series for them, and the spare capacity 1 - r."""
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
    z *= z
    z *= 0.5
    odds = np.exp(np.minimum(z, 600, out=z), out=z)
    odds *= math.sqrt(2 * math.pi)
    odds -= mills
    odds *= root * free
    odds += np.divide(free, y, out=y)
    odds -= 1
    odds *= stirling
    odds *= np.divide(np.maximum(spare, 0, out=y), free, out=free)
    odds += 1
    probability: Array = np.divide(1, odds, out=odds)
    return probability


@dataclass(frozen=True, slots=True)
class _Columns:
    """`Traffic` as arrays."""

    arrival_rate: Array
    service_time: Array
    service_cv: Array
    queue: Array
    parallel_fraction: Array
    arrival_cv: Array


@dataclass(frozen=True, slots=True)
class _Station:
    """What CPUs make of the traffic whatever its rate. Times without a unit are in services at the server's speed."""

    service: Array
    """Mean seconds of a service at speed 1."""
    speed: Array
    servers: Array
    least: Array
    """The shortest service."""
    phases: tuple[tuple[Array | float, Array], ...]
    """Above it: (share of the requests, mean of an exponential time)."""
    wait: Array
    """Mean wait times spare capacity, of those who wait (Allen and Cunneen)."""
    span: Array
    """The horizon."""
    backlog: Array | None
    """What the waiting queue delays the first newcomer by; None: nothing waits anywhere."""

    @classmethod
    def of(cls, traffic: _Columns, cpus: Array, horizon: float) -> _Station:
        service = np.minimum(np.maximum(traffic.service_time, _LEAST_SERVICE), _MOST_SERVICE)
        fraction = traffic.parallel_fraction
        capacity = np.minimum(cpus, _MOST_CPUS)
        if not (fraction == 1).all():
            capacity = capacity / np.maximum(1, fraction + (1 - fraction) * capacity)
        # One speed for all keeps what does not depend on the CPUs a column, which saves most of the exponentials.
        slow = (capacity < 1).any()
        speed = np.minimum(np.maximum(capacity, _LEAST_CPUS), 1) if slow else np.ones(1)
        servers = np.maximum(capacity, 1) if slow else capacity
        cv = np.minimum(traffic.service_cv, _MOST_CV)
        arrival_cv = np.minimum(traffic.arrival_cv, _MOST_CV)
        variability = np.maximum((arrival_cv * arrival_cv + cv * cv) / 2, _TINY)
        return cls(
            service=service,
            speed=speed,
            servers=servers,
            # A constant service is followed by next to nothing, so that it is over just before its mean.
            least=1 - np.minimum(np.maximum(cv, 1e-6), 1),
            phases=_phases(cv),
            wait=variability / servers,
            span=horizon * speed / service,
            backlog=np.minimum(traffic.queue, _MOST_QUEUE) / servers if traffic.queue.any() else None,
        )

    @property
    def shape(self) -> tuple[int, ...]:
        backlog = () if self.backlog is None else self.backlog.shape
        return np.broadcast_shapes(self.wait.shape, self.span.shape, self.least.shape, backlog)

    def utilisation(self, arrival_rate: Array) -> Array:
        """Fresh: the caller may write into it."""
        load = np.where(self.service > _LEAST_SERVICE, arrival_rate * self.service, 0)
        used = np.asarray(load / (self.servers * self.speed))
        return np.minimum(used, _MOST_UTILISATION, out=used)

    def within(self, arrival_rate: Array, latency: Array) -> Array:
        """What does not depend on the rate is worked out once for all scenarios of it (the leading axis)."""
        used = self.utilisation(arrival_rate)
        spare = np.subtract(1, used, out=used)
        relaxed = self._relaxed(spare, 4)
        waits = _erlang_c(np.sqrt(self.servers), _stirling(self.servers), spare)
        time = np.minimum(latency * self.speed / self.service, _MOST_TIME)
        rest = np.maximum(time - self.least, 0)
        share = np.zeros((1,) * spare.ndim)
        for weight, mean in self.phases:
            x = rest / mean
            served = np.exp(-x)
            # P(wait + service <= t) = P(service <= t) - C e^(-decay t) * service, whose exponentials meet at ratio 1.
            ratio = relaxed * (mean / self.wait)
            apart = 1 - ratio
            meeting = np.abs(apart) < 1e-6
            if meeting.any():
                ratio, apart = np.where(meeting, 1 - 1e-6, ratio), np.where(meeting, 1e-6, apart)
            late = ratio * -x
            np.exp(late, out=late)
            late -= served
            late /= apart
            late *= waits
            share = share + weight * (1 - served - late)
        if self.backlog is not None:
            slack = np.maximum(time - 1 - waits * self.wait / relaxed / 2, 0)
            late = np.minimum(np.maximum(self.backlog - slack, 0) / (relaxed * self.span), 1e30)
            share = share * (1 - late / np.sqrt(np.sqrt(np.sqrt(1 + np.square(np.square(late * late))))))
        return np.minimum(np.maximum(share, 0, out=share), 1, out=share)

    def mean_wait(self, arrival_rate: Array) -> Array:
        utilisation = self.utilisation(arrival_rate)
        spare = 1 - utilisation
        waits = _erlang_c(np.sqrt(self.servers), _stirling(self.servers), spare)
        root = self._root(spare, 8)
        mean = waits * np.where(spare >= 0, self.wait / root, self.span * root / 2)
        if self.backlog is not None:
            drained = np.maximum(spare, 0) * self.span
            rest = np.maximum(self.backlog - drained, 0)
            # The fluid queue falls from the backlog to the rest, in the share of the horizon that this takes.
            falling = np.minimum(self.backlog / np.maximum(drained, _TINY), 1)
            mean = mean + falling * (self.backlog + rest) / 2
        return mean * (self.service / self.speed)

    def _relaxed(self, spare: Array, factor: float) -> Array:
        """The spare capacity that takes the place of `spare` over a finite horizon."""
        edge = self.wait / self.span
        relaxed = self._root(spare, factor)
        over = spare < 0
        # The other root of the same equation, of which the two have the product a / H: no difference cancels.
        return np.divide(edge, relaxed, out=relaxed, where=over) if over.any() else relaxed

    def _root(self, spare: Array, factor: float) -> Array:
        """The relaxed spare capacity below full load; above it, wait / (span * root) is: no difference cancels."""
        root = spare * spare
        root = np.asarray(root + factor * self.wait / self.span)
        np.sqrt(root, out=root)
        root += np.abs(spare)
        root *= 0.5
        return root


def _phases(cv: Array) -> tuple[tuple[Array | float, Array], ...]:
    """Exponential parts of a service of mean 1, as (share, mean)."""
    steady = np.minimum(np.maximum(cv, 1e-8), 1)
    if (cv <= 1).all():
        return ((1.0, steady),)
    square = np.maximum(cv * cv, 1)
    rare = (1 - np.sqrt((square - 1) / (square + 1))) / 2
    return ((1 - rare, np.where(cv > 1, 0.5 / (1 - rare), steady)), (rare, np.where(cv > 1, 0.5 / rare, steady)))


def _by_rows(function: Callable[..., Array], traffic: Traffic, *others: ArrayLike, scenarios: int = 0) -> Array:
    """`function` of the columns and the other arrays, a few rows at a time.

    `scenarios`: so many are the leading axis of the arrival rates, which `function` takes away.
    """
    given = (
        traffic.arrival_rate,
        traffic.service_time,
        traffic.service_cv,
        traffic.queue,
        traffic.parallel_fraction,
        traffic.arrival_cv,
        *others,
    )
    arrays = [np.asarray(array, dtype=np.float64) for array in given]
    shape = np.broadcast_shapes(arrays[0].shape[1:] if scenarios else arrays[0].shape, *(a.shape for a in arrays[1:]))
    with np.errstate(over="ignore"):  # a product beyond the range of floats is then cut to the model's own range
        if math.prod(shape) * max(1, scenarios) <= _CHUNK or len(shape) < 2:
            return _call(function, arrays, shape, scenarios)
        answer = np.empty(shape)
        for rows in _chunks(shape, scenarios):
            some = (rows.stop - rows.start, *shape[1:])
            parts = [_rows(array, rows, len(shape)) for array in arrays]
            if scenarios:
                parts[0] = np.moveaxis(_rows(np.moveaxis(arrays[0], 0, -1), rows, len(shape) + 1), -1, 0)
            answer[rows] = _call(function, parts, some, scenarios)
    return answer


def _call(function: Callable[..., Array], arrays: list[Array], shape: tuple[int, ...], scenarios: int) -> Array:
    # Pipelines last: numpy then takes their constants over long runs instead of over the few CPUs of each.
    turned = [np.atleast_1d(array) if array.ndim < 2 else _turned(array) for array in arrays]
    if len(shape) > 1:
        turned = [array[:, None] if array.ndim == 1 and len(array) > 1 else array for array in turned]
    answer = function(_Columns(*turned[:6]), *turned[6:])
    if len(shape) < 2:
        return np.array(np.broadcast_to(answer, (*shape, 1)[:1]).reshape(shape))
    wanted = (*shape[:-2], shape[-1], shape[-2])
    return np.ascontiguousarray(_turned_view(np.broadcast_to(answer, wanted)))


def _turned_view(array: Array) -> Array:
    return array.swapaxes(-1, -2)


def _turned(array: Array) -> Array:
    return np.ascontiguousarray(array.swapaxes(-1, -2))


def _chunks(shape: tuple[int, ...], scenarios: int) -> Iterator[slice]:
    rows = max(1, _CHUNK // max(1, math.prod(shape[1:]) * max(1, scenarios)))
    return (slice(first, min(first + rows, shape[0])) for first in range(0, shape[0], rows))


def _rows(array: Array, rows: slice, dimensions: int) -> Array:
    return array[rows] if array.ndim == dimensions and array.shape[0] > 1 else array
