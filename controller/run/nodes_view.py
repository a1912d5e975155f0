"""What the budgets' decisions mean for the nodes, and the nodes' plan for the budgets. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from headgate.controller.run.status import View
from headgate.core.decision import Config
from headgate.core.hosting import Inventory, Sized
from headgate.core.model import Budget, Node, Pipeline, Replica
from headgate.core.nodes.model import Cluster, GroupDemand, NodeInfo
from headgate.core.nodes.needs import needs
from headgate.core.nodes.shadow import AllocatorShadow, Shadow, ShadowPlan


@dataclass(frozen=True, slots=True)
class Divided:
    """A budget that counts for the nodes, and what its last decision followed."""

    view: View
    inventory: Inventory
    config: Config | None

    @property
    def pipelines(self) -> Sequence[Pipeline]:
        """With what the host refuses pinned, as the decision has it."""
        return tuple(replace(p, pinned=p.pinned or p.name in self.view.refused) for p in self.inventory.pipelines)

    @property
    def needs(self) -> Mapping[str, int | None]:
        """Millicores by pipeline; None: not known."""
        decision = self.view.verdict.decision
        demands = decision.demands if decision is not None else {}
        return needs(self.pipelines, demands, self.inventory.granted)


def sized_of(divided: Sequence[Divided]) -> Mapping[str, Sized]:
    """Pods whose CPUs the budgets set. They share their pipeline's floor evenly; a pinned one keeps what it has."""
    found = {}
    for one in divided:
        for pipeline in one.pipelines:
            bound = [replica for replica in pipeline.replicas if replica.node is not None]
            keeps = one.inventory.granted.get(pipeline.name, 0) if pipeline.pinned else pipeline.floor
            for replica in bound:
                found[replica.name] = Sized(pipeline.name, -(-keeps // len(pipeline.replicas)))
    return found


def demand_of(divided: Sequence[Divided], nodes: Sequence[NodeInfo]) -> Mapping[str, GroupDemand]:
    """Demand by group, a pipeline's in proportion to its replicas there. A group with one of which nothing is known is
    left out.

    Unmet is what more nodes could give: not what is idle already, which pods bound to other nodes cannot use, and no
    more than a budget's own total leaves.
    """
    group_of = {node.name: node.group for node in nodes if node.group is not None}
    wanted: dict[str, float] = defaultdict(float)
    unmet: dict[str, float] = defaultdict(float)
    times: dict[str, float] = {}
    unknown: set[str] = set()
    for one in divided:
        found, decision = one.needs, one.view.verdict.decision
        grants = decision.allocation.grants if decision is not None else {}
        short = {name: max(0, (need or 0) - grants.get(name, 0)) for name, need in found.items()}
        scale = _helpful(one, nodes, sum(grants.values()), sum(short.values()))
        for pipeline in one.pipelines:
            groups = [group_of.get(replica.node) for replica in pipeline.replicas if replica.node is not None]
            for group in {g for g in groups if g is not None}:
                need, share = found[pipeline.name], groups.count(group) / len(groups)
                if need is None or decision is None:
                    unknown.add(group)
                    continue
                wanted[group] += need * share
                unmet[group] += short[pipeline.name] * share * scale
                times[group] = min(times.get(group, decision.time), decision.time)
    return {
        group: GroupDemand(times[group], round(wanted[group]), round(unmet[group]))
        for group in wanted
        if group not in unknown
    }


def _helpful(one: Divided, nodes: Sequence[NodeInfo], granted: int, short: int) -> float:
    """Share of what is unmet that more nodes could give."""
    if not short:
        return 0.0
    own = {replica.name for pipeline in one.pipelines for replica in pipeline.replicas}
    idle = max(0, sum(_room(node, own) for node in _chosen(one, nodes)) - granted)
    most = short if one.view.budget.spec.total is None else min(short, one.inventory.total - granted)
    return max(0, most - idle) / short


def _chosen(one: Divided, nodes: Sequence[NodeInfo]) -> Sequence[NodeInfo]:
    """Ready nodes that the budget may use."""
    selector = one.view.budget.spec.nodes
    return [node for node in nodes if node.ready and (selector is None or selector.matches(node.labels))]


def limited(inventories: Mapping[str, Inventory], capacity: Sequence[Node]) -> Mapping[str, Inventory]:
    """The inventories with what the nodes' plan lets the allocator count on: less on nodes that are on their way out.

    Of a node with pods of several budgets each may use what the others' floors leave.
    """
    allowed = {node.name: node.free for node in capacity}
    floors: dict[str, dict[str, int]] = {key: defaultdict(int) for key in inventories}
    for key, inventory in inventories.items():
        for pipeline in inventory.pipelines:
            keeps = inventory.granted.get(pipeline.name, 0) if pipeline.pinned else pipeline.floor
            for replica in pipeline.replicas:
                if replica.node is not None:
                    floors[key][replica.node] += -(-keeps // len(pipeline.replicas))
    result = {}
    for key, inventory in inventories.items():
        nodes = []
        for node in inventory.nodes:
            others = sum(of[node.name] for name, of in floors.items() if name != key)
            most = max(allowed.get(node.name, node.free) - others, floors[key][node.name])
            nodes.append(Node(node.name, min(node.free, most)))
        result[key] = replace(inventory, nodes=tuple(nodes))
    return result


@dataclass(frozen=True, slots=True)
class Shadows:
    """All budgets' allocators asked together."""

    parts: tuple[AllocatorShadow, ...]

    def __call__(self, removed: frozenset[str]) -> ShadowPlan:
        """The first refusal, or the sizes of all pods."""
        sizes: dict[str, int] = {}
        for part in self.parts:
            try:
                plan = part(removed)
            except ValueError as error:
                return ShadowPlan(refusal=f"the allocator cannot tell: {error}")
            if plan.refusal:
                return plan
            sizes |= plan.sizes
        return ShadowPlan(sizes=sizes)


def shadow_of(divided: Sequence[Divided], cluster: Cluster) -> Shadow:
    """What the budgets would do without some nodes."""
    parts = []
    for one in divided:
        decision, spec = one.view.verdict.decision, one.view.budget.spec
        if decision is None or one.config is None:
            continue
        own = {replica.name for pipeline in one.pipelines for replica in pipeline.replicas}
        fixed = spec.total is not None
        nodes = tuple(Node(n.name, _room(n, own)) for n in _chosen(one, cluster.nodes))
        total = one.config.budget.total if fixed else sum(node.free for node in nodes)
        known = {name: need for name, need in one.needs.items() if need is not None}
        # Where replicas would land is the drain simulation's question, not the allocator's.
        bare = [replace(p, replicas=tuple(Replica(r.name) for r in p.replicas)) for p in one.config.pipelines]
        budget = Budget(total, min(spec.reserve, total), one.config.budget.groups, nodes)
        granted, policy = one.inventory.granted, one.config.policy
        parts.append(AllocatorShadow(bare, decision.demands, budget, granted, known, policy, fixed))
    return Shadows(tuple(parts))


def _room(node: NodeInfo, own: set[str]) -> int:
    return max(0, node.cpu - sum(pod.committed for pod in node.pods if pod.name not in own))
