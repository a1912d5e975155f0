"""A compressed day of open-loop traffic: the total is about constant, the regions' shares swing, one region floods.

Everything is drawn before the first request is sent, from a seed, so that every run plays the same traffic.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

PEAK = 0.7
"""The largest share of a region; with three regions the smallest is then 0.10."""
_GRID = 0.005


@dataclass(frozen=True, slots=True)
class Flood:
    """One region's load on top of the day, from `start` to `end` seconds."""

    region: int
    start: float
    end: float
    cpus: float
    """Offered load on top of the day's, in CPUs."""

    def covers(self, times: Array) -> npt.NDArray[np.bool_]:
        """Which of the `times` are inside."""
        return (times >= self.start) & (times < self.end)


@dataclass(frozen=True, slots=True)
class Day:
    """What each region offers at each moment."""

    seconds: float
    costs: tuple[float, ...]
    """CPU seconds of one request of each region."""
    cpus: float
    """Offered load of all regions together, flood aside."""
    flood: Flood

    def shares(self, times: Array) -> Array:
        """Each region's share of the load, shape (regions, times); sums to 1.

        A softmax of cosines a third of a day apart. At a region's peak its cosine is 1 and the others' is
        cos(2 pi / n), so the steepness that makes the peak's share p is ln(p (n - 1) / (1 - p)) / (1 - cos(2 pi / n)).
        """
        count = len(self.costs)
        if count == 1:
            return np.ones((1, len(times)))
        angle = 2 * math.pi / count
        steepness = math.log(PEAK * (count - 1) / (1 - PEAK)) / (1 - math.cos(angle))
        phases = np.arange(count)[:, None] * angle
        powers = np.exp(steepness * np.cos(2 * math.pi * times[None, :] / self.seconds - phases))
        shares: Array = powers / powers.sum(axis=0)
        return shares

    def offered(self, times: Array) -> Array:
        """Each region's offered load in CPUs, shape (regions, times), the flood included."""
        loads = self.shares(times) * self.cpus
        loads[self.flood.region] += self.flood.cpus * self.flood.covers(times)
        return loads


@dataclass(frozen=True, slots=True)
class Schedule:
    """When to send what, in order of time. The arrays have one entry for each request."""

    times: Array
    """Seconds since the start of the run."""
    regions: npt.NDArray[np.int64]
    variants: npt.NDArray[np.int64]
    """Which of the region's prepared requests."""


def compressed_day(seconds: float, costs: tuple[float, ...], budget: float, *, level: float, flood: float) -> Day:
    """A day of `seconds` at `level` (a share of the budget of `budget` CPUs) in total.

    At the peak of the second region (one third of the day on), for a seventh of the day, that region alone offers
    `flood` times the budget.
    """
    region = 1 if len(costs) > 1 else 0
    centre, half = seconds * region / len(costs), seconds / 14
    extra = max(0.0, flood * budget - PEAK * level * budget)
    return Day(seconds, costs, level * budget, Flood(region, centre - half, centre + half, extra))


def draw(day: Day, variants: int, seed: int) -> Schedule:
    """Poisson arrivals at the day's rates: for each region an inhomogeneous Poisson process.

    Given their number, its arrival times are independent, with the rate as density (inverted here on a grid of 5 ms).
    """
    random = np.random.default_rng(seed)
    edges = np.linspace(0.0, day.seconds, max(2, round(day.seconds / _GRID) + 1))
    middles = (edges[1:] + edges[:-1]) / 2
    rates = day.offered(middles) / np.array(day.costs)[:, None]
    times, regions = [], []
    for region, rate in enumerate(rates):
        expected = np.concatenate([[0.0], np.cumsum(rate * np.diff(edges))])
        count = random.poisson(expected[-1])
        times.append(np.interp(random.uniform(0.0, expected[-1], count), expected, edges))
        regions.append(np.full(count, region))
    when, which = np.concatenate(times), np.concatenate(regions)
    order = np.argsort(when, kind="stable")
    return Schedule(when[order], which[order], random.integers(variants, size=len(when)))
