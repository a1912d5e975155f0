"""What an allocation policy is: it divides a problem, and says what its numbers mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from headgate.core.filling import fill
from headgate.core.laminar import Floats, Ints
from headgate.core.problem import Problem


@dataclass(frozen=True, slots=True, eq=False)
class Division:
    """A policy's answer for n pipelines."""

    grants: Ints
    """Millicores, n."""
    objective: float
    """What the policy makes as large as it can."""
    price: Floats | Callable[[], Floats]
    """What one more CPU would gain each pipeline, in the unit of `explain`, n, 0: nothing; or what finds it out."""
    bound: float | None = None
    """No division on the grants that were looked at has an objective higher by more than this; None: not known."""

    ideal: Floats | None = None
    """What the grants would be without steps, where the objective is of that; None: it is of the grants."""

    def prices(self) -> Floats:
        """`price`, found out now where it was not yet."""
        return self.price() if callable(self.price) else self.price


class Policy(Protocol):
    """Divides CPUs. Policies are values: the same problem gives the same division, in whatever order it comes."""

    @property
    def name(self) -> str:
        """As settings and reports call it."""
        ...

    def divide(self, problem: Problem) -> Division:
        """Grants within the problem's limits and space; the floors are known to fit."""
        ...

    def explain(self, problem: Problem, division: Division, index: int) -> str:
        """What pipeline `index` has by this policy and what one more CPU would gain it; a phrase for people."""
        ...


def by_class(problem: Problem, satisfied: Ints, rate: Floats) -> tuple[Ints, Floats]:
    """Water-filling from the floors with priority classes; the grants, and what they would be without steps.

    A higher class gets up to `satisfied` before a lower one gets anything above its floor; then all fill up together
    to their ceilings. With one class there is only the latter.
    """
    limits, space = problem.limits, problem.space
    grants, ideal = limits.floor, limits.floor.astype(np.float64)
    rate = rate / max(rate.max(initial=0.0), np.finfo(np.float64).tiny)
    classes = classes_of(limits.priority[limits.ceiling > limits.floor])
    if len(classes) > 1:
        enough = np.minimum(limits.ceiling, -(-satisfied // limits.step) * limits.step)
        for priority in classes:
            served = limits.priority == priority
            grants = fill(limits, space, grants, np.where(served, np.maximum(enough, grants), grants), rate)
            ideal = space.level_off(ideal, np.where(served, np.maximum(enough, ideal), ideal), rate)
    top = np.where(rate > 0, limits.ceiling, ideal)
    return fill(limits, space, grants, limits.ceiling, rate), space.level_off(ideal, top, rate)


def classes_of(priority: Ints) -> list[int]:
    """The priority classes that occur, the highest first."""
    one = not len(priority) or bool((priority == priority[0]).all())
    found: list[int] = (priority[:1] if one else np.unique(priority)[::-1]).tolist()
    return found
