"""Part of the way: from the grants in force towards those wanted, no faster than the limit on moves allows."""

from __future__ import annotations

import numpy as np

from headgate.core.filling import fill
from headgate.core.laminar import Floats, Ints
from headgate.core.problem import Problem


def at_most(problem: Problem, wanted: Ints) -> Ints:
    """`wanted`, or grants between the current ones and those for which `most_moved` millicores change hands.

    Every pipeline that has too much gives the same share of it, in steps (at least one of them a step), and what that
    frees goes to those that miss something, in proportion to what they miss. Nothing is held back where a pipeline
    has no current grant, or where the current ones do not keep the limits: then the limits come first.
    """
    limits, current, most = problem.limits, problem.current, problem.most_moved
    if most is None or (current < 0).any():
        return wanted
    start = np.clip(current, limits.floor, limits.ceiling)
    excess = np.maximum(start - wanted, 0)
    if excess.sum() <= most or (problem.space.slack(start) < 0).any():
        return wanted
    share = most / float(excess.sum())
    given = np.floor(excess * share / limits.step).astype(np.int64) * limits.step
    if not given.any():
        largest = int(np.lexsort((limits.rank, -excess))[0])
        given[largest] = min(limits.step[largest], excess[largest])
    missing: Floats = np.maximum(wanted - start, 0).astype(np.float64)
    return fill(limits, problem.space, start - given, np.where(missing > 0, wanted, start - given), missing)
