"""A budget's claim as the decision sees it: pipelines with their limits and replicas, nodes with their room. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from headgate.adapters.kserve.members import Claim, Member
from headgate.adapters.kserve.survey import Range, Survey
from headgate.adapters.kubernetes.pods import Pod, Qos
from headgate.adapters.kubernetes.shape import taken
from headgate.core.hosting import Inventory, Refusal
from headgate.core.model import Node, Pipeline, Replica, Slo
from headgate.core.units import format_cpu


def inventory(
    found: Survey, claim: Claim, least: int, slos: Mapping[str, Slo], notes: Mapping[str, Refusal]
) -> Inventory:
    """What a budget covers. `least`: millicores that every pod keeps. `slos`: of the pipelines that have one.
    `notes`: why templates and replicas stay as they are, by "pipeline template" or "pipeline replicas".

    Where the total is what nodes have and headgate may not look at them, nothing is covered, and `refused` has the
    reason by the budget's key: the other budgets go on.
    """
    total = _total(found, claim)
    if isinstance(total, Refusal):
        return Inventory(found.time, 0, (), refused={claim.budget.key: total})
    members = [member for member in claim.members if member.live]
    ranges, own = found.ranges, {member.name for member in claim.members}
    return Inventory(
        time=found.time,
        total=total,
        pipelines=tuple(_pipeline(m, _replicas(m, found), least, ranges, slos.get(m.name)) for m in members),
        nodes=_nodes(found, members, least),
        granted={member.name: member.taken for member in members},
        refused={
            **claim.refused,
            **{m.name: m.refused for m in claim.members if m.refused is not None},
            **{part: refusal for part, refusal in notes.items() if part.partition(" ")[0] in own},
        },
        details={member.name: _details(member) for member in claim.members},
    )


def _replicas(member: Member, found: Survey) -> tuple[Replica, ...]:
    """Bound to their nodes, where these are known and it is requests that change."""
    bound = found.cluster.nodes is not None and not member.limits_only
    return tuple(Replica(pod.key, pod.node if bound else None) for pod in member.live)


def _pipeline(
    member: Member, replicas: tuple[Replica, ...], least: int, ranges: Mapping[str, Range], slo: Slo | None
) -> Pipeline:
    rules = [rule for rule, _ in member.rules]
    if member.refused is not None:
        # It keeps what it has, whatever the rule says of it.
        return Pipeline(member.name, replicas=replicas, pinned=True, group=rules[0].group)
    weights = sum(weight for _, weight in member.rules)
    base = rules[0].pipeline(member.name)
    floor = max(rule.floor for rule in rules)
    ceilings = [rule.ceiling for rule in rules]
    ceiling = None if None in ceilings else max(c for c in ceilings if c is not None)
    allowed = ranges.get(member.live[0].namespace, Range())
    count = len(member.live)
    floor = max(floor, count * max(least, allowed.least or 0))
    if member.limits_only:
        floor = max(floor, sum(pod.main.spec.request or 0 for pod in member.live))
    if allowed.most is not None:
        # The limit of a Burstable pod may have to stand a millicore above its grant.
        most = count * (allowed.most - int(any(_apart(pod) for pod in member.live)))
        ceiling = most if ceiling is None else min(ceiling, most)
    return replace(
        base,
        floor=floor if not base.pinned else 0,
        ceiling=None if base.pinned else ceiling if ceiling is None else max(ceiling, floor),
        weight=sum(rule.weight * weight for rule, weight in member.rules) / weights,
        priority=max(rule.priority for rule in rules),
        slo=slo,
        replicas=replicas,
    )


def _apart(pod: Pod) -> bool:
    return pod.qos is Qos.BURSTABLE and pod.main.spec.limit is not None


def _total(found: Survey, claim: Claim) -> int | Refusal:
    spec = claim.budget.spec
    if spec.total is not None:
        return spec.total
    nodes = found.cluster.nodes
    if nodes is None or spec.nodes is None:
        return Refusal(
            "NodesUnreadable",
            f"budget {claim.budget.key} shares what its nodes have, and headgate may not look at nodes: "
            "allow it to list nodes and all pods, or give the budget a total",
        )
    chosen = [name for name, node in nodes.items() if spec.nodes.matches(node.labels)]
    own = _own(claim.members)
    return sum(max(0, nodes[name].allocatable - found.cluster.taken.get(name, 0) + own[name]) for name in chosen)


def _own(members: Iterable[Member]) -> dict[str, int]:
    """Millicores of request by node of the members' main containers."""
    own: dict[str, int] = defaultdict(int)
    for member in members:
        for pod in (*member.live, *member.leaving):
            if pod.node is not None:
                own[pod.node] += pod.taken
    return own


def _nodes(found: Survey, members: Iterable[Member], least: int) -> tuple[Node, ...]:
    """What this budget's pods on each node may have together.

    A pipeline with pods on several nodes may be given all of its CPUs on one of them; what its pods on the others
    keep at the least is held back. What the pods have now always fits, also where a node is overcommitted.
    """
    if found.cluster.nodes is None:
        return ()
    own: dict[str, int] = defaultdict(int)
    held: dict[str, int] = defaultdict(int)
    for member in members:
        if member.limits_only:
            continue
        spans = len({pod.node for pod in member.live}) > 1
        for pod in member.live:
            if pod.node is not None:
                own[pod.node] += pod.taken
                held[pod.node] += least if spans else 0
    nodes = []
    for name in sorted(own):
        node = found.cluster.nodes.get(name)
        free = 0 if node is None else node.allocatable - found.cluster.taken.get(name, 0) + own[name] - held[name]
        nodes.append(Node(name, max(free, own[name])))
    return tuple(nodes)


def _details(member: Member) -> Mapping[str, Any]:
    leaving = sum(taken(pod, member.limits_only) for pod in member.leaving)
    details: dict[str, Any] = {"mode": str(member.mode), "component": member.component, "pods": len(member.live)}
    if member.limits_only:
        details["limitsOnly"] = True
    if member.graphs:
        details["graphs"] = list(member.graphs)
    if leaving:
        details["leaving"] = format_cpu(leaving)
    if member.service is not None and (shares := member.service.traffic.get(member.component)) and len(shares) > 1:
        details["traffic"] = dict(shares)
    if member.service is not None and member.service.owner:
        details["gitops"] = member.service.owner
    return details
