"""Steps along paths, the dearest first, and which of them nested budgets admit.

Each budget, the inner ones first, admits steps in their order up to the first that does not fit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headgate.core.filling import Space
from headgate.core.laminar import Bools, Ints, Level
from headgate.core.paths import Paths

REPAIRS = 24
"""How often what a jump that does not fit leaves over is handed to others."""


def in_order(paths: Paths, rows: Ints, rank: Ints, least: float) -> Ints:
    """The points from which steps at prices above `least` lead, the dearest first; ties by the `rank` of pipelines."""
    moves = (paths.price > least).nonzero()[0]
    cost = -paths.price[moves]
    order = cost.argsort()
    rising = cost[order]
    if (rising[1:] == rising[:-1]).any():
        by_rank = rank[rows[paths.row[moves]]]
        ordered = bool((by_rank[1:] >= by_rank[:-1]).all())
        order = cost.argsort(kind="stable") if ordered else np.lexsort((by_rank, cost))
    return moves[order]


@dataclass(frozen=True, slots=True, eq=False)
class Steps:
    """Steps along paths in the order in which they are taken, arrays of length s."""

    pipeline: Ints
    size: Ints
    point: Ints
    """From which of the paths' points the step leads to the next."""

    def __len__(self) -> int:
        return len(self.size)

    @classmethod
    def of(cls, paths: Paths, rows: Ints, point: Ints) -> Steps:
        """Those from the points `point` of the paths of the pipelines `rows`."""
        return cls(rows[paths.row[point]], paths.size[point], point)

    def only(self, which: Bools | Ints) -> Steps:
        """Some of them."""
        return Steps(self.pipeline[which], self.size[which], self.point[which])


def fitting(space: Space, grants: Ints, steps: Steps, *, skipping: bool) -> Bools:
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


def _skipping(level: Level, room: Ints, steps: Steps, admitted: Bools) -> Bools:
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


def _within(level: Level, room: Ints, steps: Steps, admitted: Bools) -> Bools:
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
