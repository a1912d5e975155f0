"""The limits of an allocation as columns: compiled from pipelines and budget, checked, ready for many decisions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from headgate.core.laminar import Floats, Ints, Tree, build
from headgate.core.model import Budget, Group, Infeasible, Pipeline
from headgate.core.placement import Placement
from headgate.core.units import format_cpu

LEAST_WEIGHT, MOST_WEIGHT = 1e-100, 1e100
"""Sums and ratios of weights between these stay within the range of floats."""

MOST_PRIORITY = 2**31 - 1


@dataclass(frozen=True, slots=True, eq=False)
class Limits:
    """What each of n pipelines may have. Millicores, arrays of length n."""

    names: Sequence[str]
    total: int
    """What may be granted altogether: the budget without its reserve."""
    floor: Ints
    ceiling: Ints
    step: Ints
    """A grant is a multiple of this, or the floor, or the ceiling."""
    weight: Floats
    priority: Ints
    latency: Floats
    """Seconds of the SLO; NaN: none."""
    percentile: Floats
    parallel: Floats
    """Share of the work that more CPUs speed up (Amdahl)."""
    rank: Ints
    """Breaks ties: the lower rank goes first. By name, so that the order of the pipelines changes nothing."""
    tree: Tree
    pinned: Ints
    """Indices of the pipelines that keep what they have."""
    placement: Placement | None = None
    capped: frozenset[int] = field(default_factory=frozenset)
    """Indices of the pipelines whose ceiling is a setting and not merely the budget."""

    def __len__(self) -> int:
        return len(self.floor)


def columns(
    total: int,
    floor: Ints,
    *,
    ceiling: Ints | None = None,
    step: Ints | int = 1,
    weight: Floats | None = None,
    priority: Ints | None = None,
    latency: Floats | None = None,
    percentile: Floats | float = 95.0,
    parallel: Floats | float = 1.0,
    names: Sequence[str] | None = None,
    tree: Tree | None = None,
) -> Limits:
    """Limits straight from arrays, for callers that have columns and not objects. Nothing is checked."""
    size = len(floor)
    steps = np.broadcast_to(np.asarray(step, dtype=np.int64), size)
    most = np.maximum(floor, total // steps * steps)
    return Limits(
        names=range_names(size) if names is None else names,
        total=total,
        floor=floor,
        ceiling=most if ceiling is None else np.minimum(ceiling, np.maximum(floor, total)),
        step=steps,
        weight=np.ones(size) if weight is None else weight,
        priority=np.zeros(size, dtype=np.int64) if priority is None else priority,
        latency=np.full(size, np.nan) if latency is None else latency,
        percentile=np.broadcast_to(np.asarray(percentile, dtype=np.float64), size),
        parallel=np.broadcast_to(np.asarray(parallel, dtype=np.float64), size),
        rank=np.arange(size),
        tree=tree or build(total, np.full(size, -1), (), (), ()),
        pinned=np.zeros(0, dtype=np.int64),
        capped=frozenset() if ceiling is None else frozenset(range(size)),
    )


def range_names(size: int) -> Sequence[str]:
    """Names for pipelines that have none: "0", "1", ..."""
    return tuple(map(str, range(size)))


def compile_limits(pipelines: Sequence[Pipeline], budget: Budget) -> Limits:
    """The columns of `pipelines` within `budget`.

    Raises ValueError naming the pipeline, group or node whose value makes no sense (two of one name, an unknown
    reference, a cycle, NaN), and Infeasible for a floor above a ceiling or a reserve above the budget. Whether the
    floors fit is checked for each decision (`problem.pose`), because pinned pipelines count with what they have.
    """
    names = tuple(p.name for p in pipelines)
    once(names, "pipelines")
    if budget.total < 0 or budget.reserve < 0:
        raise ValueError(f"budget: {budget.total}m with a reserve of {budget.reserve}m: neither may be negative")
    if budget.reserve > budget.total:
        raise Infeasible(
            f"the reserve of {format_cpu(budget.reserve)} is more than the budget of {format_cpu(budget.total)}: "
            "lower the reserve or raise the budget"
        )
    for p in pipelines:
        _check_pipeline(p)
    total = budget.total - budget.reserve
    floor = np.array([p.floor for p in pipelines], dtype=np.int64)
    step = np.array([p.step for p in pipelines], dtype=np.int64)
    most = np.maximum(floor, total // step * step)
    ceiling = np.array([total if p.ceiling is None else p.ceiling for p in pipelines], dtype=np.int64)
    capped = np.array([p.ceiling is not None for p in pipelines], dtype=np.bool_)
    return Limits(
        names=names,
        total=total,
        floor=floor,
        ceiling=np.where(capped & (ceiling <= total), ceiling, most),
        step=step,
        weight=np.array([p.weight for p in pipelines], dtype=np.float64),
        priority=np.array([p.priority for p in pipelines], dtype=np.int64),
        latency=np.array([p.slo.latency if p.slo else math.nan for p in pipelines], dtype=np.float64),
        percentile=np.array([p.slo.percentile if p.slo else math.nan for p in pipelines], dtype=np.float64),
        parallel=np.array([p.parallel_fraction for p in pipelines], dtype=np.float64),
        rank=np.argsort(np.argsort(np.array(names, dtype=np.str_), kind="stable"), kind="stable"),
        tree=_tree(pipelines, budget.groups, total),
        pinned=np.flatnonzero(np.array([p.pinned for p in pipelines], dtype=np.bool_)),
        placement=Placement.of(pipelines, budget.nodes),
        capped=frozenset(np.flatnonzero(capped).tolist()),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Compiled:
    """Limits and what they were compiled from, to be kept from one decision to the next."""

    pipelines: tuple[Pipeline, ...]
    budget: Budget
    limits: Limits

    @classmethod
    def of(cls, pipelines: tuple[Pipeline, ...], budget: Budget, before: Compiled | None) -> Compiled:
        """`before` where nothing has changed since. Raises what `compile_limits` raises."""
        if before is not None and before.pipelines == pipelines and before.budget == budget:
            return before
        return cls(pipelines, budget, compile_limits(pipelines, budget))


def once(names: Iterable[str], what: str) -> Mapping[str, int]:
    """The position of each name. Raises ValueError when one is there twice."""
    seen: dict[str, int] = {}
    for index, name in enumerate(names):
        if name in seen:
            raise ValueError(f"{what}: {name!r} is the name of two of them: give each its own")
        seen[name] = index
    return seen


def _check_pipeline(p: Pipeline) -> None:
    wrong = {
        "floor": not p.floor >= 0,
        "ceiling": p.ceiling is not None and p.ceiling < 0,
        "step": p.step < 1,
        "weight": not LEAST_WEIGHT <= p.weight <= MOST_WEIGHT,
        "priority": not -MOST_PRIORITY <= p.priority <= MOST_PRIORITY,
        "parallel_fraction": not 0 <= p.parallel_fraction <= 1,
        "slo": p.slo is not None and not (0 < p.slo.latency < math.inf and 0 < p.slo.percentile < 100),
    }
    for name, bad in wrong.items():
        if bad:
            raise ValueError(f"pipeline {p.name}: {name} {getattr(p, name)!r} is out of range")
    if p.ceiling is not None and p.floor > p.ceiling:
        raise Infeasible(
            f"pipeline {p.name}: floor {format_cpu(p.floor)} is above its ceiling {format_cpu(p.ceiling)}: "
            "lower the floor or raise the ceiling"
        )


def _tree(pipelines: Sequence[Pipeline], groups: Sequence[Group], total: int) -> Tree:
    index = once((g.name for g in groups), "groups")
    for g in groups:
        if g.budget < 0:
            raise ValueError(f"group {g.name}: budget {g.budget}m is negative")
        if g.parent is not None and g.parent not in index:
            raise ValueError(f"group {g.name}: parent {g.parent!r} is no group; known: {', '.join(index)}")
    parents = [-1 if g.parent is None else index[g.parent] for g in groups]
    settled: set[int] = {-1}
    for start in range(len(groups)):
        path: list[int] = []
        here = start
        while here not in settled:
            if here in path:
                cycle = " in ".join(groups[g].name for g in [*path[path.index(here) :], here])
                raise ValueError(f"groups: {cycle}: a group cannot lie inside itself")
            path.append(here)
            here = parents[here]
        settled.update(path)
    for p in pipelines:
        if p.group is not None and p.group not in index:
            known = ", ".join(index) or "none"
            raise ValueError(f"pipeline {p.name}: group {p.group!r} is not defined; known groups: {known}")
    member = [-1 if p.group is None else index[p.group] for p in pipelines]
    return build(total, member, [min(g.budget, total) for g in groups], parents, [g.name for g in groups])
