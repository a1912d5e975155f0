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
from numpy.typing import ArrayLike

from headgate.core.station import Array, Services, Station, stirling, waiting

HORIZON = 60.0
"""Seconds over which a queue grows or drains, unless told otherwise."""

_CHUNK = 8_192  # cells worked on at once: what the second-level cache holds of the temporary arrays
_FEW = 256  # up to so many pipelines picking some of them costs more than it saves
_BRACKETS = 100  # factors of 4: the whole range of times


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


@dataclass(frozen=True, slots=True, eq=False)
class Curves:
    """The expected share of requests in time of n pipelines as functions of their CPUs, to be asked many times.

    What does not depend on CPUs is worked out once: for few pipelines that is a good part of it.
    """

    services: Services
    rates: Array
    """Requests per second, s equally likely scenarios x 1 x n."""
    latency: Array
    """Seconds, n."""

    @classmethod
    def of(cls, rates: Array, traffic: Traffic, latency: Array, *, horizon: float = HORIZON) -> Curves:
        """Of n pipelines: `rates` n x s instead of the arrival rate of `traffic`, whose other columns are n or one."""
        services = _services(traffic, horizon, len(rates))
        return cls(services, np.ascontiguousarray(rates.T)[:, None, :], latency)

    def __call__(self, cpus: Array) -> Array:
        """The shares at n x k CPUs, n x k."""
        n, k = cpus.shape
        answer = np.empty((k, n))
        # Pipelines last: numpy then takes their constants over long runs instead of over the few CPUs of each.
        across = np.ascontiguousarray(cpus.T)
        size = max(1, _CHUNK // max(1, k * len(self.rates)))
        with np.errstate(over="ignore"):  # a product beyond the range of floats is then cut to the model's own range
            for first in range(0, n, size):
                some = slice(first, first + size)
                services = self.services if size >= n else self.services.only(some)
                station = Station.of(services, self.rates[..., some], across[:, some])
                answer[:, some] = _mean(station.within(self.latency[some]))
        return np.ascontiguousarray(answer.T)


def within(traffic: Traffic, cpus: ArrayLike, latency: ArrayLike, *, horizon: float = HORIZON) -> Array:
    """Share of the next `horizon` seconds' requests that answer within `latency` seconds, 0 to 1."""
    return _by_rows(lambda station, latency: station.within(latency), traffic, horizon, cpus, latency)


def percentile(traffic: Traffic, cpus: ArrayLike, percent: float, *, horizon: float = HORIZON) -> Array:
    """The latency in seconds that `percent` % of the next `horizon` seconds' requests do not exceed.

    The inverse of `within`, by bisection to 1 part in 10^12. Raises ValueError unless 0 < percent < 100.
    """
    if not 0 < percent < 100:
        raise ValueError(f"percentile {percent} is not above 0 and below 100")
    share = percent / 100

    def invert(station: Station) -> Array:
        high = station.services.time / station.speed + np.zeros(station.shape)
        low = np.zeros_like(high)
        for _ in range(_BRACKETS):
            short = station.within(high) < share
            if not short.any():
                break
            low, high = np.where(short, high, low), np.where(short, high * 4, high)
        # Halving the ratio's logarithm would need low > 0: most percentiles lie near their upper bracket anyway.
        for _ in range(44):
            middle = (low + high) / 2
            short = station.within(middle) < share
            low, high = np.where(short, middle, low), np.where(short, high, middle)
        return high

    return _by_rows(invert, traffic, horizon, cpus)


def mean_wait(traffic: Traffic, cpus: ArrayLike, *, horizon: float = HORIZON) -> Array:
    """Mean seconds between a request's arrival and its start over the next `horizon` seconds, nobody turned away."""
    return _by_rows(lambda station: station.mean_wait(), traffic, horizon, cpus)


def dropped(traffic: Traffic, cpus: ArrayLike) -> Array:
    """Share of the requests that in the long run cannot be served: 1 - 1 / utilisation in overload, else 0."""
    return _by_rows(lambda station: 1 - 1 / np.maximum(1 - station.spare, 1), traffic, HORIZON, cpus)


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
    return waiting(np.sqrt(m), stirling(m), 1 - used).reshape(shape)


def _mean(shares: Array) -> Array:
    return np.asarray(shares[0] if len(shares) == 1 else np.add.reduce(shares, axis=0) / len(shares))


def _services(traffic: Traffic, horizon: float, pipelines: int) -> Services:
    columns = (traffic.service_time, traffic.service_cv, traffic.queue, traffic.parallel_fraction, traffic.arrival_cv)
    time, cv, *others = [np.asarray(column, dtype=np.float64) for column in columns]
    return Services.of(horizon, time, cv, *others, pipelines_last=cv.shape == (pipelines,) and pipelines > _FEW)


def _by_rows(
    function: Callable[..., Array], traffic: Traffic, horizon: float, cpus: ArrayLike, *others: ArrayLike
) -> Array:
    """`function` of the stations and the other arrays, a few rows of the leading axis at a time."""
    given = (
        traffic.arrival_rate,
        cpus,
        traffic.service_time,
        traffic.service_cv,
        traffic.queue,
        traffic.parallel_fraction,
        traffic.arrival_cv,
        *others,
    )
    arrays = [np.atleast_1d(np.asarray(array, dtype=np.float64)) for array in given]
    shape = np.broadcast_shapes(*(np.shape(array) for array in given))
    answer = np.empty(shape or (1,))
    with np.errstate(over="ignore"):
        for rows in _chunks(answer.shape):
            rates, capacity, *columns = (_rows(array, rows, answer.shape) for array in arrays)
            station = Station.of(Services.of(horizon, *columns[:5]), rates, capacity)
            answer[rows] = function(station, *columns[5:])
    return answer.reshape(shape)


def _chunks(shape: tuple[int, ...]) -> Iterator[slice]:
    rows = max(1, _CHUNK // max(1, math.prod(shape[1:])))
    return (slice(first, first + rows) for first in range(0, shape[0], rows))


def _rows(array: Array, rows: slice, shape: tuple[int, ...]) -> Array:
    return array[rows] if array.ndim == len(shape) and array.shape[0] > 1 else array
