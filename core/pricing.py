"""Greedy division over tables by prices: what each pipeline takes at a price per millicore, and the price that fits.

At a price p a pipeline takes the grant at which worth - p x grant is largest. As p falls it moves along the upper
concave envelope of its table, most gain per millicore first: the greedy order, which over nested budgets is optimal
for concave worths (Federgruen and Groenevelt 1986). So no envelope need be built and nothing sorted: each group's price
is found by bisection, the inner groups first, and a pipeline pays the highest price of the groups around it.

Where a worth is not concave (the knee of an SLO: worthless until it is nearly met) a pipeline jumps at some price from
one grant to a much larger one, and a jump that does not fit leaves a budget partly unused. By Lagrangian duality no
division is worth more than what was taken plus, for each budget, its price times what it has left: `Taken.bound`. What
is lost is less than one jump of one pipeline for each budget that is used up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from headgate.core.filling import Space
from headgate.core.laminar import UNLIMITED, Floats, Ints, Level

Pick = Callable[[Ints, Floats], Ints]
"""(rows, a price for each) -> the column of a table that each of them takes: never more grants at a higher price."""

HALVINGS = 34
LEAST = 2.0**-44
"""Prices below the highest times this count as nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class Taken:
    """What the m rows of a table take."""

    column: Ints
    price: Floats
    """What each row pays, m."""
    unused: float
    """The price of each budget times what it has left: no division is worth more than this on top."""


def settle(space: Space, grants: Ints, rows: Ints, table: Ints, pick: Pick, highest: float, price: Floats) -> Taken:
    """The columns that the rows of `table` (m x k millicores of pipelines `rows`) take at the lowest prices that fit.

    `grants`: of all n pipelines; those in `rows` have at least column 0. Nobody takes more than that at `highest`.
    `price`: what each row pays at the least.
    """
    everyone = np.arange(len(rows))
    column = pick(everyone, price)
    unused = 0.0
    fixed = grants.copy()
    fixed[rows] = 0
    for level in space.tree:
        member = level.member[rows]
        room = level.budget - level.sums(fixed)
        wanted = _by_group(level, member, table[everyone, column])
        over = wanted > room
        if not over.any():
            continue
        group_price = _fitting(level, member, room, over, table, pick, price, highest)
        price = np.maximum(price, group_price[member])
        column = pick(everyone, price)
        left = room - _by_group(level, member, table[everyone, column])
        unused += float((group_price * left)[over].sum())
    return Taken(column, price, unused)


def _fitting(
    level: Level,
    member: Ints,
    room: Floats,
    over: np.ndarray,
    table: Ints,
    pick: Pick,
    price: Floats,
    highest: float,
) -> Floats:
    """The lowest price of each group in `over` at which its members fit, 0 for the others."""
    active = np.flatnonzero(over[member])
    settled = np.zeros(len(room))
    low, high = np.full(len(room), LEAST), np.ones(len(room))  # shares of `highest`
    cheap = table[active, pick(active, np.maximum(price[active], LEAST * highest))]
    dear = table[active, 0]
    for _ in range(HALVINGS):
        middle = np.sqrt(low * high)
        taken = table[active, pick(active, np.maximum(price[active], middle[member[active]] * highest))]
        fits = settled + _by_group(level, member[active], taken) <= room
        high, low = np.where(fits, middle, high), np.where(fits, low, middle)
        fitting = fits[member[active]]
        dear, cheap = np.where(fitting, taken, dear), np.where(fitting, cheap, taken)
        certain = dear == cheap
        if certain.any():
            settled += _by_group(level, member[active[certain]], taken[certain])
            keep = ~certain
            active, dear, cheap = active[keep], dear[keep], cheap[keep]
            if not len(active):
                break
    return np.where(over, high * highest, 0.0)


def _by_group(level: Level, member: Ints, amounts: Ints) -> Floats:
    if len(level.budget) == 1:
        return np.array([amounts.sum()], dtype=np.float64)
    return np.asarray(np.bincount(member, weights=amounts, minlength=len(level.budget)), dtype=np.float64)


def take(
    space: Space, grants: Ints, rows: Ints, rank: Ints, table: Ints, pick: Pick, highest: float, repairs: int = 1
) -> Taken:
    """Like `settle`, node sets included, and what a jump that does not fit leaves over goes to the others.

    That takes up to `repairs` rounds. Ties go by `rank` (of all n pipelines).
    """
    least = np.zeros(len(rows))
    bound = None
    everyone = np.arange(len(rows))
    for _ in range(repairs):
        taken = _settle_with_nodes(space, grants, rows, table, pick, highest, least)
        bound = taken.unused if bound is None else bound
        column = taken.column
        following = pick(everyone, taken.price * (1 - 1e-6))
        size = table[everyone, following] - table[everyone, column]
        jumping = np.flatnonzero(size > 0)
        if not len(jumping):
            break
        held, sizes = grants.copy(), np.zeros(len(grants), dtype=np.int64)
        held[rows], sizes[rows] = table[everyone, column], size
        order = jumping[np.lexsort((rank[rows[jumping]], -taken.price[jumping]))]
        fits = np.isin(rows, space.admit(rows[order], sizes, held))
        column = np.where(fits, following, column)
        held[rows] = table[everyone, column]
        stuck = (size > 0) & ~fits
        if not stuck.any() or not space.slack(held)[rows[~stuck]].any():
            break
        least[stuck] = taken.price[stuck]
    return Taken(column, taken.price, bound or 0.0)


def _settle_with_nodes(
    space: Space, grants: Ints, rows: Ints, table: Ints, pick: Pick, highest: float, least: Floats
) -> Taken:
    """Node sets cross the groups: they are applied in the order in which they fill up as prices fall."""
    price, pending = least, list(space.cuts)
    while True:
        taken = settle(space, grants, rows, table, pick, highest, price)
        first: tuple[float, int, Ints] | None = None
        for index, limit in enumerate(pending):
            inside = np.flatnonzero(np.isin(rows, limit.members))
            fixed = int(grants[limit.members].sum() - grants[rows[inside]].sum())
            if fixed + table[inside, taken.column[inside]].sum() > limit.room:
                member = np.ones(len(rows), dtype=np.int64)
                member[inside] = 0
                level = Level(member, np.array([limit.room, UNLIMITED]), ("", ""))
                room = np.array([limit.room - fixed, float(UNLIMITED)])
                over = np.array([True, False])
                found = float(_fitting(level, member, room, over, table, pick, taken.price, highest)[0])
                if first is None or found > first[0]:
                    first = found, index, inside
        if first is None:
            return taken
        found, index, inside = first
        pending.pop(index)
        price = price.copy()
        price[inside] = np.maximum(price[inside], found)
