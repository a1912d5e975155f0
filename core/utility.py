"""What CPUs are worth to a pipeline: utilities between 0 and 1 that never fall with more CPUs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from headgate.core.laminar import Floats, Ints
from headgate.core.problem import Problem
from headgate.core.queueing import Traffic, expected_within
from headgate.core.units import MILLI


class Utility(Protocol):
    """Worth of grants."""

    def __call__(self, problem: Problem, rows: Ints, grants: Ints) -> Floats:
        """For the pipelines `rows` (m) with `grants` (m x k millicores): m x k values, 0 to 1, rising along a row."""
        ...


def in_time(problem: Problem, rows: Ints, grants: Ints) -> Floats:
    """The expected share of requests within the SLO, the mean over the scenarios; those dropped count as late.

    Without an SLO: the expected share of the load that is served, min(1, CPUs / load).
    """
    limits, wants = problem.limits, problem.wants
    latency = limits.latency[rows]
    bound = ~np.isnan(latency)
    if bound.all():
        return _within(problem, rows, grants)
    share = np.empty(grants.shape)
    share[bound] = _within(problem, rows[bound], grants[bound])
    free = rows[~bound]
    load = np.maximum(wants.arrivals[free] * wants.service_time[free, None], 1e-12)
    served = np.minimum(1.0, grants[~bound][:, :, None] / (MILLI * load[:, None, :]))
    share[~bound] = served.mean(axis=2)
    return share


def _within(problem: Problem, rows: Ints, grants: Ints) -> Floats:
    wants, limits = problem.wants, problem.limits
    traffic = Traffic(
        arrival_rate=wants.arrivals[rows].T[:, :, None],
        service_time=wants.service_time[rows, None],
        service_cv=wants.service_cv[rows, None],
        queue=wants.queue[rows, None],
        parallel_fraction=limits.parallel[rows, None],
    )
    return expected_within(traffic, grants / MILLI, limits.latency[rows, None])


@dataclass(frozen=True, slots=True)
class InTime:
    """The share of requests within the SLO, blended with how near its percentile is to the SLO.

    The second part is min(1, SLO latency / percentile latency) where the latency's tail is exponential: with a share m
    too late and m0 = 1 - percentile allowed, min(1, ln m / ln m0). It makes the last few late requests count, which
    the share hardly sees, and stops at the SLO. `tail` is its part, 0 to 1: none by default, because in a simulation
    of a minute the share alone is nearer to the percentile's own utility than this (the tail falls too early).
    """

    tail: float = 0.0

    def __call__(self, problem: Problem, rows: Ints, grants: Ints) -> Floats:
        """The blend."""
        share = in_time(problem, rows, grants)
        if not self.tail:
            return share
        percentile = problem.limits.percentile[rows]
        allowed = np.where(np.isnan(percentile), 0.05, 1 - percentile / 100)[:, None]
        late = np.maximum(1 - share, 1e-300)
        near = np.minimum(1.0, np.log(late) / np.log(allowed))
        return (1 - self.tail) * share + self.tail * near
