"""Nested budgets: groups of pipelines inside groups, the whole around them, and cutting wishes down to them.

A family of sets is laminar when any two are either nested or disjoint. Over such a family the greedy answer to a
separable concave objective is optimal (Federgruen and Groenevelt 1986), and it can be had from the inside out: what a
group cannot hold of its members' wishes is cut off at one level common to its members; then the group around it does
the same with what is left of the wishes, and last the whole budget. Every function here works on all groups of one
depth at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

UNLIMITED = 2**52
"""More millicores than there are; sums of it stay exact in floats."""


@dataclass(frozen=True, slots=True, eq=False)
class Level:
    """The groups of one depth."""

    member: Ints
    """For each pipeline the index of its group here."""
    budget: Ints
    """Millicores of each group; the last one is UNLIMITED where some pipelines are in no group of this depth."""
    names: tuple[str, ...]
    """Of the groups; "" is the whole budget, or none."""

    def sums(self, amounts: npt.NDArray[np.generic]) -> Floats:
        """What each group holds of `amounts` (one per pipeline); integers below 2**53 add up exactly."""
        if len(self.budget) == 1:
            return np.array([amounts.sum()], dtype=np.float64)
        return np.asarray(np.bincount(self.member, weights=amounts, minlength=len(self.budget)), dtype=np.float64)

    def slack(self, grants: Ints) -> Ints:
        """Millicores that each group has left."""
        return self.budget - self.sums(grants).astype(np.int64)


Tree = tuple[Level, ...]
"""All depths, the innermost groups first, the whole budget last."""


def build(
    total: int, member: Sequence[int] | Ints, budgets: Sequence[int], parents: Sequence[int], names: Sequence[str]
) -> Tree:
    """The levels of a forest of groups under the whole budget of `total` millicores.

    `member`: for each pipeline the index of its innermost group, -1 for none. `parents`: for each group the index of
    the group around it, -1 for none; they must not form a cycle.
    """
    group = np.array(member, dtype=np.int64)
    parent = np.asarray(parents, dtype=np.int64)
    depth = np.zeros(len(parent), dtype=np.int64)
    above = parent.copy()
    while (inside := above >= 0).any():
        depth[inside] += 1
        above[inside] = parent[above[inside]]
    levels = []
    for deep in range(int(depth.max(initial=-1)), -1, -1):
        here = np.flatnonzero(depth == deep)
        position = np.full(len(parent) + 1, len(here), dtype=np.int64)  # the last one serves index -1
        position[here] = np.arange(len(here))
        budget = np.append(np.asarray(budgets, dtype=np.int64)[here], UNLIMITED)
        levels.append(Level(position[group], budget, (*(names[g] for g in here.tolist()), "")))
        leaving = position[group] < len(here)
        group[leaving] = parent[group[leaving]]
    return (*levels, Level(np.zeros(len(group), dtype=np.int64), np.array([total], dtype=np.int64), ("",)))


def cut(level: Level, lower: Ints | Floats, upper: Floats, rate: Floats) -> Floats:
    """`upper`, lowered where a group cannot hold it to clip(t * rate, lower, upper) with one t for each such group.

    Each group must be able to hold its members' `lower`. A member of such a group with rate 0 falls to its `lower`.
    Cost: one sort of the members of the groups that overflow.
    """
    over = level.sums(upper) > level.budget
    if not over.any():
        return upper
    moving = (rate > 0) & (upper > lower)
    result = upper
    if len(over) > 1:
        overfull = over[level.member]
        result = np.where(overfull, lower, upper)
        moving &= overfull
    else:
        result = lower.astype(np.float64)
    members = np.flatnonzero(moving)
    if not len(members):
        return result
    group, low, high, speed = level.member[members], lower[members], upper[members], rate[members]
    room = level.budget - level.sums(result)
    time = fill_time(group, room, low, high, speed)
    result[members] = np.clip(time[group] * speed, low, high)
    return result


def fill_time(group: Ints, room: Floats, low: Ints | Floats, high: Floats, speed: Floats) -> Floats:
    """For each group the t at which its members' clip(t * speed, low, high) holds `room` more than their `low`.

    The sum over a group is piecewise linear in t: a member joins at low/speed and leaves at high/speed. Groups without
    members here get 0; a group with more room than its members can take gets the t at which the last one is full.
    """
    points = np.concatenate((low / speed, high / speed))
    both = np.concatenate((group, group))
    order = np.argsort(points, kind="stable") if len(room) == 1 else np.lexsort((points, both))
    points, both = points[order], both[order]
    # Between two points the sum above `low` is slope * t + offset. The terms of a whole group cancel out, so that one
    # running sum over all groups starts afresh in each, rounding aside.
    slope: Floats = np.cumsum(np.concatenate((speed, -speed))[order])
    offset: Floats = np.cumsum(np.concatenate((-low, high))[order])
    first = np.searchsorted(both, np.arange(len(room)), side="left")
    end = np.searchsorted(both, np.arange(len(room)), side="right")
    present = end > first
    if len(room) > 1:
        starts = np.maximum(first - 1, 0)
        used = np.where(first > 0, 1.0, 0.0)
        slope -= (slope[starts] * used)[both]
        offset -= (offset[starts] * used)[both]
    held = slope * points + offset
    last = first + np.bincount(both[held < room[both]], minlength=len(room)) - 1
    last = np.clip(last, first, np.maximum(end - 1, first))
    time = np.zeros(len(room))
    here, following = last[present], np.minimum(last[present] + 1, end[present] - 1)
    steep = np.maximum(slope[here], np.finfo(np.float64).tiny)
    wanted = np.where(slope[here] > 0, (room[present] - offset[here]) / steep, points[here])
    time[present] = np.clip(wanted, points[here], points[following])
    return time
