"""The allocator's answer to "what if this node were not there?", asked before anything is done to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from headgate.core.allocation import allocate
from headgate.core.model import Budget, Demands, Infeasible, Pipeline
from headgate.core.policies import Policy


@dataclass(frozen=True, slots=True)
class ShadowPlan:
    """An allocation that was computed and not applied."""

    refusal: str = ""
    """Why the nodes cannot be done without; empty: they can."""
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Millicores that each pod would need then, by its name; pods that are missing keep what they have."""


class Shadow(Protocol):
    """Re-plans the pipelines without some nodes. Pure."""

    def __call__(self, removed: frozenset[str]) -> ShadowPlan:
        """The allocation without the nodes of these names."""
        ...


@dataclass(frozen=True, slots=True)
class AllocatorShadow:
    """Asks `core.allocation.allocate`, with the same pipelines and demands as the last decision.

    Replicas are named as their pods ("namespace/name"). Those on a removed node count as not bound to any: where they
    land is the drain simulation's question.
    """

    pipelines: Sequence[Pipeline]
    demands: Demands
    budget: Budget
    """Its `nodes` are those that the last decision counted on."""
    current: Mapping[str, int]
    needs: Mapping[str, int]
    """Millicores that meet each pipeline's SLO, before the budget cuts them; a missing pipeline needs its grant.
    What is granted beyond the need, because idle CPUs help nobody, must not keep a node."""
    policy: str | Policy = "proportional"
    fixed: bool = False
    """The total is a figure of its own, and shrinks only where the nodes that remain have less."""
    tolerance: int = 0
    """Millicores of unmet demand that a removal may add."""

    def __call__(self, removed: frozenset[str]) -> ShadowPlan:
        """The allocation without these nodes, refused when demand that is met today would not be."""
        lost = sum(node.free for node in self.budget.nodes if node.name in removed)
        left = sum(node.free for node in self.budget.nodes) - lost
        smaller = replace(
            self.budget,
            total=min(self.budget.total, left) if self.fixed else self.budget.total - lost,
            nodes=tuple(node for node in self.budget.nodes if node.name not in removed),
        )
        moved = [
            replace(p, replicas=tuple(replace(r, node=None) if r.node in removed else r for r in p.replicas))
            for p in self.pipelines
        ]
        try:
            now = allocate(self.pipelines, self.demands, self.budget, current=self.current, policy=self.policy)
            then = allocate(moved, self.demands, smaller, current=self.current, policy=self.policy)
        except Infeasible as error:
            return ShadowPlan(refusal=f"the allocator could not do without it: {error}")
        more = {n: short - now.unmet.get(n, 0) for n, short in then.unmet.items()}
        if sum(then.unmet.values()) > sum(now.unmet.values()) + self.tolerance:
            worst = max(more, key=lambda name: more[name])
            return ShadowPlan(refusal=f"without it {worst} would lack {more[worst]}m CPUs more than today")
        sizes: dict[str, int] = {}
        for pipeline in moved:
            grant, count = then.grants[pipeline.name], len(pipeline.replicas)
            need = min(grant, max(pipeline.floor, self.needs.get(pipeline.name, grant)))
            for replica in pipeline.replicas:
                sizes[replica.name] = -(-need // count)
        return ShadowPlan(sizes=sizes)


def no_allocator(removed: frozenset[str]) -> ShadowPlan:  # noqa: ARG001 - the protocol's signature
    """A shadow for clusters where headgate sizes no pods."""
    return ShadowPlan()
