"""The exact division for few pipelines: a multiple-choice knapsack over their tables, by dynamic programming.

Greedy by price is optimal for concave worths. An SLO's knee is not concave: nearly all of a worth comes at once, and
with few pipelines the one whose jump does not fit leaves a good part of the budget to those that gain nothing by it.
Here every combination counts: `best[r]` is the largest worth of the items so far within r units, and an item adds
max over its columns k of best[r - cost k] + worth k (Dudzinski and Walukiewicz 1987). Budgets that are nested are
solved from the inside out: a group's `best` is an item of the group around it, which can be given any share of its
budget. Sets of nodes cross groups; they get a price each, which is raised while what is best draws too much on them and
lowered while it does not (Lagrangian relaxation; the step is Polyak's).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headgate.core.filling import Space
from headgate.core.laminar import UNLIMITED, Floats, Ints, Tree

MOST_ROWS = 32
"""Beyond so many pipelines one jump is a small part of the whole, and this would cost more than it gains."""

CELLS = 400
"""Units that a budget is cut into at the most. Grants round up to units, so that they always fit."""

PRICINGS = 12
"""How often the prices of node sets are tried anew."""


@dataclass(frozen=True, slots=True, eq=False)
class _Item:
    """A row of the table, or a group whose inside is solved."""

    costs: Ints
    """Units of each choice, the first one 0."""
    worths: Floats
    row: int = -1
    choices: tuple[tuple[_Item, Ints], ...] = ()
    """Of a group: its items and, for each of them, the choice that is best with r units for it and those before."""


def improved(space: Space, rows: Ints, grants: Ints, table: Ints, worth: Floats, column: Ints) -> Ints:
    """`column`, a choice of each row of `table` that is known to fit, or a better one; arguments as of `choose`."""
    everyone = np.arange(len(rows))
    value = float(worth[everyone, column].sum())
    within = np.array([np.isin(rows, limit.members) for limit in space.cuts], dtype=np.float64).reshape(-1, len(rows))
    spare = np.array([limit.room - int(grants[limit.members].sum()) for limit in space.cuts]) + within @ grants[rows]
    price = np.zeros(len(space.cuts))
    for _ in range(PRICINGS):
        paid = worth - (price @ within)[:, None] * table
        chosen = choose(space.tree, rows, grants, table, paid)
        amount = table[everyone, chosen]
        over = within @ amount - spare
        if (over <= 0).all():
            if (reached := float(worth[everyone, chosen].sum())) > value:
                value, column = reached, chosen
            if not price.any():
                break
        most = float(paid[everyone, chosen].sum() + price @ spare)
        moving = np.where(price > 0, over, np.maximum(over, 0))
        if most <= value or not moving.any():
            break
        price = np.maximum(0, price + (most - value) / float(moving @ moving) * moving)
    return column


def choose(tree: Tree, rows: Ints, grants: Ints, table: Ints, worth: Floats) -> Ints:
    """The column of each row of `table` (m x k millicores of pipelines `rows`, the least first) that together are best.

    `worth`: m x k. `grants`: millicores of all n pipelines; those in `rows` have at least column 0, which is known to
    fit. Exact where budgets are at most CELLS units of the table's common divisor.
    """
    least = table[:, :1]
    fixed = grants.copy()
    fixed[rows] = least[:, 0]
    room = int(tree[-1].slack(fixed)[0])
    extra = table - least
    unit = max(1, int(np.gcd.reduce(extra, axis=None)), -(-min(room, int(extra.max(axis=1).sum())) // CELLS))
    costs = -(-extra // unit)
    items = [_Item(costs[row], worth[row], row) for row in range(len(rows))]
    where = rows.copy()
    for level in tree:
        slack = level.slack(fixed)
        member = level.member[where]
        kept, places = [], []
        for group in np.unique(member).tolist():
            inside = np.flatnonzero(member == group)
            some = [items[index] for index in inside.tolist()]
            if level.budget[group] >= UNLIMITED:
                kept += some
                places += where[inside].tolist()
            else:
                kept.append(_combine(some, int(slack[group]) // unit))
                places.append(int(where[inside[0]]))
        items, where = kept, np.array(places, dtype=np.int64)
    column = np.zeros(len(rows), dtype=np.int64)
    _follow(items[0], int(items[0].worths.argmax()), column)
    return _use_rounding(tree, rows, fixed, table, worth, column)


def _use_rounding(tree: Tree, rows: Ints, grants: Ints, table: Ints, worth: Floats, column: Ints) -> Ints:
    """What rounding up to units left over, to the first that gain by it."""
    held = grants.copy()
    held[rows] = table[np.arange(len(rows)), column]
    for index, row in enumerate(rows.tolist()):
        room = min(int(level.slack(held)[level.member[row]]) for level in tree)
        open_ = table[index] <= held[row] + room
        best = int(np.where(open_, worth[index], -np.inf).argmax())
        if worth[index, best] > worth[index, column[index]]:
            column[index], held[row] = best, table[index, best]
    return column


def _combine(items: list[_Item], room: int) -> _Item:
    cells = min(room, sum(int(item.costs.max()) for item in items)) + 1
    best = np.zeros(cells)
    units = np.arange(cells)
    choices = []
    for item in items:
        left = units - item.costs[:, None]
        worths = np.where(left >= 0, best[np.maximum(left, 0)] + item.worths[:, None], -np.inf)
        chosen = worths.argmax(axis=0)
        best = worths[chosen, units]
        choices.append((item, chosen))
    return _Item(units, best, choices=tuple(choices))


def _follow(item: _Item, choice: int, column: Ints) -> None:
    if item.row >= 0:
        column[item.row] = choice
        return
    left = choice
    for inner, chosen in reversed(item.choices):
        taken = int(chosen[left])
        _follow(inner, taken, column)
        left -= int(inner.costs[taken])
