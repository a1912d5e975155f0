"""The policy for pipelines with SLOs: CPUs go where they bring the most expected utility."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from headgate.core.filling import fill, step_below
from headgate.core.knapsack import MOST_ROWS, improved
from headgate.core.laminar import Floats, Ints
from headgate.core.paths import Paths, by_shortfall, by_slope
from headgate.core.policies.base import Division, classes_of
from headgate.core.policies.shares import needed
from headgate.core.pricing import take
from headgate.core.problem import Problem
from headgate.core.tables import SOME, Near, ample, evenly, expected, finer, grid, last_step, level_with, merged, moved
from headgate.core.units import MILLI, format_duration
from headgate.core.utility import Curve, InTime, Utility, in_time

WORTHLESS = 1e-7
"""Utility per CPU below which CPUs are shared in proportion to load instead."""

GAP = 1e-3
"""Utility of each pipeline that greedy may have left on the table before anything else is tried."""

WIDE = 1e-2
"""The same, for looking at grants that are evenly apart too: a coarse grid may lack those that would fit."""

SMALL = 1e-3
"""Utility of each pipeline that is too little to make a table finer a second time."""

REMAINS = 1 / 3
"""Of what a table leaves out, what a finer one still does, at the most: measured on random instances."""

ROUNDS = 3
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


STEEPEST = 3.0
"""By how much more than a utility the worth of it rises at the most."""

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
    doubt: float = 1.0
    """Share of the price of moves that is asked. The price is made for knees, where what is missing costs all at once;
    a utility that falls little by little never falls by so much, and much would be missing all the time."""

    def divide(self, problem: Problem) -> Division:
        """The objective is the sum, with weights scaled to a mean of 1, of the pipelines with known demand.

        For fair it is 1 - the largest shortfall, weighted so.
        """
        if self.doubt != 1:
            problem = replace(problem, price=problem.price * self.doubt)
        limits, space = problem.limits, problem.space
        weight = limits.weight / limits.weight.mean() if len(limits) else limits.weight
        found = _Found.floors(problem)
        rows = np.flatnonzero((limits.ceiling > limits.floor) & (problem.load > 0))
        classes = classes_of(limits.priority[rows])
        if len(classes) > 1:
            for priority in classes:
                some = rows[limits.priority[rows] == priority]
                found = self._take(problem, weight, found, some, satisfied(problem, some), small=0.0)
        found = self._take(problem, weight, found, rows, limits.ceiling[rows])
        grants = found.grants
        if problem.calm:
            kept = np.clip(problem.current, grants, limits.ceiling)
            grants = fill(limits, space, grants, kept, np.where(kept > grants, weight, 0.0))
        loaded = problem.load > 0
        grants = fill(limits, space, grants, limits.ceiling, weight * problem.load)
        if not loaded.all():
            grants = fill(limits, space, grants, limits.ceiling, np.where(loaded, 0.0, weight))
        return self._report(problem, weight, found if len(classes) < 2 else replace(found, bound=None), grants)

    def explain(self, problem: Problem, division: Division, index: int) -> str:
        """Its expected share of requests in time, now and with one more CPU."""
        if problem.load[index] <= 0:
            return "idle: shares by weight what the load leaves"
        here = division.grants[index] + np.array([[0, MILLI]])
        now, more = in_time(problem, np.array([index]))(here)[0].tolist()
        limits = problem.limits
        if np.isnan(limits.latency[index]):
            why = "no SLO can be judged" if problem.wants.by_cpu[index] else "it has no SLO"
            return f"{now:.1%} of its load is served, {more:.1%} with one more CPU; {why}"
        wanted = f"{limits.percentile[index]:g} % within {format_duration(float(limits.latency[index]))}"
        return f"{now:.1%} of its requests are expected in time (SLO: {wanted}), {more:.1%} with one more CPU"

    def _take(
        self, problem: Problem, weight: Floats, found: _Found, rows: Ints, high: Ints, small: float = SMALL
    ) -> _Found:
        """Greedy from `found` for the pipelines `rows` up to `high`, on tables that get finer around the answer.

        `small`: utility of each pipeline that is too little for a second finer table. Nothing is, where a lower class
        gets what this one leaves.
        """
        grants, space = found.grants.copy(), problem.space
        rows, low, high = _growing(problem, grants, rows, high)
        if not len(rows):
            return found
        curve = self.utility(problem, rows)
        table, complete = grid(problem, rows, low, high)
        table, utility, now = self._look(problem, rows, curve, table, weight if complete else None)
        everyone = np.arange(len(rows))
        least = WORTHLESS if self.objective.fair else WORTHLESS / MILLI
        shares = weight[rows, None]
        few = len(rows) <= MOST_ROWS
        rounds = ROUNDS - (self.objective.fair and not few)
        close = even = False
        for left in range(rounds, -2, -1):
            last = complete or left <= 0 or close
            # What is left over says nothing of where the lowest levels meet.
            final = last or (not self.objective.fair and (few or left < rounds))
            grants[rows] = low
            paths, worth = self._paths(shares, table, moved(problem, rows, table, utility, now))
            gap = GAP * len(rows) if not self.objective.fair else np.inf
            taken = take(space, grants, rows, problem.limits.rank, paths, least, gap if final else None)
            column = paths.column[taken.point]
            more: Ints | None = None
            if not last:
                near = Near.of(table, column)
                more, close = self._closer(problem, rows, near, worth, taken.price, small, left == rounds)
            if more is None and not final:
                taken = take(space, grants, rows, problem.limits.rank, paths, least, gap)
                column = paths.column[taken.point]
            crossing = bool(space.cuts) and len(space.tree) > 1
            if few and gap < np.inf and (taken.unused > gap or crossing):
                column = improved(space, rows, grants, table, worth, column)
                near = Near.of(table, column)
            bound = max(0.0, float(worth[:, 0].sum()) + taken.most - float(worth[everyone, column].sum()))
            if more is None:
                if complete or even or not few or self.objective.fair or bound <= WIDE * len(rows):
                    break
                even, close = True, False
                more = evenly(problem, rows, low, np.minimum(high, low + space.slack(grants)[rows]))
            kept = paths.beside(taken.point) if len(rows) > SOME else None
            table, utility = merged(table, utility, near, kept, more, curve(more))
        grants[rows] = table[everyone, column]
        # Where moves have a price the table is not of utilities; where node sets cross groups duality is not shown.
        shown = not (self.objective.fair or problem.calm or crossing)
        return _Found(grants, bound if shown else None, _Seen(rows, table, utility, column))

    def _closer(
        self, problem: Problem, rows: Ints, near: Near, worth: Floats, price: Floats, small: float, first: bool
    ) -> tuple[Ints | None, bool]:
        """More grants to look at around an answer, None where that is not worth it; and whether they will do."""
        if self.objective.fair:
            return finer(problem, rows, near, level_with(worth, near, price)), False
        around, missed = expected(worth, near, price)
        if not first and missed <= small * len(rows):
            return None, True
        return finer(problem, rows, near, around), missed * REMAINS <= small * len(rows)

    def _look(
        self, problem: Problem, rows: Ints, curve: Curve, table: Ints, weight: Floats | None
    ) -> tuple[Ints, Floats, Floats | None]:
        """The grants to divide by, their utilities, and those of the current grants where moves cost something.

        With the `weight` of all pipelines `table` has every step, and what is ample may be left out: grants between
        which nobody would take a step.
        """
        width = table.shape[1]
        near = width if weight is None else ample(problem, rows, table)
        if weight is None or near * 4 > width * 3:
            return table, *_utilities(problem, rows, curve, table)
        some = np.concatenate((table[:, :near], table[:, -1:]), axis=1)
        utility, now = _utilities(problem, rows, curve, some)
        gain = weight[rows] * STEEPEST * (utility[:, -1] - utility[:, -2])
        if (gain <= WORTHLESS / MILLI * last_step(problem, rows, table)).all():
            return some, utility, now
        rest = curve(table[:, near:-1])
        return table, np.concatenate((utility[:, :-1], rest, utility[:, -1:]), axis=1), now

    def _paths(self, weight: Floats, table: Ints, values: Floats) -> tuple[Paths, Floats]:
        """How each pipeline goes up its row of the table as prices fall, and what that is made of."""
        if self.objective.fair:
            shortfall = weight * (1 - values)
            return by_shortfall(table, shortfall, WORTHLESS / MILLI), shortfall
        worth = weight * self.objective.worth(values)
        return by_slope(table, worth), worth

    def _report(self, problem: Problem, weight: Floats, found: _Found, grants: Ints) -> Division:
        known = problem.wants.known
        loaded = known & (problem.load > 0)
        values = np.where(loaded, np.nan, known)
        if found.seen is not None:
            found.seen.write(grants, values)
        missing = np.flatnonzero(np.isnan(values))
        if len(missing):
            values[missing] = self.utility(problem, missing)(grants[missing, None])[:, 0]
        bound = found.bound
        if self.objective.fair:
            objective = 1 - float((weight * (1 - values))[known].max(initial=0.0))
        else:
            objective = float((weight * self.objective.worth(values))[known].sum())

        def price() -> Floats:
            more = np.zeros(len(grants))
            rows = np.flatnonzero(loaded)
            if len(rows):
                more[rows] = self.utility(problem, rows)(grants[rows, None] + MILLI)[:, 0] - values[rows]
            return more

        return Division(grants, objective, price, bound)


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """Utilities that were looked at."""

    rows: Ints
    """Of which pipelines, m."""
    table: Ints
    """Millicores, m x k."""
    utility: Floats
    """m x k."""
    answer: Ints
    """The column that was chosen, m."""

    def write(self, grants: Ints, values: Floats) -> None:
        """Put those of `grants` (n) into `values` (n); where they were not looked at it stays as it is."""
        everyone = np.arange(len(self.rows))
        held = grants[self.rows]
        values[self.rows] = self.utility[everyone, self.answer]
        changed = (self.table[everyone, self.answer] != held).nonzero()[0]
        if not len(changed):
            return
        here = self.table[changed] == held[changed, None]
        column = here.argmax(axis=1)
        looked_at = here[np.arange(len(changed)), column]
        values[self.rows[changed]] = np.where(looked_at, self.utility[changed, column], np.nan)


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """Grants of n pipelines on the way, and what is known of them."""

    grants: Ints
    bound: float | None
    seen: _Seen | None = None

    @classmethod
    def floors(cls, problem: Problem) -> _Found:
        return cls(problem.limits.floor, 0.0)


def _growing(problem: Problem, grants: Ints, rows: Ints, high: Ints) -> tuple[Ints, Ints, Ints]:
    """Those of the pipelines `rows` that may have more than `grants` (n), what they have, and up to what: `high` (m) or
    what the budgets around each allow it alone.
    """
    low = grants[rows]
    most = step_below(problem.limits, grants + problem.space.slack(grants), grants)
    high = np.minimum(high, most[rows])
    useful = high > low
    return (rows, low, high) if useful.all() else (rows[useful], low[useful], high[useful])


def _utilities(problem: Problem, rows: Ints, curve: Curve, table: Ints) -> tuple[Floats, Floats | None]:
    """Of a table (m x k) and, where moves cost something, of the current grants (m)."""
    if not problem.calm:
        return curve(table), None
    both = curve(np.concatenate((table, np.maximum(problem.current[rows], 0)[:, None]), axis=1))
    return both[:, :-1], both[:, -1]


def satisfied(problem: Problem, rows: Ints) -> Ints:
    """The least grants with which the pipelines `rows` are expected to meet their SLO; without one, their load."""
    limits = problem.limits
    low: Ints = limits.floor[rows]
    high: Ints = limits.ceiling[rows]
    target = np.where(np.isnan(limits.percentile[rows]), 1.0, limits.percentile[rows] / 100)
    enough = needed(problem.load[rows])
    bound = ~np.isnan(limits.latency[rows])
    share = in_time(problem, rows)
    while ((high - low > limits.step[rows]) & bound).any():
        middle = (low + high) // 2
        meets = share(middle[:, None])[:, 0] >= target
        low, high = np.where(meets, low, middle), np.where(meets, middle, high)
    least = np.where(bound, high, enough)
    step = limits.step[rows]
    whole: Ints = -(-least // step) * step
    return np.clip(whole, limits.floor[rows], limits.ceiling[rows])
