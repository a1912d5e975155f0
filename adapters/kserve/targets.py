"""What each pod of a pipeline is to have of its grant. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from headgate.adapters.kserve.members import Claim, Member
from headgate.adapters.kserve.services import version_of
from headgate.adapters.kubernetes.pods import Pod
from headgate.adapters.kubernetes.resize import Managed, Memory, Share
from headgate.adapters.kubernetes.shape import taken
from headgate.core.hosting import Order
from headgate.core.placement import even


def share_of(claim: Claim, order: Order, least: int, memory: Memory, asked: Mapping[str, int]) -> Share:
    """All pods that count against an order's budget, with what they are to have."""
    pods: list[Managed] = []
    for member in claim.members:
        wanted = targets(member, order, least, memory)
        pods += (Managed(pod, member.name, wanted.get(pod.uid), member.limits_only) for pod in member.live)
        pods += (Managed(pod, member.name, None, member.limits_only) for pod in member.leaving)
    own = {managed.pod.uid for managed in pods}
    return Share(order.budget.key, order.total, tuple(pods), {uid: n for uid, n in asked.items() if uid in own})


def targets(member: Member, order: Order, least: int, memory: Memory) -> Mapping[str, int]:
    """Millicores by uid; a pod that is not in it stays as it is.

    The order's own division over the replicas, as long as these are the pods that are there. With a canary, in
    proportion to the traffic of each version. No pod gets less than `least`.
    """
    grant = order.grants.get(member.name)
    pinned = any(rule.pinned for rule, _ in member.rules)
    if grant is None or member.refused is not None or pinned or not member.live:
        return {}
    if grant == member.taken and any(pod.uid in memory.bounds for pod in member.live):
        return {pod.uid: taken(pod, member.limits_only) for pod in member.live}
    traffic = member.service.traffic.get(member.component, {}) if member.service is not None else {}
    if len({version_of(pod) for pod in member.live}) > 1 and traffic:
        return _by_traffic(member, grant, traffic, least)
    if all(pod.key in order.replicas for pod in member.live) and _complete(member, order, grant):
        return raised({pod.uid: order.replicas[pod.key] for pod in member.live}, least)
    return raised(_evenly(member.live, grant), least)


def raised(wanted: Mapping[str, int], least: int) -> dict[str, int]:
    """The same sum with `least` for each, where it suffices: the largest give what the others lack."""
    result = {uid: max(least, amount) for uid, amount in wanted.items()}
    excess = sum(result.values()) - sum(wanted.values())
    for uid in sorted(result, key=lambda uid: -result[uid]):
        given = min(excess, result[uid] - least)
        result[uid] -= given
        excess -= given
    return result


def _complete(member: Member, order: Order, grant: int) -> bool:
    """Whether the order's replicas of this pipeline are these pods and no others."""
    return sum(order.replicas[pod.key] for pod in member.live) == grant


def _evenly(pods: Sequence[Pod], grant: int) -> dict[str, int]:
    return dict(zip((pod.uid for pod in pods), even(grant, len(pods)), strict=True)) if pods else {}


def _by_traffic(member: Member, grant: int, traffic: Mapping[str, float], least: int) -> dict[str, int]:
    """A version without traffic keeps the least; while its pods start, what they have: they will get traffic next."""
    starting = [pod for pod in member.live if not pod.ready and not traffic.get(version_of(pod))]
    rest = [pod for pod in member.live if pod not in starting]
    grant = max(0, grant - sum(taken(pod, member.limits_only) for pod in starting))
    versions = sorted({version_of(pod) for pod in rest})
    whole = sum(traffic.get(version, 0.0) for version in versions)
    if not whole:
        return raised(_evenly(rest, grant), least)
    result: dict[str, int] = {}
    before, given = 0.0, 0
    for version in versions:
        before += traffic.get(version, 0.0) / whole
        upto = round(grant * before)
        result |= _evenly([pod for pod in rest if version_of(pod) == version], upto - given)
        given = upto
    return raised(result, least)
