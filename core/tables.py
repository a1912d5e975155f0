"""Which grants to look at: every step where they are few, otherwise a coarse grid that gets finer at the answer."""

from __future__ import annotations

import numpy as np

from headgate.core.laminar import Floats, Ints
from headgate.core.problem import Problem
from headgate.core.units import MILLI

MOST_STEPS = 32
"""Up to so many steps between the least and the most that a pipeline may have, all of them are looked at."""

FEW = 32
"""Up to so many pipelines get the denser grid."""

SOME = 256
"""Up to so many pipelines a table that gets finer keeps all its grants."""

FINE = 0.01
"""A grid is fine enough when its neighbouring grants differ by this share of themselves."""

# Where latency falls with CPUs: around the load, by multiples of its square root (square-root staffing, Halfin and
# Whitt 1981), and around the speed at which a lone request meets the SLO.
_OF_LOAD = np.array([0.85])
_OF_ROOT = np.array([0.0, 0.25, 0.55, 0.9, 1.4, 2.2, 3.6])
_OF_ROOT_FEW = np.concatenate((np.arange(0.0, 1.6, 0.1), [1.8, 2.2, 2.8, 3.6]))
"""The same where pipelines are few: how far one can be squeezed for another then decides."""
_OF_LEAST = np.array([1.1, 1.7])
_NEARER = np.array([-0.5, -0.15, 0.0, 0.15, 0.5])


def grid(problem: Problem, rows: Ints, low: Ints, high: Ints) -> tuple[Ints, bool]:
    """Grants from `low` to `high` to look at first, m x k, the least first, and whether these are all there are."""
    step = problem.limits.step[rows]
    most = int((-(-(high - low) // step)).max()) + 1
    if most <= MOST_STEPS:
        first = low // step * step
        return _stepped(first[:, None] + np.arange(most + 1) * step[:, None], low, high, step), True
    load, service = problem.load[rows], problem.wants.service_time[rows]
    latency = problem.limits.latency[rows]
    root = np.sqrt(load)
    of_root = _OF_ROOT_FEW if len(rows) <= FEW else _OF_ROOT
    parts = [load[:, None] * _OF_LOAD, load[:, None] + root[:, None] * of_root]
    least = service / np.where(np.isnan(latency), np.inf, latency)
    parts.append(least[:, None] * _OF_LEAST)
    queue = problem.wants.queue[rows]
    if queue.any():
        parts.append((load + queue * least)[:, None] * np.array([1.0, 1.5]))
    if problem.wants.arrivals.shape[1] > 1:
        peak = problem.wants.arrivals[rows].max(axis=1) * service
        parts.append(peak[:, None] + np.sqrt(peak)[:, None] * _OF_ROOT[1::2])
    wanted = (np.minimum(np.concatenate(parts, axis=1), 1e12) * MILLI).astype(np.int64)
    ends = [low[:, None], high[:, None]]
    if problem.calm:
        ends.append(np.clip(problem.current[rows], low, high)[:, None])
    return np.sort(np.concatenate((_stepped(wanted, low, high, step), *ends), axis=1), axis=1), False


def finer(problem: Problem, rows: Ints, table: Ints, column: Ints, expected: Floats) -> Ints | None:
    """More grants around the answer `column` (m) of `table`, denser near those `expected`; None when fine enough."""
    everyone = np.arange(len(rows))
    here = table[everyone, column]
    left = table[everyone, np.maximum(column - 1, 0)]
    right = table[everyone, np.minimum(column + 1, table.shape[1] - 1)]
    step = problem.limits.step[rows]
    widest = np.maximum(here - left, right - here)
    if not (widest > np.maximum(step, FINE * here)).any():
        return None
    wanted = np.rint(expected[:, None] + (widest * 0.5)[:, None] * _NEARER).astype(np.int64)
    return _stepped(wanted, left, right, step)


def expected(table: Ints, worth: Floats, column: Ints, price: Floats) -> Floats:
    """Where between the grants beside `column` (m) one more millicore brings just `price` (m), about.

    Taken as if the slope fell exponentially from the middle of the interval before to the middle of the one after:
    that is how the share of late requests falls.
    """
    everyone = np.arange(len(table))
    before, after = np.maximum(column - 1, 0), np.minimum(column + 1, table.shape[1] - 1)
    left, here, right = (table[everyone, at].astype(np.float64) for at in (before, column, after))
    low, value, high = (worth[everyone, at] for at in (before, column, after))
    tiny = 1e-300
    rising = np.maximum((value - low) / np.maximum(here - left, 1), tiny)
    rest = np.maximum((high - value) / np.maximum(right - here, 1), tiny)
    lower, upper = (left + here) / 2, (here + right) / 2
    fall = np.log(rising / np.minimum(rest, rising * 0.999))
    share = np.log(np.maximum(rising / np.maximum(price, tiny), tiny)) / fall
    return np.asarray(lower + (upper - lower) * np.clip(share, 0, 1))


def merged(
    table: Ints, values: Floats, column: Ints, kept: list[Ints], more: Ints, more_values: Floats
) -> tuple[Ints, Floats]:
    """`more` grants and their values put into `table` and its values, which are m x k and stay sorted.

    Where pipelines are many, of the old ones only the ends, the columns `kept` and what is beside the answer `column`.
    """
    if len(table) > SOME:
        last = table.shape[1] - 1
        beside = [np.maximum(column - 1, 0), column, np.minimum(column + 1, last)]
        known = np.stack((np.zeros_like(column), *kept, *beside, np.full_like(column, last)), axis=1)
        table, values = np.take_along_axis(table, known, axis=1), np.take_along_axis(values, known, axis=1)
    table, values = np.concatenate((table, more), axis=1), np.concatenate((values, more_values), axis=1)
    order = np.argsort(table, axis=1, kind="stable")
    order += (np.arange(len(table)) * table.shape[1])[:, None]
    return table.ravel()[order], values.ravel()[order]


def _stepped(wanted: Ints, low: Ints, high: Ints, step: Ints) -> Ints:
    multiples: Ints = -(-wanted // step[:, None]) * step[:, None]
    return np.minimum(np.maximum(multiples, low[:, None]), high[:, None])


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
