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

EXCHANGES = 16
"""How many refused jumps are tried in the place of cheaper steps."""

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

    def gain(self) -> Floats:
        """What each row's step from a point brings, v; 0 at its last."""
        return np.asarray(np.where(np.isfinite(self.price), self.price, 0.0) * np.append(np.diff(self.amount), 0))

    def beside(self, point: Ints) -> list[Ints]:
        """The columns of the two points before and the two after `point` (m, one of each row)."""
        lowest, highest = self.first[:-1], self.first[1:] - 1
        return [self.column[np.minimum(np.maximum(point + away, lowest), highest)] for away in (-2, -1, 1, 2)]


def by_slope(table: Ints, worth: Floats) -> Paths:
    """Along the upper concave envelope of `worth` over `table` (m x k millicores, rising); price: worth per millicore.

    Points under the chord of their neighbours are left out until none is: each pass is as long as what is left. First
    goes what lies before the steepest way up from the start: nearly all there is before a knee.
    """
    rows, width = table.shape
    start = table[:, :1]
    steepness = (worth - worth[:, :1]) / np.maximum(table - start, 0.5)
    steepest = (steepness >= steepness.max(axis=1, keepdims=True) * (1 - EVEN)).argmax(axis=1)
    column = np.arange(width)
    keep = (column >= steepest[:, None]) | (column == 0)
    keep &= (table > start) | (column == 0) | (column == width - 1)
    kept = np.flatnonzero(keep)
    amount, value = table.ravel()[kept], worth.ravel()[kept]
    place = kept % width
    ends = (place == 0) | (place == width - 1)
    while True:
        size = amount[1:] - amount[:-1]
        slope = (value[1:] - value[:-1]) / np.maximum(size, 0.5)
        under = (slope[:-1] * (1 + EVEN) < slope[1:]) | (size[:-1] <= 0)
        under &= ~ends[1:-1]
        if not under.any():
            break
        left = np.concatenate(([0], np.flatnonzero(~under) + 1, [len(kept) - 1]))
        kept, amount, value, ends = kept[left], amount[left], value[left], ends[left]
    row = kept // width
    first = np.searchsorted(row, np.arange(rows + 1))
    price = np.append(slope, -np.inf)
    price[first[1:] - 1] = -np.inf
    # Slopes that rise by rounding would let a later step of a row go before an earlier one.
    while len(rising := np.flatnonzero((price[1:] > price[:-1]) & (row[1:] == row[:-1]))):
        price[rising + 1] = price[rising]
    return Paths(kept - row * width, amount, row, first, price)


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
        order = np.argsort(-price)
        falling = price[order]
        if (falling[1:] == falling[:-1]).any():
            by_rank = rank[rows[paths.row[moves]]]
            ordered = bool((by_rank[1:] >= by_rank[:-1]).all())
            order = np.argsort(-price, kind="stable") if ordered else np.lexsort((by_rank, -price))
        moves = moves[order]
        return cls(rows[paths.row[moves]], paths.amount[moves + 1] - paths.amount[moves], moves)

    def only(self, which: Bools | Ints) -> _Steps:
        return _Steps(self.pipeline[which], self.size[which], self.point[which])


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
    cheapest steps give way if that gains more.
    """
    steps = _Steps.of(paths, rows, rank, least)
    fits, price, unused = _at_prices(space, grants, steps, paths, least)
    gain = paths.gain()
    taken = np.zeros(len(paths.row), dtype=np.bool_)
    taken[steps.point[fits]] = True
    most = float(gain[taken].sum()) + unused
    if gap is not None and not fits.all():
        if len(space.tree) == 1 and not space.cuts:
            left = int(space.tree[0].slack(grants)[0]) - int(steps.size[fits].sum())
            if unused > gap:
                left = _swap(steps, paths, gain, taken, left)
            rest = np.flatnonzero(~taken[steps.point])
            more = _further(paths.row[steps.point[rest]], steps.size[rest], left, len(rows))
            taken[steps.point[rest[more]]] = True
        else:
            taken = _repaired(space, grants, steps, paths)
            if unused > gap:
                taken = _exchanged(space, grants, steps, paths, gain, taken)
    return Taken(paths.first[:-1] + np.bincount(paths.row[taken], minlength=len(rows)), unused, most, price[rows])


def _refused(steps: _Steps, paths: Paths, taken: Bools) -> Ints:
    """The steps that rows would take next, the dearest first."""
    following = paths.first[paths.row[steps.point]] == steps.point
    following |= taken[steps.point - 1]
    return np.flatnonzero(following & ~taken[steps.point])[:EXCHANGES]


def _swap(steps: _Steps, paths: Paths, gain: Floats, taken: Bools, left: int) -> int:
    """Puts refused jumps into `taken` in the place of the cheapest steps where that gains more; what is left then.

    For one budget only.
    """
    cheapest = np.flatnonzero(taken[steps.point])[::-1].tolist()
    for jump in _refused(steps, paths, taken).tolist():
        point, own = int(steps.point[jump]), int(steps.pipeline[jump])
        if point > paths.first[paths.row[point]] and not taken[point - 1]:
            continue  # it has given way itself
        missing, gained = int(steps.size[jump]) - left, float(gain[point])
        given: list[int] = []
        for step in cheapest:
            if missing <= 0 or gained <= 0:
                break
            giving = int(steps.point[step])
            if taken[giving] and steps.pipeline[step] != own:
                given.append(giving)
                missing -= int(steps.size[step])
                gained -= float(gain[giving])
        if missing <= 0 and gained > 0:
            taken[given] = False
            taken[point] = True
            left = -missing
    return left


def _repaired(space: Space, grants: Ints, steps: _Steps, paths: Paths) -> Bools:
    """From which points rows go on when budgets admit `steps` in order, and what is left then goes to others."""
    taken = np.zeros(len(paths.row), dtype=np.bool_)
    held = grants.copy()
    for _ in range(REPAIRS):
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
    return taken


def _exchanged(space: Space, grants: Ints, steps: _Steps, paths: Paths, gain: Floats, taken: Bools) -> Bools:
    """`taken`, or what gains more: refused jumps go first, one after the other, and what comes last gives way."""
    best = float(gain[taken].sum())
    ahead = np.zeros(len(paths.row), dtype=np.bool_)
    for jump in steps.point[_refused(steps, paths, taken)].tolist():
        trial = ahead.copy()
        trial[paths.first[paths.row[jump]] : jump + 1] = True
        other = _repaired(space, grants, steps.only(np.argsort(~trial[steps.point], kind="stable")), paths)
        if (value := float(gain[other].sum())) > best * (1 + EVEN):
            taken, best, ahead = other, value, trial
    return taken


def _further(row: Ints, size: Ints, left: int, rows: int) -> list[int]:
    """Which steps fit, in order, into what is `left`; whoever has no room for its next one takes none any more."""
    position = np.arange(len(row))
    large = np.flatnonzero(size > left)[::-1]
    first = np.full(rows, len(row))
    first[row[large]] = large
    open_ = np.flatnonzero(position < first[row])
    if not len(open_):
        return []
    least = int(size[open_].min())
    stuck: set[int] = set()
    fitting = []
    for step, taker, wanted in zip(open_.tolist(), row[open_].tolist(), size[open_].tolist(), strict=True):
        if wanted > left:
            stuck.add(taker)
        elif taker not in stuck:
            fitting.append(step)
            left -= wanted
            if left < least:
                break
    return fitting


def _at_prices(space: Space, grants: Ints, steps: _Steps, paths: Paths, least: float) -> tuple[Bools, Floats, float]:
    """Which steps are taken at the prices at which no budget is overdrawn; the prices; what is unused, at its price.

    Each budget admits `steps` up to the first that does not fit, whose price is the budget's. Of all n pipelines the
    highest price of the budgets around them.
    """
    fits = _fitting(space, grants, steps, skipping=False)
    stopped = np.full(len(grants), least)
    if fits.all():
        return fits, stopped, 0.0
    if len(space.tree) == 1 and not space.cuts:
        only = float(paths.price[steps.point[int(fits.argmin())]])
        stopped[:] = only
        return fits, stopped, only * float(space.tree[0].slack(grants)[0] - steps.size[fits].sum())
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
