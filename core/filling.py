"""Water-filling under nested budgets: the lowest level first, in whole steps, within every limit at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headgate.core.laminar import Floats, Ints, Tree, cut, fill_time
from headgate.core.limits import Limits
from headgate.core.placement import Cut


@dataclass(frozen=True, slots=True, eq=False)
class Space:
    """What bounds grants besides floors and ceilings: nested budgets, and sets of pipelines that share nodes."""

    tree: Tree
    cuts: Sequence[Cut] = ()

    def slack(self, grants: Ints) -> Ints:
        """For each pipeline the millicores that all budgets around it still allow it alone."""
        whole = self.tree[-1].budget[0] - grants.sum()
        room: Ints = np.full(len(grants), whole, dtype=np.int64)
        for level in self.tree[:-1]:
            np.minimum(room, level.slack(grants)[level.member], out=room)
        for limit in self.cuts:
            room[limit.members] = np.minimum(room[limit.members], limit.room - grants[limit.members].sum())
        return room

    def level_off(self, lower: Ints | Floats, upper: Floats, rate: Floats) -> Floats:
        """clip(t * rate, lower, upper) with the highest t that the budgets around each pipeline allow.

        Node sets cross the groups, so they are applied in the order in which they fill up: until then, what lies
        below is not affected.
        """
        pending = list(self.cuts)
        while True:
            ideal = upper
            for level in self.tree:
                ideal = cut(level, lower, ideal, rate)
            first: tuple[float, Cut] | None = None
            for limit in pending:
                who = limit.members
                if ideal[who].sum() > limit.room:
                    time = self._time(limit, lower, ideal, rate)
                    if first is None or time < first[0]:
                        first = time, limit
            if first is None:
                return ideal
            time, limit = first
            pending.remove(limit)
            who = limit.members
            upper = upper.copy()
            upper[who] = np.clip(time * rate[who], lower[who], ideal[who])

    @staticmethod
    def _time(limit: Cut, lower: Ints | Floats, ideal: Floats, rate: Floats) -> float:
        who = limit.members[(rate[limit.members] > 0) & (ideal[limit.members] > lower[limit.members])]
        room = np.array([limit.room - ideal[limit.members].sum() + (ideal[who] - lower[who]).sum()])
        return float(fill_time(np.zeros(len(who), dtype=np.int64), room, lower[who], ideal[who], rate[who])[0])

    def admit(self, order: Ints, size: Ints, grants: Ints) -> Ints:
        """Those of `order` (pipelines, best first) whose increments of `size` fit on top of `grants`.

        In each budget the best ones up to the first that does not fit: exact for equal sizes.
        """
        if self.cuts:
            book = self.book(grants)
            return np.array([p for p in order.tolist() if book.take(p, int(size[p]))], dtype=np.int64)
        for level in self.tree:
            slack = level.slack(grants)
            if len(slack) == 1 or not len(order):
                order = order[: np.searchsorted(np.cumsum(size[order]), slack[0], side="right")]
                continue
            group = level.member[order]
            by_group = np.argsort(group, kind="stable")
            taken = np.cumsum(size[order[by_group]])
            sorted_group = group[by_group]
            start = np.searchsorted(sorted_group, np.arange(len(slack)), side="left")
            before = np.where(start > 0, taken[np.maximum(start - 1, 0)], 0)
            fits = np.zeros(len(order), dtype=np.bool_)
            fits[by_group] = taken - before[sorted_group] <= slack[sorted_group]
            order = order[fits]
        return order

    def book(self, grants: Ints) -> Book:
        """What every budget has left on top of `grants`, to be drawn on one pipeline at a time."""
        around: list[list[int]] = [[] for _ in range(len(grants))]
        left: list[int] = []
        for level in self.tree:
            for pipeline, group in enumerate(level.member.tolist()):
                around[pipeline].append(len(left) + group)
            left += level.slack(grants).tolist()
        for limit in self.cuts:
            for pipeline in limit.members.tolist():
                around[pipeline].append(len(left))
            left.append(limit.room - int(grants[limit.members].sum()))
        return Book(around, left)


@dataclass(frozen=True, slots=True, eq=False)
class Book:
    """Millicores left in every budget, and which budgets are around each pipeline."""

    around: list[list[int]]
    left: list[int]

    def take(self, pipeline: int, size: int) -> bool:
        """Draw `size` from all budgets around a pipeline; False, and nothing drawn, when one of them has less."""
        if any(self.left[budget] < size for budget in self.around[pipeline]):
            return False
        for budget in self.around[pipeline]:
            self.left[budget] -= size
        return True


def next_step(limits: Limits, grants: Ints) -> Ints:
    """The next larger grant that each pipeline may have: a multiple of its step, or its ceiling."""
    following: Ints = (grants // limits.step + 1) * limits.step
    return np.minimum(limits.ceiling, following)


def step_below(limits: Limits, amounts: Floats | Ints, lower: Ints) -> Ints:
    """The largest allowed grants up to `amounts`, at least `lower`."""
    whole = np.floor(amounts).astype(np.int64)
    stepped: Ints = np.where(whole >= limits.ceiling, limits.ceiling, whole // limits.step * limits.step)
    return np.maximum(lower, stepped)


def fill(limits: Limits, space: Space, grants: Ints, upper: Ints, rate: Floats) -> Ints:
    """`grants`, raised towards clip(t * rate, grants, upper) with the one t that spends the budgets around each.

    Rounded down to steps; what that leaves over goes, a step each, to those that are lowest in grant / rate. Pipelines
    with rate 0 or with upper at their grant stay. Nothing fits any more when this returns.
    """
    open_ = (upper > grants) & (rate > 0)
    if not open_.any():
        return grants
    open_ &= np.minimum(next_step(limits, grants), upper) - grants <= space.slack(grants)
    if not open_.any():
        return grants
    # Twelve orders of magnitude between rates are more than millicores can tell apart, and all that sums of them bear.
    rate = np.where(rate > 0, np.maximum(rate / rate.max(), 1e-12), 0.0)
    while open_.any():
        top = np.where(open_, upper, grants)
        ideal = space.level_off(grants, top.astype(np.float64), rate)
        reached = _round_down(limits, space, grants, ideal, top)
        following = np.minimum(next_step(limits, reached), top)
        size = following - reached
        # Sums differ in their last digits by the order of the pipelines, which must decide nothing.
        missing = np.round(ideal - reached, 6)
        candidates = np.flatnonzero(open_ & (missing > 0))
        level = reached[candidates] / rate[candidates]
        order = candidates[np.lexsort((limits.rank[candidates], -missing[candidates], level))]
        chosen = space.admit(order, size, reached)
        reached = reached.copy()
        reached[chosen] = following[chosen]
        grants = reached
        size = np.minimum(next_step(limits, grants), upper) - grants
        open_ &= (size > 0) & (size <= space.slack(grants))
    return grants


def _round_down(limits: Limits, space: Space, grants: Ints, ideal: Floats, top: Ints) -> Ints:
    """`ideal` in steps, at least `grants`: a whisker above, for 4000 computed as 3999.9999999, where that fits."""
    reached = np.minimum(step_below(limits, ideal * (1 + 1e-13) + 1e-7, grants), top)
    for lowered in (ideal * (1 - 1e-12) - 1e-6, grants):
        overdrawn = space.slack(reached) < 0
        if not overdrawn.any():
            break
        reached = np.where(overdrawn, step_below(limits, lowered, grants), reached)
    return reached
