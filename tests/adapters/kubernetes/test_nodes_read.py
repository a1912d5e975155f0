"""What the node scaler makes of the API's nodes, pods and budgets of disruption."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from tests.cluster import builders as make

from headgate.adapters.kubernetes.nodes_read import (
    CORDON_TAINT,
    CORDONED,
    TAINT,
    read_disruption,
    read_node,
    read_pod_info,
    read_usage,
    template_cpu,
    waits,
)
from headgate.core.hosting import Sized
from headgate.core.nodes.model import NodeInfo, PodInfo, Resize, Toleration
from headgate.core.providers import Taint

Object = dict[str, Any]
CREATED = "2026-11-24T10:00:00Z"
THEN = datetime(2026, 11, 24, 10, tzinfo=UTC).timestamp()


def node(spec: Object | None = None, annotations: Object | None = None, **status: Any) -> NodeInfo:
    found = make.node("n1", cpu="3920m", memory="15Gi", pool="a")
    found["metadata"] |= {"creationTimestamp": CREATED, "annotations": annotations}
    found["spec"] = spec or {}
    found["status"] |= status
    return read_node(found, (), None)


def pod(
    spec: Object | None = None, annotations: Object | None = None, sized: Sized | None = None, **meta: Any
) -> PodInfo:
    found = make.pod("p", make.container(wanted=make.guaranteed("500m", "1Gi")), namespace="ns", node="n1")
    found["metadata"] |= {"creationTimestamp": CREATED, "annotations": annotations, **meta}
    found["spec"] |= spec or {}
    return read_pod_info(found, sized, None)


def test_a_node_is_what_it_offers_and_whose_machine_it_is() -> None:
    found = node({"providerID": "aws:///eu-west-1a/i-0abc"})
    assert (found.cpu, found.memory, found.pods_limit) == (3920, 15 * 2**30, 250)
    assert (found.instance, found.created, found.ready) == ("i-0abc", THEN, True)
    assert (found.usage, found.marked, found.unschedulable) == (None, False, False)
    assert found.labels["pool"] == "a"
    assert node().instance is None


@pytest.mark.parametrize("status", ["False", "Unknown"])
def test_only_ready_is_ready(status: str) -> None:
    assert not node(conditions=[{"type": "Ready", "status": status}]).ready
    assert not node(conditions=None).ready


def test_headgates_own_marks_are_told_from_others() -> None:
    soft = {"key": TAINT, "effect": "PreferNoSchedule"}
    cordon = {"key": CORDON_TAINT, "effect": "NoSchedule"}
    other = {"key": "gpu", "value": "yes", "effect": "NoSchedule"}
    ours = node({"taints": [soft, cordon, other], "unschedulable": True}, {CORDONED: "true"})
    assert (ours.marked, ours.unschedulable, ours.cordoned_by_us) == (True, True, True)
    assert ours.taints == (Taint("gpu", "yes"),), "what the cordon itself adds says nothing more"
    theirs = node({"unschedulable": True})
    assert (theirs.unschedulable, theirs.cordoned_by_us) == (True, False)
    left = node({}, {CORDONED: "true"})
    assert not left.cordoned_by_us, "somebody uncordoned it and left the note"
    assert left.marked, "the note is to be taken off, or somebody's next cordon would be taken for ours"


@pytest.mark.parametrize("key", ["cluster-autoscaler.kubernetes.io/scale-down-disabled", "karpenter.sh/do-not-disrupt"])
def test_an_owner_may_forbid_the_removal(key: str) -> None:
    assert node(annotations={key: "true"}).keep
    assert not node(annotations={key: "false"}).keep


def test_usage_is_in_millicores_and_has_a_time() -> None:
    measured = {"timestamp": CREATED, "usage": {"cpu": "1234567890n"}}
    assert read_usage(measured) == (1234, THEN)
    found = read_node(make.node("n1"), (), (1234, THEN))
    assert (found.usage, found.usage_time) == (1234, THEN)


def test_a_pod_is_what_it_asks_for_and_who_replaces_it() -> None:
    found = pod()
    assert (found.name, found.namespace, found.node, found.cpu, found.memory) == ("ns/p", "ns", "n1", 500, 2**30)
    assert (found.controlled, found.daemon, found.grace, found.created) == (False, False, 30.0, THEN)
    owner = {"kind": "ReplicaSet", "controller": True}
    assert pod(ownerReferences=[owner]).controlled
    assert not pod(ownerReferences=[{"kind": "ReplicaSet"}]).controlled
    assert pod({"terminationGracePeriodSeconds": 0}).grace == 0.0
    assert pod(deletionTimestamp=CREATED).terminating


@pytest.mark.parametrize("kind", ["DaemonSet", "Node"])
def test_daemons_and_static_pods_end_with_the_node(kind: str) -> None:
    assert pod(ownerReferences=[{"kind": kind, "controller": True}]).daemon
    assert pod(annotations={"kubernetes.io/config.mirror": "x"}).daemon


def test_a_pod_that_headgate_sizes_has_its_pipeline_and_floor() -> None:
    found = pod(sized=Sized("models/a", 100))
    assert (found.pipeline, found.floor) == ("models/a", 100)
    assert (pod().pipeline, pod().floor) == (None, 0)


@pytest.mark.parametrize(
    ("reason", "expected"), [("Deferred", Resize.DEFERRED), ("Infeasible", Resize.INFEASIBLE), (None, None)]
)
def test_a_resize_that_waits_counts_with_what_is_set_aside(reason: str | None, expected: Resize | None) -> None:
    found = make.pod("p", make.container("main", make.guaranteed("2")), namespace="ns", node="n1")
    conditions = [{"type": "PodResizePending", "status": "True", "reason": reason}] if reason else []
    resources = {"requests": {"cpu": "500m"}, "limits": {"cpu": "500m"}}
    running = {"name": "main", "allocatedResources": {"cpu": "500m"}, "resources": resources}
    found["status"] = {"phase": "Running", "conditions": conditions, "containerStatuses": [running]}
    info = read_pod_info(found, None, None)
    assert (info.resize, info.cpu, info.allocated) == (expected, 2000, 500)
    assert info.committed == (500 if expected is Resize.INFEASIBLE else 2000)


def test_memory_counts_as_the_scheduler_counts_it() -> None:
    """Sidecars run beside the containers, plain init containers before them."""

    def asks(name: str, memory: str, **more: Any) -> Object:
        return make.container(name, {"requests": {"memory": memory}}, **more)

    inits = [asks("sidecar", "1Gi", restartPolicy="Always"), asks("init", "5Gi")]
    assert pod({"containers": [asks("main", "2Gi")], "initContainers": inits}).memory == 5 * 2**30
    assert pod({"containers": [asks("main", "6Gi")], "initContainers": inits}).memory == 7 * 2**30
    assert pod({"overhead": {"memory": "1Gi"}}).memory == 2 * 2**30


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        (None, None),
        ({"cluster-autoscaler.kubernetes.io/safe-to-evict": "true"}, True),
        ({"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}, False),
        ({"karpenter.sh/do-not-disrupt": "true"}, False),
    ],
)
def test_its_owner_says_whether_it_may_be_evicted(annotations: Object | None, expected: bool | None) -> None:
    assert pod(annotations=annotations).safe_to_evict is expected


@pytest.mark.parametrize(
    ("volume", "expected"),
    [
        ({"name": "data", "emptyDir": {}}, True),
        ({"name": "data", "hostPath": {"path": "/x"}}, True),
        ({"name": "data", "emptyDir": {"medium": "Memory"}}, False),
        ({"name": "data", "configMap": {"name": "c"}}, False),
        ({"name": "kserve-provision-location", "emptyDir": {}}, False),
        ({"name": "scratch", "emptyDir": {}}, False),
    ],
)
def test_what_is_kept_on_the_node_does_not_move(volume: Object, expected: bool) -> None:
    fine = {"cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes": "scratch, other"}
    assert pod({"volumes": [volume]}, fine).local_storage is expected


def _affinity(kind: str, *terms: Object) -> Object:
    rule: Any = {"nodeSelectorTerms": list(terms)} if kind == "nodeAffinity" else list(terms)
    return {"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": rule}}}


def _in(*values: str, operator: str = "In") -> Object:
    return {"matchExpressions": [{"key": "zone", "operator": operator, "values": list(values)}]}


HOST = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "a"}}}
UNMODELLED = [
    (_affinity("nodeAffinity", _in("a", "b")), "node affinity of several values"),
    (_affinity("nodeAffinity", _in("a"), _in("b")), "node affinity of several values"),
    (_affinity("nodeAffinity", _in("a", operator="NotIn")), "node affinity of several values"),
    (_affinity("podAntiAffinity", {**HOST, "topologyKey": "zone"}), "pod anti-affinity"),
    (_affinity("podAntiAffinity", {**HOST, "labelSelector": {"matchLabels": {"app": "b"}}}), "pod anti-affinity"),
    (_affinity("podAntiAffinity", {**HOST, "namespaces": ["other"]}), "pod anti-affinity"),
    (_affinity("podAffinity", HOST), "pod affinity"),
    ({"topologySpreadConstraints": [{"whenUnsatisfiable": "DoNotSchedule"}]}, "topology spread"),
    ({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}, "volume claim"),
    ({"volumes": [{"name": "v", "ephemeral": {}}]}, "volume claim"),
    ({"resourceClaims": [{"name": "c"}]}, "resource claim"),
    (
        {"containers": [make.container(wanted={"requests": {"nvidia.com/gpu": "1"}})]},
        "request for nvidia.com/gpu",
    ),
]


@pytest.mark.parametrize(("spec", "rule"), UNMODELLED, ids=[rule for _, rule in UNMODELLED])
def test_a_rule_that_the_simulation_does_not_know_is_named(spec: Object, rule: str) -> None:
    assert pod(spec, labels={"app": "a"}).unmodelled == rule


def test_rules_that_it_knows() -> None:
    soft = {"topologySpreadConstraints": [{"whenUnsatisfiable": "ScheduleAnyway"}]}
    known = {"nodeSelector": {"disk": "ssd"}, **_affinity("nodeAffinity", _in("a")), **soft}
    found = pod(known)
    assert (found.selector, found.unmodelled) == ({"disk": "ssd", "zone": "a"}, "")
    port = make.container(ports=[{"containerPort": 80, "hostPort": 80}])
    assert pod({"containers": [port]}).exclusive == {"port TCP 80"}
    alone = pod(_affinity("podAntiAffinity", HOST), labels={"app": "a"})
    assert (len(alone.exclusive), alone.unmodelled) == (1, "")
    tolerations = [{"operator": "Exists"}, {"key": "gpu", "value": "yes", "effect": "NoSchedule"}]
    assert pod({"tolerations": tolerations}).tolerations == (Toleration(), Toleration("gpu", "yes", "NoSchedule"))


def test_a_pod_waits_when_the_scheduler_has_said_so() -> None:
    said = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    assert waits({"spec": {}, "status": {"conditions": [said]}})
    assert not waits({"spec": {}, "status": {"conditions": [said | {"reason": "SchedulingGated"}]}})
    assert not waits({"spec": {"nodeName": "n1"}, "status": {"conditions": [said]}})
    assert not waits({"spec": {}})


def test_a_budget_of_disruption_allows_what_its_status_says_of_this_generation() -> None:
    about = {"name": "web", "namespace": "ns", "generation": 2}
    spec = {"selector": {"matchLabels": {"app": "web"}}}
    status = {"observedGeneration": 2, "disruptionsAllowed": 1}
    found = read_disruption({"metadata": about, "spec": spec, "status": status})
    assert found is not None
    assert (found.name, found.namespace, dict(found.match), found.allowed) == ("web", "ns", {"app": "web"}, 1)
    stale = read_disruption({"metadata": about, "spec": spec, "status": status | {"observedGeneration": 1}})
    assert stale is not None
    assert stale.allowed == 0, "who has not looked at it yet allows nothing"
    assert read_disruption({"metadata": about, "spec": {}}) is None
    every = read_disruption({"metadata": about, "spec": {"selector": {"matchExpressions": [{}]}}, "status": status})
    assert every is not None
    assert dict(every.match) == {}, "expressions are not read: it is taken to cover the whole namespace"


def test_a_replacement_is_as_large_as_its_template() -> None:
    containers = [make.container("a", make.guaranteed("1500m")), make.container("b", make.guaranteed("250m"))]
    assert template_cpu({"spec": {"template": {"spec": {"containers": containers}}}}) == 1750
