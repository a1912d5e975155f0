"""Which grants to look at: every step where they are few, otherwise a coarse grid that gets finer at the answer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headgate.core.laminar import Bools, Floats, Ints
from headgate.core.problem import Problem
from headgate.core.units import MILLI

MOST_STEPS = 32
"""Up to so many steps between the least and the most that a pipeline may have, all of them are looked at."""

FEW = 32
"""Up to so many pipelines get the denser grid."""

SOME = 256
"""Up to so many pipelines a table that gets finer keeps all its grants."""

EVENLY = 32
"""How many grants are looked at where a jump that does not fit leaves much over."""

FINE = 0.01
"""A grid is fine enough when its neighbouring grants differ by this share of themselves."""

# Where latency falls with CPUs: around the load, by multiples of its square root (square-root staffing, Halfin and
# Whitt 1981), and around the speed at which a lone request meets the SLO.
_OF_LOAD = np.array([0.85])
_OF_ROOT = np.array([0.0, 0.25, 0.55, 0.9, 1.4, 2.2, 3.6])
_OF_ROOT_FEW = np.concatenate((np.arange(0.0, 1.6, 0.1), [1.8, 2.2, 2.8, 3.6]))
"""The same where pipelines are few: how far one can be squeezed for another then decides."""
_AMPLE = 4.5
"""Square roots of the load above it, from where on there is hardly anything to gain."""
_OF_LEAST = np.array([1.1, 1.7])
_TINY = 1e-300
_BESIDE = np.array([0.06, 0.2, 0.5])
_NEARER = np.array([-0.5, -0.15, 0.0, 0.15, 0.5])


def grid(problem: Problem, rows: Ints, low: Ints, high: Ints) -> tuple[Ints, bool]:
    """Grants from `low` to `high` to look at first, m x k, the least first, and whether these are all there are."""
    step = problem.limits.step[rows]
    most = int((-(-(high - low) // step)).max()) + 1
    if most <= MOST_STEPS:
        first = low // step * step
        return _stepped(first[:, None] + np.arange(most + 1.0) * step[:, None], low, high, step), True
    load, service = problem.load[rows], problem.wants.service_time[rows]
    latency = problem.limits.latency[rows]
    root = np.sqrt(load)
    of_root = _OF_ROOT_FEW if len(rows) <= FEW else _OF_ROOT
    parts = [load[:, None] * _OF_LOAD, load[:, None] + root[:, None] * of_root]
    # Without an SLO a share of the load is worth that share.
    least = np.where(np.isnan(latency), load / 3, service / latency)
    parts.append(least[:, None] * _OF_LEAST)
    queue = problem.wants.queue[rows]
    if queue.any():
        parts.append((load + queue * least)[:, None] * np.array([1.0, 1.5]))
    if problem.wants.arrivals.shape[1] > 1:
        peak = problem.wants.arrivals[rows].max(axis=1) * service
        parts.append(peak[:, None] + np.sqrt(peak)[:, None] * _OF_ROOT[1::2])
    wanted = np.concatenate(parts, axis=1)
    np.minimum(wanted, 1e12, out=wanted)
    wanted *= MILLI
    others = [low, high]
    if problem.calm:
        others.append(np.minimum(np.maximum(problem.current[rows], low), high))
    table = np.column_stack((_stepped(np.floor(wanted, out=wanted), low, high, step), *others))
    table.sort(axis=1)
    return table, False


def ample(problem: Problem, rows: Ints, table: Ints) -> int:
    """How many of the first columns of a table of all steps reach beyond what the highest scenarios need, about."""
    peak = problem.wants.arrivals[rows].max(axis=1) * problem.wants.service_time[rows]
    need = np.minimum(peak + np.sqrt(peak) * _AMPLE + 1, 1e12) * MILLI
    return int(_count(table < need[:, None]).max()) + 1


def last_step(problem: Problem, rows: Ints, table: Ints) -> Ints:
    """The smallest step in the rows of a table of all steps, m: the last, where that is not a whole one."""
    step = problem.limits.step[rows]
    rest = table[:, -1] % step
    return np.where(rest > 0, rest, step)


@dataclass(frozen=True, slots=True, eq=False)
class Near:
    """The grants of m rows of a table beside an answer; the same one where there is none."""

    before: Ints
    """The largest grant that is less; this and the next two as columns of the table, m."""
    here: Ints
    after: Ints
    """The least that is more."""
    grants: tuple[Ints, Ints, Ints]
    """What the three are, m each."""

    @classmethod
    def of(cls, table: Ints, column: Ints) -> Near:
        """Around the answer `column` (m)."""
        first = _first(table)
        here = table.ravel()[first + column]
        before = np.maximum(_count(table < here[:, None]) - 1, 0)
        after = np.minimum(_count(table <= here[:, None]), table.shape[1] - 1)
        grants = table.ravel()[first + before], here, table.ravel()[first + after]
        return cls(before, column, after, grants)

    def of_each(self, values: Floats) -> tuple[Floats, Floats, Floats]:
        """What the three are in `values` (m x k)."""
        first, flat = _first(values), values.ravel()
        return flat[first + self.before], flat[first + self.here], flat[first + self.after]


def _first(table: Floats | Ints) -> Ints:
    return np.arange(0, table.size, table.shape[1])


def _count(which: Bools) -> Ints:
    count: Ints = np.add.reduce(which, axis=1, dtype=np.int64)
    return count


def finer(problem: Problem, rows: Ints, near: Near, expected: Floats) -> Ints | None:
    """More grants around an answer, denser near those `expected` (m); None when the table is fine enough there."""
    left, here, right = near.grants
    step = problem.limits.step[rows]
    widest = np.maximum(here - left, right - here)
    if not (widest > np.maximum(step, FINE * here)).any():
        return None
    wanted = expected[:, None] + (widest * 0.5)[:, None] * _NEARER
    if len(rows) <= FEW:
        below, above = (here - left)[:, None] * -_BESIDE, (right - here)[:, None] * _BESIDE
        wanted = np.concatenate((wanted, here[:, None] + below, here[:, None] + above), axis=1)
    return _stepped(np.rint(wanted), left, right, step)


def evenly(problem: Problem, rows: Ints, low: Ints, high: Ints) -> Ints:
    """Grants from `low` to `high` at the same distances, whatever the load: m x EVENLY."""
    share = np.arange(1, EVENLY + 1) / EVENLY
    return _stepped(np.rint(low[:, None] + (high - low)[:, None] * share), low, high, problem.limits.step[rows])


def expected(worth: Floats, near: Near, price: Floats) -> tuple[Floats, float]:
    """Where around an answer one more millicore brings just `price` (m); and what may be gained by looking there.

    As if the slope fell exponentially from the middle of the interval before to the middle of the one after: that is
    how the share of late requests falls. A curve whose slope changes by d over an interval h lies up to h d / 8 above
    its chord.
    """
    left, here, right = near.grants
    low, value, high = near.of_each(worth)
    behind, ahead, gained = here - left, right - here, high - value
    rising = np.maximum((value - low) / np.maximum(behind, 1), _TINY)
    rest = np.minimum(np.maximum(gained / np.maximum(ahead, 1), _TINY), rising * 0.999)
    half = (behind + ahead) * 0.5
    share = np.log(rising / np.maximum(price, _TINY))
    share /= np.log(rising / rest)
    # Beyond the price only what lies on the way to it counts: the rest of an interval nobody takes.
    change = np.minimum(rising, price * 4) - np.maximum(rest, price * 0.25)
    missed = np.where(behind > 0, np.minimum(half, here) * np.maximum(change, 0), gained)
    where = (left + here) * 0.5 + half * np.minimum(np.maximum(share, 0), 1)
    return where, float(missed.sum()) / 8


def level_with(shortfall: Floats, near: Near, price: Floats) -> Floats:
    """Where around an answer the shortfall comes down to `price` (m), about: as if it fell exponentially."""
    left, here, right = near.grants
    high, value, low = (np.maximum(part, _TINY) for part in near.of_each(shortfall))
    goal = np.maximum(price, _TINY)
    above, below = goal >= value, goal < value
    start, end = np.where(above, left, here), np.where(above, here, right)
    first, last = np.where(above, high, value), np.where(below, low, value)
    fall = np.log(np.maximum(first / last, 1.001))
    return np.asarray(start + (end - start) * np.minimum(np.maximum(np.log(first / goal) / fall, 0), 1))


def merged(
    table: Ints, values: Floats, near: Near, kept: list[Ints] | None, more: Ints, more_values: Floats
) -> tuple[Ints, Floats]:
    """`more` grants and their values put into `table` and its values, which are m x k and stay sorted.

    Of the old ones all, or only the ends, the columns `kept` and what is beside the answer.
    """
    width = table.shape[1]
    if kept is not None:
        ends = np.zeros_like(near.here), np.full_like(near.here, width - 1)
        known = np.stack((*ends, *kept, near.before, near.here, near.after), axis=1)
        known += _first(table)[:, None]
        table, values = table.ravel()[known], values.ravel()[known]
    table, values = np.concatenate((table, more), axis=1), np.concatenate((values, more_values), axis=1)
    order = table.argsort(axis=1, kind="stable")
    order += _first(table)[:, None]
    return table.ravel()[order], values.ravel()[order]


def _stepped(wanted: Floats, low: Ints, high: Ints, step: Ints) -> Ints:
    """Whole numbers up to the next multiples of the steps; in floats, where dividing is ten times as fast."""
    multiples = np.ceil(wanted / step[:, None])
    multiples *= step[:, None]
    np.maximum(multiples, low[:, None], out=multiples)
    np.minimum(multiples, high[:, None], out=multiples)
    return multiples.astype(np.int64)


def moved(problem: Problem, rows: Ints, grants: Ints, values: Floats, now: Floats | None) -> Floats:
    """`values` in which a CPU that has to move counts by what is left of the horizon.

    `now`: the values at the current grants, m; what lies above them is worth only the share `arriving`, less the price.
    """
    if now is None:
        return values
    current = problem.current[rows, None]
    above = (current >= 0) & (grants > current)
    gain = problem.arriving * (values - now[:, None]) - problem.price * (grants - current) / MILLI
    return np.where(above, now[:, None] + gain, values)
