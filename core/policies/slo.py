"""The policy for pipelines with SLOs: CPUs go where they bring the most expected utility."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from headgate.core.filling import fill, step_below
from headgate.core.knapsack import MOST_ROWS, choose
from headgate.core.laminar import Floats, Ints
from headgate.core.policies.base import Division
from headgate.core.policies.shares import needed
from headgate.core.pricing import Pick, take
from headgate.core.problem import Problem
from headgate.core.tables import finer, grid, moved
from headgate.core.units import MILLI, format_duration
from headgate.core.utility import InTime, Utility, in_time

Number = TypeVar("Number", np.int64, np.float64)

WORTHLESS = 1e-7
"""Utility per CPU below which CPUs are shared in proportion to load instead."""

GAP = 0.01
"""Utility that greedy may have left on the table before few pipelines are divided exactly."""

ROUNDS = 2
REPAIRS = 6
"""How often what a jump that does not fit leaves over is handed to others."""
FAIR_ROUNDS = 4
"""How often a table is made finer at the most."""


@dataclass(frozen=True, slots=True)
class Objective:
    """How the utilities of several pipelines become one aim."""

    name: str
    worth: Callable[[Floats], Floats]
    """Of a utility of 0 to 1; rising."""
    fair: bool = False
    """The lowest first, instead of the largest sum."""


def _itself(utility: Floats) -> Floats:
    return utility


def _dear_when_low(utility: Floats) -> Floats:
    return utility - np.square(1 - utility)


SUM = Objective("sum", _itself)
FAIR = Objective("fair", _itself, fair=True)
FAIRSUM = Objective("fairsum", _dear_when_low)


@dataclass(frozen=True, slots=True)
class SloPolicy:
    """Divides by expected utility U.

    sum: the largest weighted sum of U. fair: the lowest first (max-min, in lexicographic order), where a weight w
    counts a shortfall of 1 - U as w (1 - U). fairsum: the largest weighted sum of U - (1 - U)^2, in which a gain of a
    pipeline that has nothing counts three times as much as that of one that has nearly all.

    Priority classes: a higher one is satisfied first, which is here up to its SLO (without one: its offered load).
    What is left when nobody gains any more stays where it is if moves cost something, and is shared in proportion to
    weight x load.
    """

    objective: Objective = SUM
    utility: Utility = field(default_factory=InTime)
    name: str = "slo"

    def divide(self, problem: Problem) -> Division:
        """The objective is the sum, with weights scaled to a mean of 1, of the pipelines with known demand.

        For fair it is 1 - the largest shortfall, weighted so.
        """
        limits, space = problem.limits, problem.space
        weight = limits.weight / limits.weight.mean() if len(limits) else limits.weight
        grants = limits.floor
        rows = np.flatnonzero((limits.ceiling > grants) & (problem.load > 0))
        classes = np.unique(limits.priority[rows])[::-1]
        if len(classes) > 1:
            for priority in classes:
                some = rows[limits.priority[rows] == priority]
                grants = self._take(problem, weight, grants, some, satisfied(problem, some))
        grants = self._take(problem, weight, grants, rows, limits.ceiling[rows])
        if problem.calm:
            kept = np.clip(problem.current, grants, limits.ceiling)
            grants = fill(limits, space, grants, kept, np.where(kept > grants, weight, 0.0))
        grants = fill(limits, space, grants, limits.ceiling, weight * problem.load)
        grants = fill(limits, space, grants, limits.ceiling, np.where(problem.load > 0, 0.0, weight))
        return self._report(problem, weight, grants)

    def explain(self, problem: Problem, division: Division, index: int) -> str:
        """Its expected share of requests in time, now and with one more CPU."""
        if problem.load[index] <= 0:
            return "idle: shares by weight what the load leaves"
        here = division.grants[index] + np.array([[0, MILLI]])
        now, more = in_time(problem, np.array([index]), here)[0].tolist()
        limits = problem.limits
        if np.isnan(limits.latency[index]):
            return f"{now:.1%} of its load is served, {more:.1%} with one more CPU; it has no SLO"
        wanted = f"{limits.percentile[index]:g} % within {format_duration(float(limits.latency[index]))}"
        return f"{now:.1%} of its requests are expected in time (SLO: {wanted}), {more:.1%} with one more CPU"

    def _take(self, problem: Problem, weight: Floats, grants: Ints, rows: Ints, high: Ints) -> Ints:
        """Greedy from `grants` for the pipelines `rows` up to `high`, on tables that get finer around the answer."""
        low = grants[rows]
        most = step_below(problem.limits, grants + problem.space.slack(grants), grants)
        high = np.minimum(high, most[rows])
        useful = high > low
        rows, low, high = rows[useful], low[useful], high[useful]
        if not len(rows):
            return grants
        now = None
        if problem.calm:
            current = np.maximum(problem.current[rows], 0)
            now = self.utility(problem, rows, current[:, None])[:, 0]
        table, complete = grid(problem, rows, low, high)
        rank, everyone = problem.limits.rank, np.arange(len(rows))
        grants = grants.copy()
        rounds = FAIR_ROUNDS if self.objective.fair else ROUNDS
        values = moved(problem, rows, table, self.utility(problem, rows, table), now)
        for round_ in range(rounds + 1):
            grants[rows] = low
            pick, highest = self._pick(weight[rows], table, values)
            last = complete or round_ == rounds
            taken = take(problem.space, grants, rows, rank, table, pick, highest, REPAIRS if last else 1)
            column = taken.column
            if taken.unused > GAP and len(rows) <= MOST_ROWS and not (self.objective.fair or problem.space.cuts):
                worth = weight[rows, None] * self.objective.worth(values)
                exact = choose(problem.space.tree, rows, grants, table, worth)
                if worth[everyone, exact].sum() > worth[everyone, column].sum():
                    column = exact
            grants[rows] = table[everyone, column]
            more = None if last else finer(problem, rows, table, grants[rows], high)
            if more is None:
                break
            added = moved(problem, rows, more, self.utility(problem, rows, more), now)
            table, values = np.concatenate((table, more), axis=1), np.concatenate((values, added), axis=1)
        return grants

    def _pick(self, weight: Floats, table: Ints, values: Floats) -> tuple[Pick, float]:
        """What a pipeline takes at a price, and the price at which nobody takes anything."""
        if self.objective.fair:
            shortfall = weight[:, None] * (1 - values)
            # Who cannot get below the price at all takes what brings it nearest.
            least = np.where(shortfall <= shortfall.min(axis=1, keepdims=True), table, table.max()).min(axis=1)
            shortfall = np.where(table >= least[:, None], 0.0, shortfall)

            def nearest(rows: Ints, price: Floats) -> Ints:
                enough = _rows(shortfall, rows) <= np.maximum(price, WORTHLESS)[:, None]
                column: Ints = np.where(enough, _rows(table, rows), 2**52).argmin(axis=1)
                return column

            return nearest, float(shortfall.max()) + WORTHLESS
        worth = weight[:, None] * self.objective.worth(values)
        millicores = table.astype(np.float64)

        def best(rows: Ints, price: Floats) -> Ints:
            surplus = _rows(worth, rows) - np.maximum(price, WORTHLESS / MILLI)[:, None] * _rows(millicores, rows)
            column: Ints = surplus.argmax(axis=1)
            return column

        rise = worth.max(axis=1) - worth[:, 0]
        size = np.maximum(millicores - millicores[:, :1], 1.0)
        return best, float(((worth - worth[:, :1]) / size).max() * 1.001 + 1e-300) if rise.any() else 1.0

    def _report(self, problem: Problem, weight: Floats, grants: Ints) -> Division:
        known = problem.wants.known
        rows = np.flatnonzero(known & (problem.load > 0))
        values = np.where(known, 1.0, 0.0)
        price = np.zeros(len(grants))
        if len(rows):
            both = self.utility(problem, rows, grants[rows, None] + np.array([0, MILLI]))
            values[rows], price[rows] = both[:, 0], both[:, 1] - both[:, 0]
        if self.objective.fair:
            objective = 1 - float((weight * (1 - values))[known].max(initial=0.0))
        else:
            objective = float((weight * self.objective.worth(values))[known].sum())
        return Division(grants, objective, price)


def _rows(table: npt.NDArray[Number], rows: Ints) -> npt.NDArray[Number]:
    return table if len(rows) == len(table) else table[rows]


def satisfied(problem: Problem, rows: Ints) -> Ints:
    """The least grants with which the pipelines `rows` are expected to meet their SLO; without one, their load."""
    limits = problem.limits
    low: Ints = limits.floor[rows]
    high: Ints = limits.ceiling[rows]
    target = np.where(np.isnan(limits.percentile[rows]), 1.0, limits.percentile[rows] / 100)
    enough = needed(problem.load[rows])
    bound = ~np.isnan(limits.latency[rows])
    while ((high - low > limits.step[rows]) & bound).any():
        middle = (low + high) // 2
        meets = in_time(problem, rows, middle[:, None])[:, 0] >= target
        low, high = np.where(meets, low, middle), np.where(meets, middle, high)
    least = np.where(bound, high, enough)
    step = limits.step[rows]
    whole: Ints = -(-least // step) * step
    return np.clip(whole, limits.floor[rows], limits.ceiling[rows])
