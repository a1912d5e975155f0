"""allocate(): divides the CPU budget among the pipelines. The algorithm, from here, in five minutes:

1. The limits become columns (`limits.py`), the demands too (`problem.py`). Pinned pipelines and those of unknown demand
   keep what they have: their floor and ceiling are what they have. If not even the floors fit, the smallest set of
   limits that contradict each other is the error.
2. A policy (`policies/`) says who comes next at every point: whoever is lowest in grant / (weight x load), say, or
   whoever gains most from the next step. What such a rule divides without other limits is closed form or one sort.
3. Nested budgets are applied from the inside out (`laminar.py`), which for nested sets is optimal: each group cuts
   what its members would take down to its budget at one level, then the group around it, then the whole.
4. Grants are rounded down to steps and what is left over is handed out a step each, in the policy's order, where all
   budgets around still allow it (`filling.py`).
5. Replicas live on nodes (`placement.py`): a maximum flow spreads the grants. Where it cannot, it returns the pipelines
   that stand in each other's way and the room on their nodes, which is one more limit; then again from 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from headgate.core.calm import RESTLESS, Calm
from headgate.core.filling import Space
from headgate.core.limits import Limits, compile_limits
from headgate.core.model import Budget, Demands, Pipeline
from headgate.core.pacing import at_most
from headgate.core.placement import Flow
from headgate.core.policies import Division, Policy, find_policy
from headgate.core.problem import Problem, Wants, columns_of, pose, unknown_reason
from headgate.core.reasons import Explanation, Numbers, Texts
from headgate.core.units import MILLI


@dataclass(frozen=True, slots=True)
class Allocation:
    """Who gets how many millicores, and why."""

    grants: Mapping[str, int]
    reasons: Mapping[str, str]
    """One line for each pipeline; written when read."""
    unmet: Mapping[str, int]
    """Millicores of offered load that the grant does not cover."""
    replicas: Mapping[str, int] = field(default_factory=dict)
    """Millicores of each replica; those of a pipeline sum to its grant."""
    objective: float = 0.0
    """What the policy makes as large as it can; see the policy for its unit."""
    shadow_prices: Mapping[str, float] = field(default_factory=dict)
    """What one more CPU would gain each pipeline, in the policy's unit; found out when read."""
    bound: float | None = None
    """No division on the grants that were looked at has an objective higher by more than this; None: not known."""

    complete: bool = True
    """False: more would have moved but for the limit on what one decision may move."""

    @property
    def total_unmet(self) -> int:
        """Millicores that are missing altogether."""
        return sum(self.unmet.values())


def allocate(
    pipelines: Sequence[Pipeline],
    demands: Demands,
    budget: Budget,
    *,
    current: Mapping[str, int],
    policy: str | Policy = "proportional",
    calm: Calm = RESTLESS,
    limits: Limits | None = None,
) -> Allocation:
    """Divide `budget` among `pipelines`; all of it is granted unless ceilings, groups or nodes stand against it.

    `current`: millicores in force now, by pipeline; may be empty. A pipeline whose demand is unknown keeps its
    `current`; without one it counts as idle. Raises Infeasible when the limits contradict each other, ValueError on
    values that make no sense (NaN, negative rates, unknown groups, names given twice). Of `calm` the cost of a move
    and the limit on moves apply here; when to divide anew at all is up to the caller (`decision.decide`). `limits`:
    those of `pipelines` and `budget`, where the caller has them compiled.
    """
    if limits is None:
        limits = compile_limits(pipelines, budget)
    posed = pose(limits, Wants.of(limits.names, demands), columns_of(limits.names, current))
    # A utility of 1 for each pipeline over the whole budget is what CPUs bring in the mean, at best.
    mean = float((posed.load > 0).sum()) / max(limits.total / MILLI, 1e-3)
    problem = replace(posed, arriving=calm.arriving, price=calm.price * mean, most_moved=calm.most_moved)
    chosen = find_policy(policy) if isinstance(policy, str) else policy
    solution = solve(problem, chosen)
    division, names = solution.division, limits.names
    held = {
        index: "pinned" if pipelines[index].pinned else unknown_reason(demands, names[index])
        for index in np.flatnonzero(problem.held).tolist()
    }
    explanation = Explanation(solution.problem, chosen, division, held)
    missing = np.maximum(0, np.ceil(problem.wants.load * MILLI - 1e-6).astype(np.int64) - division.grants)
    return Allocation(
        grants=dict(zip(names, division.grants.tolist(), strict=True)),
        reasons=Texts(names, explanation.of),
        unmet=dict(zip(names, missing.tolist(), strict=True)),
        replicas=limits.placement.split(division.grants, solution.flow) if limits.placement else {},
        objective=division.objective,
        shadow_prices=Numbers(names, division.prices),
        bound=division.bound,
        complete=solution.complete,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """A division that is realisable on the nodes, and the problem with the limits that the nodes turned out to be."""

    problem: Problem
    division: Division
    flow: Flow | None = None
    complete: bool = True
    """Whether all moved that the policy wanted to move."""


def solve(problem: Problem, policy: Policy) -> Solution:
    """The policy's division of a problem in columns, realisable where the replicas are."""
    while True:
        wanted = policy.divide(problem)
        division = replace(wanted, grants=at_most(problem, wanted.grants))
        complete = bool((division.grants == wanted.grants).all())
        placement = problem.limits.placement
        if placement is None:
            return Solution(problem, division, complete=complete)
        flow = placement.spread(division.grants)
        cuts = flow.cuts
        if not cuts and division.ideal is not None:
            # What rounding to steps just fits into nodes is still no limit that the objective knows.
            cuts = placement.spread(np.floor(division.ideal + 1e-6).astype(np.int64)).cuts
        if not cuts:
            return Solution(problem, division, flow, complete)
        space = problem.space
        problem = replace(problem, space=Space(space.tree, (*space.cuts, *cuts)))


def pose_columns(limits: Limits, wants: Wants, current: np.ndarray | None = None) -> Problem:
    """A problem straight from columns, for callers without objects; `current` in millicores, -1: none."""
    return pose(limits, wants, np.full(len(limits), -1) if current is None else current)
