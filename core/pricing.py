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

from dataclasses import dataclass

import numpy as np

from headgate.core.filling import Space
from headgate.core.laminar import Bools, Floats, Ints, Level

EVEN = 1e-9
"""Share by which a slope may rise and still count as even: rounding."""

REPAIRS = 24
"""How often what a jump that does not fit leaves over is handed to others."""


@dataclass(frozen=True, slots=True, eq=False)
class Paths:
    """The paths of m rows, one after another in arrays of v points."""

    column: Ints
    """Of the table, v; rising within a row."""
    amount: Ints
    """Millicores at each point, v."""
    row: Ints
    """Whose point it is, v."""
    first: Ints
    """Where each row's points begin, m + 1."""
    price: Floats
    """At which a row goes on from a point to its next, v; falling within a row; -inf at its last."""

    def near(self, column: Ints) -> list[Ints]:
        """The columns of the two points before and the two after `column` (m, one of each row)."""
        width = int(self.column.max()) + 1
        at = np.searchsorted(self.row * width + self.column, np.arange(len(column)) * width + column, side="right") - 1
        lowest, highest = self.first[:-1], self.first[1:] - 1
        return [self.column[np.minimum(np.maximum(at + away, lowest), highest)] for away in (-2, -1, 1, 2)]


def by_slope(table: Ints, worth: Floats) -> Paths:
    """Along the upper concave envelope of `worth` over `table` (m x k millicores, rising); price: worth per millicore.

    Points under the chord of their neighbours are left out until none is: each pass is as long as what is left.
    """
    rows, width = table.shape
    amount, value = table.ravel(), worth.ravel()
    position = np.arange(rows * width) % width
    ends = (position == 0) | (position == width - 1)
    kept = np.arange(rows * width)
    while True:
        size = amount[1:] - amount[:-1]
        slope = (value[1:] - value[:-1]) / np.maximum(size, 0.5)
        keep = ends.copy()
        keep[1:-1] |= (slope[:-1] * (1 + EVEN) >= slope[1:]) & (size[:-1] > 0)
        if keep.all():
            break
        kept, amount, value, ends = kept[keep], amount[keep], value[keep], ends[keep]
    row, column = np.divmod(kept, width)
    first = np.searchsorted(row, np.arange(rows + 1))
    price = np.append(slope, -np.inf)
    price[first[1:] - 1] = -np.inf
    # Slopes that rise by rounding would let a later step of a row go before an earlier one.
    while len(rising := np.flatnonzero((price[1:] > price[:-1]) & (row[1:] == row[:-1]))):
        price[rising + 1] = price[rising]
    return Paths(column, amount, row, first, price)


def by_shortfall(table: Ints, shortfall: Floats, least: float) -> Paths:
    """Where `shortfall` (m x k) falls along `table` by `least` per millicore; price: what there is, the worst first."""
    falls = np.ones(table.shape, dtype=np.bool_)
    lowest = np.minimum.accumulate(shortfall, axis=1)
    falls[:, 1:] = lowest[:, :-1] - shortfall[:, 1:] > least * (table[:, 1:] - table[:, :-1])
    row, column = np.nonzero(falls)
    first = np.searchsorted(row, np.arange(len(table) + 1))
    price = shortfall[row, column]
    price[first[1:] - 1] = -np.inf
    return Paths(column, table[row, column], row, first, price)


@dataclass(frozen=True, slots=True, eq=False)
class _Steps:
    """Steps along paths in the order in which they are taken, arrays of length s."""

    pipeline: Ints
    size: Ints
    point: Ints
    """From which of the paths' points the step leads to the next."""

    def __len__(self) -> int:
        return len(self.size)

    @classmethod
    def of(cls, paths: Paths, rows: Ints, rank: Ints, least: float) -> _Steps:
        """Those at prices above `least`, the dearest first."""
        moves = np.flatnonzero(paths.price > least)
        price = paths.price[moves]
        pipeline = rows[paths.row[moves]]
        by_rank = rank[pipeline]
        if (by_rank[1:] >= by_rank[:-1]).all():
            order = np.argsort(-price, kind="stable")
        else:
            order = np.lexsort((by_rank, -price))
        moves = moves[order]
        return cls(pipeline[order], paths.amount[moves + 1] - paths.amount[moves], moves)

    def only(self, which: Bools | Ints) -> _Steps:
        return _Steps(self.pipeline[which], self.size[which], self.point[which])


@dataclass(frozen=True, slots=True, eq=False)
class Taken:
    """What the m rows of a table take."""

    point: Ints
    """Which each row reaches on its path, m."""
    unused: float
    """The price of each budget times what it has left: no division is worth more than this on top."""


