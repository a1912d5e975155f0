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

    def mean(t: _Columns, c: Array, x: Array, *scenarios: Array) -> Array:
        station = _Station.of(t, c, horizon)
        total = station.within(scenarios[0], x)
        for rate in scenarios[1:]:
            total += station.within(rate, x)
        return total / len(scenarios)

    return _by_rows(mean, traffic, cpus, latency, *rates, rates=False)


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
    return _erlang_c(np.asarray(servers, dtype=np.float64), np.asarray(utilisation, dtype=np.float64))


def _erlang_c(servers: Array, utilisation: Array) -> Array:
    below = np.minimum(utilisation, 1)
    spare = 1 - below
    # (r - 1 - ln r) / (spare^2 / 2): by its series near r = 1, where the difference would cancel.
    near = spare < 1e-4
    cut = np.where(near, 0.5, np.maximum(below, _TINY))
    far = 1 - cut
    bend = np.where(near, 1 + spare * (2 / 3 + spare / 2), (far + np.log(cut)) / (far * far) * -2)
    slope = np.sqrt(bend)
    root = np.sqrt(servers) * spare
    z = root * slope
    # Mills' ratio (1 - Phi) / phi by Zelen and Severo's 26.2.16 (Abramowitz and Stegun 1964), error 1e-5 of phi.
    t = 1 / (1 + 0.33267 * z)
    mills = t * (0.4361836 + t * (-0.1201676 + t * 0.9372980))
    odds = np.exp(np.minimum(z * z * 0.5, 600)) * math.sqrt(2 * math.pi) - mills
    i = 1 / servers
    # The last coefficient takes the place of the rest of Stirling's series, exact at m = 1.
    stirling = 1 + i * (1 / 12 + i * (1 / 288 - i * 0.0023680041))
    probability: Array = np.minimum(1 / (1 + stirling * (root * odds + (1 / slope - 1))), 1)
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
        speed = np.minimum(np.maximum(capacity, _LEAST_CPUS), 1) if slow else np.ones(())
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
        load = np.where(self.service > _LEAST_SERVICE, arrival_rate * self.service, 0)
        return np.minimum(load / (self.servers * self.speed), _MOST_UTILISATION)

    def within(self, arrival_rate: Array, latency: Array) -> Array:
        utilisation = self.utilisation(arrival_rate)
        spare = 1 - utilisation
        root = self._root(spare, 4)
        waits = _erlang_c(self.servers, utilisation)
        decay = np.where(spare >= 0, root / self.wait, 1 / (self.span * root))
        time = np.minimum(latency * self.speed / self.service, _MOST_TIME)
        rest = np.maximum(time - self.least, 0)
        share: Array | float = 0.0
        for weight, mean in self.phases:
            x = rest / mean
            served = np.exp(-x)
            # P(wait + service <= t) = P(service <= t) - C e^(-decay t) * service, whose exponentials meet at ratio 1.
            ratio = mean * decay
            ratio = np.where(np.abs(1 - ratio) < 1e-6, 1 - 1e-6, ratio)
            share = share + weight * (1 - served - waits * ((np.exp(-ratio * x) - served) / (1 - ratio)))
        if self.backlog is not None:
            slack = np.maximum(time - 1 - waits / decay / 2, 0)
            relaxed = np.where(spare >= 0, root, self.wait / (self.span * root))
            late = np.minimum(np.maximum(self.backlog - slack, 0) / (relaxed * self.span), 1e30)
            share = share * (1 - late / np.sqrt(np.sqrt(np.sqrt(1 + np.square(np.square(late * late))))))
        return np.minimum(np.maximum(share, 0), 1)

    def mean_wait(self, arrival_rate: Array) -> Array:
        utilisation = self.utilisation(arrival_rate)
        spare = 1 - utilisation
        root = self._root(spare, 8)
        mean = _erlang_c(self.servers, utilisation) * np.where(spare >= 0, self.wait / root, self.span * root / 2)
        if self.backlog is not None:
            drained = np.maximum(spare, 0) * self.span
            rest = np.maximum(self.backlog - drained, 0)
            # The fluid queue falls from the backlog to the rest, in the share of the horizon that this takes.
            falling = np.minimum(self.backlog / np.maximum(drained, _TINY), 1)
            mean = mean + falling * (self.backlog + rest) / 2
        return mean * (self.service / self.speed)

    def _root(self, spare: Array, factor: float) -> Array:
        """The relaxed spare capacity below full load; above it, wait / (span * root) is: no difference cancels."""
        return (np.abs(spare) + np.sqrt(spare * spare + factor * self.wait / self.span)) / 2


def _phases(cv: Array) -> tuple[tuple[Array | float, Array], ...]:
    """Exponential parts of a service of mean 1, as (share, mean)."""
    steady = np.minimum(np.maximum(cv, 1e-8), 1)
    if (cv <= 1).all():
        return ((1.0, steady),)
    square = np.maximum(cv * cv, 1)
    rare = (1 - np.sqrt((square - 1) / (square + 1))) / 2
    return ((1 - rare, np.where(cv > 1, 0.5 / (1 - rare), steady)), (rare, np.where(cv > 1, 0.5 / rare, steady)))


def _by_rows(function: Callable[..., Array], traffic: Traffic, *others: ArrayLike, rates: bool = True) -> Array:
    """`function` of the columns and the other arrays, a few rows of the leading axis at a time."""
    given = (
        traffic.arrival_rate if rates else 0.0,
        traffic.service_time,
        traffic.service_cv,
        traffic.queue,
        traffic.parallel_fraction,
        traffic.arrival_cv,
        *others,
    )
    arrays = [np.asarray(array, dtype=np.float64) for array in given]
    shape = np.broadcast_shapes(*(array.shape for array in arrays))
    with np.errstate(over="ignore"):  # a product beyond the range of floats is then cut to the model's own range
        if math.prod(shape) <= _CHUNK or len(shape) < 2:
            answer = _call(function, arrays)
            return np.array(answer if answer.shape == shape else np.broadcast_to(answer, shape), order="C")
        answer = np.empty(shape)
        for rows in _chunks(shape):
            answer[rows] = _call(function, [_rows(array, rows, shape) for array in arrays])
    return answer


def _call(function: Callable[..., Array], arrays: list[Array]) -> Array:
    # Columns first: numpy then broadcasts a pipeline's constants over long runs instead of over its few CPUs.
    across = [array.T.copy().T if array.ndim > 1 and array.shape[-1] > 1 else array for array in arrays]
    return function(_Columns(*across[:6]), *across[6:])


def _chunks(shape: tuple[int, ...]) -> Iterator[slice]:
    rows = max(1, _CHUNK // max(1, math.prod(shape[1:])))
    return (slice(first, first + rows) for first in range(0, shape[0], rows))


def _rows(array: Array, rows: slice, shape: tuple[int, ...]) -> Array:
    return array[rows] if array.ndim == len(shape) and array.shape[0] > 1 else array
