"""Paths through tables: the grants that each pipeline would have, one after another, as the price of a CPU falls.

A path follows the upper concave envelope of a row's worth, most gain per millicore first; for a shortfall, where it
falls. What is left out of a row is never the best answer to any price.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headgate.core.laminar import Bools, Floats, Ints

EVEN = 1e-9
"""Share by which a slope may rise and still count as even: rounding."""


@dataclass(frozen=True, slots=True, eq=False)
class Paths:
    """The paths of m rows, one after another in arrays of v points."""

    column: Ints
    """Of the table, v; rising within a row."""
    amount: Ints
    """Millicores at each point, v."""
    size: Ints
    """Millicores from each point to the next of its row, v; 0 at its last."""
    row: Ints
    """Whose point it is, v."""
    first: Ints
    """Where each row's points begin, m + 1."""
    price: Floats
    """At which a row goes on from a point to its next, v; falling within a row; -inf at its last."""

    def gain(self) -> Floats:
        """What each row's step from a point brings, v; 0 at its last."""
        return np.asarray(np.where(self.size > 0, self.price, 0.0) * self.size)

    def beside(self, point: Ints) -> list[Ints]:
        """The columns of the two points before and the two after `point` (m, one of each row)."""
        lowest, highest = self.first[:-1], self.first[1:] - 1
        return [self.column[np.minimum(np.maximum(point + away, lowest), highest)] for away in (-2, -1, 1, 2)]


def by_slope(table: Ints, worth: Floats) -> Paths:
    """Along the upper concave envelope of `worth` over `table` (m x k millicores, rising); price: worth per millicore.

    Points under the chord of their neighbours are left out until none is: each pass is as long as what is left. First
    goes what lies before the steepest way up from the start: nearly all there is before a knee.
    """
    width = table.shape[1]
    steepness = worth - worth[:, :1]
    steepness /= np.maximum(table - table[:, :1], 0.5)
    steepest = (steepness >= steepness.max(axis=1, keepdims=True) * (1 - EVEN)).argmax(axis=1)
    keep = np.arange(width) >= steepest[:, None]
    keep[:, 1:] &= table[:, 1:] > table[:, :-1]
    keep[:, 0] = True
    kept = keep.ravel().nonzero()[0]
    amount, value = table.ravel()[kept], worth.ravel()[kept]
    row = kept // width
    begins = np.ones(len(kept), dtype=np.bool_)
    np.not_equal(row[1:], row[:-1], out=begins[1:])
    while True:
        size, slope = _slopes(amount, value)
        inner = ~(begins[1:-1] | begins[2:])
        rising = slope[:-1] < slope[1:]
        rising &= inner
        if not rising.any():
            break
        under = slope[:-1] * (1 + EVEN) < slope[1:]
        under &= rising
        if not under.any():
            # Slopes that rise by rounding would let a later step of a row go before an earlier one.
            slope = _level(slope, inner)
            break
        left = np.ones(len(kept), dtype=np.bool_)
        np.logical_not(under, out=left[1:-1])
        kept, amount, value, begins = kept[left], amount[left], value[left], begins[left]
    return _paths(kept, width, amount, size, begins, slope)


def by_shortfall(table: Ints, shortfall: Floats, least: float) -> Paths:
    """Where `shortfall` (m x k) falls along `table` by `least` per millicore; price: what there is, the worst first."""
    falls = np.ones(table.shape, dtype=np.bool_)
    lowest = np.minimum.accumulate(shortfall, axis=1)
    falls[:, 1:] = lowest[:, :-1] - shortfall[:, 1:] > least * (table[:, 1:] - table[:, :-1])
    kept = falls.ravel().nonzero()[0]
    amount = table.ravel()[kept]
    return _paths(
        kept, table.shape[1], amount, amount[1:] - amount[:-1], kept % table.shape[1] == 0, shortfall.ravel()[kept[:-1]]
    )


def _slopes(amount: Ints, value: Floats) -> tuple[Ints, Floats]:
    size = amount[1:] - amount[:-1]
    slope = value[1:] - value[:-1]
    slope /= np.maximum(size, 0.5)
    return size, slope


def _level(slope: Floats, inner: Bools) -> Floats:
    """`slope` where none is above the one before it in its row."""
    while len(rising := ((slope[1:] > slope[:-1]) & inner).nonzero()[0]):
        slope[rising + 1] = slope[rising]
    return slope


def _paths(kept: Ints, width: int, amount: Ints, size: Ints, begins: Bools, price: Floats) -> Paths:
    """Of the cells `kept` of a table; `size` and `price` lead to the next one."""
    row = kept // width
    starts = begins.nonzero()[0]
    first = np.empty(len(starts) + 1, dtype=np.int64)
    first[:-1], first[-1] = starts, len(kept)
    last = first[1:] - 1
    ends, prices = np.empty(len(kept), dtype=np.int64), np.empty(len(kept))
    ends[:-1], prices[:-1] = size, price
    ends[last], prices[last] = 0, -np.inf
    return Paths(kept - row * width, amount, ends, row, first, prices)
