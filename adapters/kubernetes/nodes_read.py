"""Nodes, pods and budgets of disruption of the API as the node scaler sees them. Pure.

What a rule of the scheduler means for moving a pod is either modelled (selectors, tolerations, host ports, one pod per
host) or named in `unmodelled`, and then the pod is not moved.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from headgate.adapters.kubernetes.pods import Footprint, Stage, footprint
from headgate.adapters.kubernetes.quantities import amounts, cpu, number, seconds
from headgate.core.hosting import Sized
from headgate.core.nodes.model import NodeInfo, PodDisruptionBudget, PodInfo, Resize, Toleration
from headgate.core.providers import Taint

Object = Mapping[str, Any]

TAINT = "headgate.dev/leaving"
"""Key of headgate's soft taint; its effect is PreferNoSchedule."""
CORDONED = "headgate.dev/cordoned"
"""Annotation of a node that headgate made unschedulable."""
KEEP = ("cluster-autoscaler.kubernetes.io/scale-down-disabled", "karpenter.sh/do-not-disrupt")
SAFE = "cluster-autoscaler.kubernetes.io/safe-to-evict"
SAFE_VOLUMES = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes"
DO_NOT_DISRUPT = "karpenter.sh/do-not-disrupt"
MIRROR = "kubernetes.io/config.mirror"
FETCHED = frozenset({"kserve-provision-location"})
"""Local volumes whose content is fetched anew by the pod that comes next: KServe's downloaded models."""
HOSTNAME = "kubernetes.io/hostname"
CORDON_TAINT = "node.kubernetes.io/unschedulable"
"""Set by the cluster on every cordoned node: `unschedulable` says it already."""
_NATIVE = ("cpu", "memory", "ephemeral-storage")


def read_node(node: Object, pods: Sequence[PodInfo], usage: tuple[int, float] | None) -> NodeInfo:
    """A node with its pods. `usage`: millicores, and when they were measured."""
    meta, spec, status = node["metadata"], node.get("spec") or {}, node.get("status") or {}
    notes, offered = meta.get("annotations") or {}, status.get("allocatable") or {}
    taints = [Taint(t["key"], t.get("value") or "", t["effect"]) for t in spec.get("taints") or ()]
    unschedulable = bool(spec.get("unschedulable"))
    return NodeInfo(
        name=meta["name"],
        cpu=cpu(offered) or 0,
        instance=(spec.get("providerID") or "").rpartition("/")[2] or None,
        ready=any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or ()),
        created=seconds(meta.get("creationTimestamp")),
        memory=int(number(str(offered.get("memory", "0")))),
        pods_limit=int(number(str(offered.get("pods", "110")))),
        labels=meta.get("labels") or {},
        taints=tuple(t for t in taints if t.key not in (TAINT, CORDON_TAINT)),
        unschedulable=unschedulable,
        marked=any(t.key == TAINT for t in taints) or (CORDONED in notes and not unschedulable),
        cordoned_by_us=unschedulable and CORDONED in notes,
        keep=any(notes.get(key) == "true" for key in KEEP),
        usage=None if usage is None else usage[0],
        usage_time=0.0 if usage is None else usage[1],
        pods=tuple(pods),
    )


def read_pod_info(pod: Object, sized: Sized | None, template_cpu: int | None) -> PodInfo:
    """A pod that has not finished. `template_cpu`: what its controller's template asks for."""
    meta, spec = pod["metadata"], pod["spec"]
    found, notes = footprint(pod), meta.get("annotations") or {}
    owner = next((o for o in meta.get("ownerReferences") or () if o.get("controller")), None)
    exclusive, unmodelled = _rules(pod)
    grace = spec.get("terminationGracePeriodSeconds")
    return PodInfo(
        name=f"{meta['namespace']}/{meta['name']}",
        cpu=found.asked,
        node=spec.get("nodeName") or None,
        memory=_memory(spec),
        allocated=found.kept,
        resize=_resize_of(found),
        template_cpu=template_cpu,
        pipeline=None if sized is None else sized.pipeline,
        floor=0 if sized is None else sized.floor,
        created=seconds(meta.get("creationTimestamp")),
        priority=spec.get("priority") or 0,
        grace=30.0 if grace is None else float(grace),
        controlled=owner is not None,
        daemon=(owner is not None and owner["kind"] in ("DaemonSet", "Node")) or MIRROR in notes,
        terminating=bool(meta.get("deletionTimestamp")),
        local_storage=_local_storage(spec, notes),
        safe_to_evict=_safe(notes),
        labels=meta.get("labels") or {},
        selector=_selector(spec)[0],
        tolerations=tuple(_toleration(t) for t in spec.get("tolerations") or ()),
        exclusive=exclusive,
        unmodelled=unmodelled,
    )


def waits(pod: Object) -> bool:
    """Whether the scheduler has said that no node has room for it."""
    return not pod["spec"].get("nodeName") and any(
        c["type"] == "PodScheduled" and c["status"] == "False" and c.get("reason") == "Unschedulable"
        for c in (pod.get("status") or {}).get("conditions") or ()
    )