def take(
    space: Space, grants: Ints, rows: Ints, rank: Ints, paths: Paths, least: float, repairs: int = REPAIRS
) -> Taken:
    """How far the pipelines `rows` (m) come on their paths at prices above `least`.

    `grants`: of all n pipelines; those in `rows` have the first amount of their path. Ties go by `rank` (n). What a
    jump that does not fit leaves over is handed to others in up to `repairs` - 1 rounds.
    """
    steps = _Steps.of(paths, rows, rank, least)
    taken = np.zeros(len(paths.row), dtype=np.bool_)
    held = grants.copy()
    unused = _unused(space, grants, steps, paths.price[steps.point])
    for _ in range(repairs):
        fits = _fitting(space, held, steps, skipping=len(space.tree) > 1)
        taken[steps.point[fits]] = True
        if fits.all():
            break
        held += np.bincount(steps.pipeline[fits], weights=steps.size[fits], minlength=len(held)).astype(np.int64)
        steps = steps.only(~fits)
        # Whoever has no room for its next step stays where it is, and what follows it is left to the others.
        following = paths.first[paths.row[steps.point]] == steps.point
        following |= taken[steps.point - 1]
        open_ = np.zeros(len(held), dtype=np.bool_)
        open_[steps.pipeline[following & (steps.size <= space.slack(held)[steps.pipeline])]] = True
        steps = steps.only(open_[steps.pipeline])
        if not len(steps):
            break
    return Taken(paths.first[:-1] + np.bincount(paths.row[taken], minlength=len(rows)), unused)


def _unused(space: Space, grants: Ints, steps: _Steps, price: Floats) -> float:
    """The price of each budget times what it has left, where each admits `steps` up to the first that does not fit."""
    fits = _fitting(space, grants, steps, skipping=False)
    if fits.all():
        return 0.0
    added = np.bincount(steps.pipeline[fits], weights=steps.size[fits], minlength=len(grants))
    grants = grants + added.astype(np.int64)
    steps, price = steps.only(~fits), price[~fits]
    total = 0.0
    for level in space.tree:
        slack = level.slack(grants)
        large = np.flatnonzero(steps.size > slack[level.member[steps.pipeline]])
        group, first = np.unique(level.member[steps.pipeline[large]], return_index=True)
        total += float((slack[group] * price[large[first]]).sum())
    for limit in space.cuts:
        room = limit.room - int(grants[limit.members].sum())
        large = np.flatnonzero((steps.size > room) & np.isin(steps.pipeline, limit.members))
        total += room * float(price[large[0]]) if len(large) else 0.0
    return total


def _fitting(space: Space, grants: Ints, steps: _Steps, *, skipping: bool) -> Bools:
    """Which steps every budget admits, in order, each up to its first that does not fit.

    Node sets cross the groups: they are applied in the order in which they fill up as prices fall.
    """
    admitted = np.ones(len(steps), dtype=np.bool_)
    pending = [
        (limit.room - int(grants[limit.members].sum()), np.isin(steps.pipeline, limit.members)) for limit in space.cuts
    ]
    while True:
        fits = admitted
        for level in space.tree[:-1]:
            fits = (_skipping if skipping else _within)(level, level.slack(grants), steps, fits)
        fits = _within(space.tree[-1], space.tree[-1].slack(grants), steps, fits)
        end, full = len(steps), -1
        for index, (room, inside) in enumerate(pending):
            over = np.flatnonzero(np.cumsum(np.where(fits & inside, steps.size, 0)) > room)
            if len(over) and over[0] < end:
                end, full = int(over[0]), index
        if full < 0:
            return fits
        _, inside = pending.pop(full)
        admitted = admitted & ~(inside & (np.arange(len(steps)) >= end))


def _skipping(level: Level, room: Ints, steps: _Steps, admitted: Bools) -> Bools:
    """Like `_within`, but whoever has no room for its next step is left out then and there.

    What that leaves over in a group is its members' before others take it from the budget around.
    """
    fits = _within(level, room, steps, admitted)
    for _ in range(REPAIRS):
        failing = np.flatnonzero(admitted & ~fits)
        if not len(failing):
            break
        pipeline, first = np.unique(steps.pipeline[failing], return_index=True)
        group = level.member[steps.pipeline]
        left = room - np.bincount(group, weights=np.where(fits, steps.size, 0), minlength=len(room)).astype(np.int64)
        stuck = np.zeros(len(level.member), dtype=np.bool_)
        stuck[pipeline] = steps.size[failing[first]] > left[level.member[pipeline]]
        admitted = admitted.copy()
        admitted[failing] = ~stuck[steps.pipeline[failing]]
        fits = _within(level, room, steps, admitted)
    return fits


def _within(level: Level, room: Ints, steps: _Steps, admitted: Bools) -> Bools:
    if len(room) == 1:
        fits: Bools = admitted & (np.cumsum(np.where(admitted, steps.size, 0)) <= room[0])
        return fits
    group = level.member[steps.pipeline]
    by_group = np.argsort(group, kind="stable")
    size = np.where(admitted, steps.size, 0)[by_group]
    total = np.cumsum(size)
    ordered = group[by_group]
    start = np.searchsorted(ordered, ordered, side="left")
    fits = np.empty(len(steps), dtype=np.bool_)
    fits[by_group] = total - (total - size)[start] <= room[ordered]
    fits &= admitted
    return fits
