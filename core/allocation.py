"""allocate(): divides the CPU budget among the pipelines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headgate.core.model import Budget, Demands, Infeasible, Pipeline, Unknown
from headgate.core.units import format_cpu


@dataclass(frozen=True, slots=True)
class Allocation:
    """Who gets how many millicores, and why."""

    grants: Mapping[str, int]
    reasons: Mapping[str, str]
    unmet: Mapping[str, int]
    """Millicores of offered load that the grant does not cover."""


def allocate(
    pipelines: Sequence[Pipeline],
    demands: Demands,
    budget: Budget,
    *,
    current: Mapping[str, int],
    policy: str = "proportional",
) -> Allocation:
    """Weighted shares by offered load: grant = clamp(theta * weight * load, floor, ceiling), one theta for all.

    A pipeline whose demand is unknown keeps its `current` grant (its floor when it has none). Raises Infeasible
    when the floors do not fit.
    """
    total = budget.total - budget.reserve
    floors = {p.name: p.floor for p in pipelines}
    if sum(floors.values()) > total:
        raise Infeasible(f"the floors ({floors}) need more than the budget of {format_cpu(total)}")
    loads: dict[str, float] = {}
    low: dict[str, int] = {}
    high: dict[str, int] = {}
    for p in pipelines:
        demand = demands[p.name]
        low[p.name], high[p.name] = p.floor, min(total, total if p.ceiling is None else p.ceiling)
        if policy == "equal":
            loads[p.name] = 1.0
        elif isinstance(demand, Unknown):
            loads[p.name] = current.get(p.name, p.floor) / 1000
        else:
            loads[p.name] = demand.offered_load
    if not any(loads.values()):
        loads = dict.fromkeys(loads, 1.0)
    weight = {p.name: p.weight * loads[p.name] for p in pipelines}
    below, above = 0.0, 1.0

    def at(theta: float) -> dict[str, int]:
        return {n: int(max(low[n], min(high[n], theta * weight[n]))) for n in weight}

    while sum(at(above).values()) < total and above < 1e15:
        above *= 2
    for _ in range(100):
        middle = (below + above) / 2
        below, above = (middle, above) if sum(at(middle).values()) <= total else (below, middle)
    grants = at(below)
    left = total - sum(grants.values())
    for name in sorted(grants, key=lambda n: -weight[n]):
        more = min(left, high[name] - grants[name])
        grants[name] += more
        left -= more
    reasons = {
        p.name: d.reason if isinstance(d := demands[p.name], Unknown) else f"offered load {d.offered_load:.2f} CPUs"
        for p in pipelines
    }
    unmet = {
        p.name: 0
        if isinstance(d := demands[p.name], Unknown)
        else max(0, round(d.offered_load * 1000) - grants[p.name])
        for p in pipelines
    }
    return Allocation(grants, reasons, unmet)