def read_disruption(budget: Object) -> PodDisruptionBudget | None:
    """A PodDisruptionBudget; None: it selects nothing.

    Of its selector the plain labels count: one with expressions is taken to cover too much rather than too little.
    """
    meta, status = budget["metadata"], budget.get("status") or {}
    selector = (budget.get("spec") or {}).get("selector")
    if selector is None:
        return None
    seen = (status.get("observedGeneration") or 0) >= (meta.get("generation") or 0)
    allowed = int(status.get("disruptionsAllowed") or 0) if seen else 0
    return PodDisruptionBudget(meta["name"], meta["namespace"], selector.get("matchLabels") or {}, allowed)


def template_cpu(workload: Object) -> int:
    """Millicores that a pod made from a workload's template asks for."""
    template = workload["spec"]["template"]
    return footprint({"metadata": template.get("metadata") or {}, "spec": template["spec"]}).asked


def read_usage(metrics: Object) -> tuple[int, float]:
    """Millicores of a NodeMetrics, and when they were measured."""
    return int(number(str(metrics["usage"]["cpu"])) * 1000), seconds(metrics.get("timestamp"))


def _resize_of(found: Footprint) -> Resize | None:
    return {Stage.DEFERRED: Resize.DEFERRED, Stage.INFEASIBLE: Resize.INFEASIBLE}.get(found.stage)


def _memory(spec: Object) -> int:
    def asked(container: Object) -> int:
        return int(number(amounts(container.get("resources"), "requests").get("memory", "0")))

    together = sum(asked(c) for c in spec["containers"])
    most = 0
    for container in spec.get("initContainers") or ():
        if container.get("restartPolicy") == "Always":
            together += asked(container)
        else:
            most = max(most, asked(container))
    whole = int(number(amounts(spec.get("resources"), "requests").get("memory", "0")))
    return max(together, most, whole) + int(number(str((spec.get("overhead") or {}).get("memory", "0"))))


def _safe(notes: Mapping[str, str]) -> bool | None:
    if notes.get(DO_NOT_DISRUPT) == "true":
        return False
    return {"true": True, "false": False}.get(notes.get(SAFE, ""))


def _local_storage(spec: Object, notes: Mapping[str, str]) -> bool:
    fine = FETCHED | {name.strip() for name in notes.get(SAFE_VOLUMES, "").split(",")}
    return any(
        volume["name"] not in fine
        and (
            "hostPath" in volume
            or (volume.get("emptyDir") is not None and volume["emptyDir"].get("medium") != "Memory")
        )
        for volume in spec.get("volumes") or ()
    )


def _toleration(found: Object) -> Toleration:
    value = None if found.get("operator") == "Exists" else found.get("value") or ""
    return Toleration(found.get("key") or None, value, found.get("effect") or None)


def _selector(spec: Object) -> tuple[Mapping[str, str], str]:
    """Labels that a node must have, and the name of a rule that is no such label."""
    wanted = dict(spec.get("nodeSelector") or {})
    required = _required(spec, "nodeAffinity")
    terms = required.get("nodeSelectorTerms") or () if isinstance(required, Mapping) else ()
    if not terms:
        return wanted, ""
    rules = terms[0].get("matchExpressions") or ()
    plain = all(r["operator"] == "In" and len(r.get("values") or ()) == 1 for r in rules)
    if len(terms) > 1 or terms[0].get("matchFields") or not plain:
        return wanted, "node affinity of several values"
    return wanted | {r["key"]: r["values"][0] for r in rules}, ""


def _required(spec: Object, kind: str) -> Any:
    rule = (spec.get("affinity") or {}).get(kind) or {}
    return rule.get("requiredDuringSchedulingIgnoredDuringExecution") or ()


def _rules(pod: Object) -> tuple[frozenset[str], str]:
    """Keys of which a node holds one pod each, and the first rule that is not modelled."""
    keys, unknown = [], []
    for key, what in _each_rule(pod):
        keys += [key] if key else []
        unknown += [what] if what else []
    return frozenset(keys), next(iter(unknown), "")


def _each_rule(pod: Object) -> Iterator[tuple[str, str]]:
    spec, labels = pod["spec"], pod["metadata"].get("labels") or {}
    containers = [*spec["containers"], *(spec.get("initContainers") or ())]
    for container in containers:
        for port in container.get("ports") or ():
            if port.get("hostPort"):
                yield f"port {port.get('protocol', 'TCP')} {port['hostPort']}", ""
        for name in amounts(container.get("resources"), "requests"):
            if name not in _NATIVE:
                yield "", f"request for {name}"
    yield "", _selector(spec)[1]
    for term in _required(spec, "podAntiAffinity"):
        selector = term.get("labelSelector") or {}
        same = set(selector) <= {"matchLabels"} and (selector.get("matchLabels") or {}).items() <= labels.items()
        own = not term.get("namespaces") and not term.get("namespaceSelector") and not term.get("matchLabelKeys")
        if term.get("topologyKey") == HOSTNAME and selector.get("matchLabels") and same and own:
            yield f"{pod['metadata']['namespace']} {json.dumps(selector, sort_keys=True)}", ""
        else:
            yield "", "pod anti-affinity"
    if _required(spec, "podAffinity"):
        yield "", "pod affinity"
    if any(c.get("whenUnsatisfiable") == "DoNotSchedule" for c in spec.get("topologySpreadConstraints") or ()):
        yield "", "topology spread"
    if any("persistentVolumeClaim" in v or "ephemeral" in v for v in spec.get("volumes") or ()):
        yield "", "volume claim"
    if spec.get("resourceClaims"):
        yield "", "resource claim"
