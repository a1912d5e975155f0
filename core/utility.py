"""What CPUs are worth to a pipeline: utilities between 0 and 1 that never fall with more CPUs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from headgate.core.laminar import Floats, Ints
from headgate.core.problem import Problem
from headgate.core.queueing import Curves, Traffic
from headgate.core.units import MILLI

Curve = Callable[[Ints], Floats]
"""For m pipelines: from m x k millicores to m x k values between 0 and 1, rising along a row."""


class Utility(Protocol):
    """Worth of grants."""

    def __call__(self, problem: Problem, rows: Ints) -> Curve:
        """For the pipelines `rows` (m), to be asked as often as one likes."""
        ...


def in_time(problem: Problem, rows: Ints) -> Curve:
    """The expected share of requests within the SLO, the mean over the scenarios; those dropped count as late.

    Without an SLO: the expected share of the load that is served, min(1, CPUs / load).
    """
    bound = ~np.isnan(problem.limits.latency[rows])
    if bound.all():
        return _within(problem, rows)
    late, served = _within(problem, rows[bound]), _served(problem, rows[~bound])

    def either(grants: Ints) -> Floats:
        share = np.empty(grants.shape)
        share[bound], share[~bound] = late(grants[bound]), served(grants[~bound])
        return share

    return either


def _within(problem: Problem, rows: Ints) -> Curve:
    wants, limits = problem.wants, problem.limits
    traffic = Traffic(
        arrival_rate=0.0,
        service_time=wants.service_time[rows],
        service_cv=wants.service_cv[rows],
        queue=wants.queue[rows],
        parallel_fraction=limits.parallel[rows],
        arrival_cv=wants.arrival_cv[rows] if isinstance(wants.arrival_cv, np.ndarray) else wants.arrival_cv,
    )
    curves = Curves.of(wants.arrivals[rows], traffic, limits.latency[rows])
    return lambda grants: curves(grants / MILLI)


def _served(problem: Problem, rows: Ints) -> Curve:
    load = np.maximum(problem.wants.arrivals[rows] * problem.wants.service_time[rows, None], 1e-12) * MILLI

    def share(grants: Ints) -> Floats:
        return np.asarray(np.minimum(1.0, grants[:, :, None] / load[:, None, :]).mean(axis=2))

    return share


@dataclass(frozen=True, slots=True)
class InTime:
    """The share of requests within the SLO, blended with how near its percentile is to the SLO.

    The second part is min(1, SLO latency / percentile latency) where the latency's tail is exponential: with a share m
    too late and m0 = 1 - percentile allowed, min(1, ln m / ln m0). It makes the last few late requests count, which
    the share hardly sees, and stops at the SLO. `tail` is its part, 0 to 1: none by default, because in a simulation
    of a minute the share alone is nearer to the percentile's own utility than this (the tail falls too early).
    """

    tail: float = 0.0

    def __call__(self, problem: Problem, rows: Ints) -> Curve:
        """The blend."""
        share = in_time(problem, rows)
        if not self.tail:
            return share
        percentile = problem.limits.percentile[rows]
        allowed = np.log(np.where(np.isnan(percentile), 0.05, 1 - percentile / 100))[:, None]

        def blend(grants: Ints) -> Floats:
            early = share(grants)
            near = np.minimum(1.0, np.log(np.maximum(1 - early, 1e-300)) / allowed)
            return np.asarray((1 - self.tail) * early + self.tail * near)

        return blend


@dataclass(frozen=True, slots=True)
class Shedding:
    """The share of requests within the SLO where the host refuses early what would miss it.

    Without that an overloaded pipeline answers hardly anything in time, and its CPUs are better spent elsewhere. With
    it the requests that are let in are in time, nearly all of those that there are CPUs for: a grant is worth at least
    `share` of the requests that it can serve, and there is no knee to give a pipeline up for.
    """

    share: float = 0.95

    def __call__(self, problem: Problem, rows: Ints) -> Curve:
        """The larger of the two."""
        timely, served = in_time(problem, rows), _served(problem, rows)
        return lambda grants: np.maximum(timely(grants), self.share * served(grants))
