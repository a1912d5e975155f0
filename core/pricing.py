"""Greedy division over tables: who takes the next step, by price, as far as the budgets reach.

Each pipeline has a path through its row of a table: the grants it would have as prices fall. The path follows the upper
concave envelope of its worth, most gain per millicore first, and then the greedy order is optimal over nested budgets
for concave worths (Federgruen and Groenevelt 1986). The steps of all paths are sorted once; each budget, the inner ones
first, admits them in that order up to the first that does not fit.

Where a worth is not concave (the knee of an SLO: worthless until it is nearly met) a step jumps from one grant to a
much larger one, and a jump that does not fit leaves a budget partly unused. By Lagrangian duality no division is worth
more than what was taken plus, for each budget, its price times what it has left. What is lost is less than one jump of
one pipeline for each budget that is used up. What is left goes to others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from headgate.core.exchange import exchanged, further, repaired, swap
from headgate.core.filling import Space
from headgate.core.laminar import Bools, Floats, Ints
from headgate.core.paths import Paths
from headgate.core.steps import Steps, fitting, in_order

MOST_CROSSING = 32
"""Up to so many pipelines refused steps are always tried first where node sets cross groups."""


@dataclass(frozen=True, slots=True, eq=False)
class Taken:
    """What the m rows of a table take."""

    point: Ints
    """Which each row reaches on its path, m."""
    unused: float
    """The price of each budget times what it had left at first."""
    most: float
    """No division of the same table gains more than this, the sum of price x size of what was taken at first and of
    `unused`."""
    price: Floats
    """At which each row is stopped by a budget around it, m; `least` where none does."""


def take(
    space: Space, grants: Ints, rows: Ints, rank: Ints, paths: Paths, least: float, gap: float | None = None
) -> Taken:
    """How far the pipelines `rows` (m) come on their paths at prices above `least`.

    `grants`: of all n pipelines; those in `rows` have the first amount of their path. Ties go by `rank` (n).
    Without a `gap` that is all that is taken at the prices at which no budget is overdrawn. With one, what a jump that
    does not fit leaves over goes to others; and where it is worth more than `gap`, such jumps go first and the
    cheapest steps give way if that gains more. Where node sets cross groups nobody can tell what it is worth, so that
    this is then always tried, unless `gap` is infinite.
    """
    point = in_order(paths, rows, rank, least)
    if len(space.tree) == 1 and not space.cuts:
        return _from_one_budget(int(space.tree[0].slack(grants)[0]), point, paths, least, gap)
    steps = Steps.of(paths, rows, point)
    fits, price, unused = _at_prices(space, grants, steps, paths, least)
    gain = paths.gain()
    taken = np.zeros(len(paths.row), dtype=np.bool_)
    taken[point[fits]] = True
    most = float(gain[taken].sum()) + unused
    if gap is not None and not fits.all():
        taken = repaired(space, grants, steps, paths)
        crossing = bool(space.cuts) and len(space.tree) > 1 and len(rows) <= MOST_CROSSING
        if unused > gap or (crossing and gap < math.inf):
            taken = exchanged(space, grants, steps, paths, gain, taken)
    return Taken(_reached(paths, paths.row[taken]), unused, most, price[rows])


def _from_one_budget(left: int, point: Ints, paths: Paths, least: float, gap: float | None) -> Taken:
    """`take` where only the whole budget binds, which has `left`; the steps lead from `point`, the dearest first."""
    rows = len(paths.first) - 1
    total = paths.size[point].cumsum()
    count = int(total.searchsorted(left, side="right"))
    first = point[:count]
    if count == len(point):
        stop, unused = least, 0.0
    else:
        left -= int(total[count - 1]) if count else 0
        stop = float(paths.price[point[count]])
        unused = stop * left
    gained = float((paths.price[first] * paths.size[first]).sum())
    reached = paths.row[first]
    if gap is not None and count < len(point):
        rest = point[count:]
        if unused > gap:
            taken = np.zeros(len(paths.row), dtype=np.bool_)
            taken[first] = True
            left = swap(point, paths, paths.gain(), taken, left)
            rest, reached = point[~taken[point]], paths.row[taken]
        more = further(paths.row[rest], paths.size[rest], left, rows)
        reached = np.concatenate((reached, paths.row[rest[more]]))
    return Taken(_reached(paths, reached), unused, gained + unused, np.full(rows, stop))


def _reached(paths: Paths, row: Ints) -> Ints:
    """The point that each row reaches by as many steps as `row` names it."""
    return paths.first[:-1] + np.bincount(row, minlength=len(paths.first) - 1)


def _at_prices(space: Space, grants: Ints, steps: Steps, paths: Paths, least: float) -> tuple[Bools, Floats, float]:
    """Which steps are taken at the prices at which no budget is overdrawn; the prices; what is unused, at its price.

    Each budget admits `steps` up to the first that does not fit, whose price is the budget's. Of all n pipelines the
    highest price of the budgets around them.
    """
    fits = fitting(space, grants, steps, skipping=False)
    stopped = np.full(len(grants), least)
    if fits.all():
        return fits, stopped, 0.0
    added = np.bincount(steps.pipeline[fits], weights=steps.size[fits], minlength=len(grants))
    grants = grants + added.astype(np.int64)
    refused = steps.only(~fits)
    price = paths.price[refused.point]
    total = 0.0
    for level in space.tree:
        slack = level.slack(grants)
        group_of = level.member[refused.pipeline]
        large = np.flatnonzero(refused.size > slack[group_of])
        group, first = np.unique(group_of[large], return_index=True)
        paid = np.zeros(len(slack))
        paid[group] = price[large[first]]
        total += float((slack * paid)[group].sum())
        np.maximum(stopped, paid[level.member], out=stopped)
    for limit in space.cuts:
        room = limit.room - int(grants[limit.members].sum())
        large = np.flatnonzero((refused.size > room) & np.isin(refused.pipeline, limit.members))
        if len(large):
            dearest = float(price[large[0]])
            total += room * dearest
            stopped[limit.members] = np.maximum(stopped[limit.members], dearest)
    return fits, stopped, total
