"""The steps of a removal, and the look before them, on the double and on a real API server."""

from __future__ import annotations

import time
from typing import Any

import pytest
from tests.cluster import builders as make
from tests.cluster.double.faults import matching
from tests.cluster.harness import Cluster

from headgate.adapters.kubernetes.api import Api
from headgate.adapters.kubernetes.events import Events
from headgate.adapters.kubernetes.nodes_host import KubernetesNodes
from headgate.adapters.kubernetes.nodes_read import CORDONED, TAINT
from headgate.core.hosting import Sized

OTHER = {"key": "gpu", "effect": "NoSchedule"}


def host_of(cluster: Cluster) -> KubernetesNodes:
    api = Api(cluster.connection())
    return KubernetesNodes(api, Events(api, "here_1"))


def node(cluster: Cluster) -> Any:
    return cluster.client.get("nodes", "n1")


def keys(cluster: Cluster) -> list[str]:
    """Of its taints; a server of its own adds that the node is not ready."""
    found = [taint["key"] for taint in node(cluster)["spec"].get("taints") or ()]
    return [key for key in found if not key.startswith("node.kubernetes.io/")]


@pytest.fixture
def host(cluster: Cluster) -> KubernetesNodes:
    body = make.node("n1", cpu="4")
    body["spec"] = {"taints": [OTHER]}
    cluster.add("nodes", body)
    cluster.plane.settle()
    return host_of(cluster)


def run(cluster: Cluster, name: str, **labels: str) -> None:
    """A pod that runs on n1."""
    body = make.pod(name, make.container(wanted=make.guaranteed("500m")), namespace="models", node="n1", labels=labels)
    body["spec"]["tolerations"] = [{"operator": "Exists"}]
    cluster.client.create("pods", body)
    cluster.kubelets.step()


def test_the_soft_taint_comes_and_goes_beside_others(cluster: Cluster, host: KubernetesNodes) -> None:
    for _ in range(2):
        host.mark("n1")
        assert keys(cluster) == ["gpu", TAINT]
    assert [t["effect"] for t in node(cluster)["spec"]["taints"] if t["key"] == TAINT] == ["PreferNoSchedule"]
    for _ in range(2):
        host.unmark("n1")
        assert keys(cluster) == ["gpu"]


def test_a_cordon_is_noted_and_only_such_a_one_is_undone(cluster: Cluster, host: KubernetesNodes) -> None:
    for _ in range(2):
        host.cordon("n1")
        assert node(cluster)["spec"]["unschedulable"] is True
        assert node(cluster)["metadata"]["annotations"][CORDONED] == "true"
    for _ in range(2):
        host.uncordon("n1")
        assert not node(cluster)["spec"].get("unschedulable")
        assert CORDONED not in (node(cluster)["metadata"].get("annotations") or {})
    cluster.client.patch("nodes", "n1", "", {"spec": {"unschedulable": True}})
    host.cordon("n1")
    host.uncordon("n1")
    assert node(cluster)["spec"]["unschedulable"] is True, "somebody else cordoned it"


def test_a_cordon_that_somebody_has_undone_leaves_no_note_for_the_next(cluster: Cluster, host: KubernetesNodes) -> None:
    host.mark("n1")
    host.cordon("n1")
    cluster.client.patch("nodes", "n1", "", {"spec": {"unschedulable": None}})  # kubectl uncordon
    host.unmark("n1")
    assert keys(cluster) == ["gpu"]
    assert CORDONED not in (node(cluster)["metadata"].get("annotations") or {})
    cluster.client.patch("nodes", "n1", "", {"spec": {"unschedulable": True}})  # kubectl cordon
    host.uncordon("n1")
    assert node(cluster)["spec"]["unschedulable"] is True, "it is theirs"


def test_a_step_on_a_node_or_pod_that_is_gone_is_done(cluster: Cluster) -> None:
    host = host_of(cluster)
    for step in (host.mark, host.unmark, host.cordon, host.uncordon):
        step("gone")
    host.evict("models/gone", 1.0)
    assert host.serving("gone") == []


def test_a_change_that_comes_in_between_is_not_overwritten(double: Cluster) -> None:
    double.add("nodes", make.node("n1"))
    host = host_of(double)
    double.faults.fail(matching("write", "nodes"), 409, times=2)
    host.mark("n1")
    assert keys(double) == [TAINT]
    double.faults.fail(matching("write", "nodes"), 409, times=3)
    with pytest.raises(ConnectionError, match="node n1 cannot be changed"):
        host.unmark("n1")


def test_what_is_seen_of_a_cluster(cluster: Cluster, host: KubernetesNodes) -> None:
    run(cluster, "a")
    run(cluster, "b")
    waiting = make.pod("big", make.container(wanted=make.guaranteed("9")), namespace="models")
    cluster.client.create("pods", waiting)
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    cluster.client.status("pods", "big", "models", {"conditions": [condition]})
    cluster.client.create("pods", make.pod("done", namespace="models", node="n1"))
    cluster.client.status("pods", "done", "models", {"phase": "Succeeded"})
    before = time.time()
    seen = host.observe_nodes({"models/a": Sized("models/svc", 100)})
    assert before <= seen.time <= time.time()
    (found,) = seen.nodes
    assert {pod.name: (pod.cpu, pod.pipeline, pod.floor) for pod in found.pods} == {
        "models/a": (500, "models/svc", 100),
        "models/b": (500, None, 0),
    }
    assert [pod.name for pod in seen.pending] == ["models/big"]
    assert (dict(seen.groups), dict(seen.demand), seen.outcomes) == ({}, {}, ())
    assert sorted(host.serving("n1")) == ["models/a", "models/b"]


def test_usage_comes_from_the_metrics_api_and_is_not_known_without_it(double: Cluster) -> None:
    for name in ("n1", "n2"):
        double.add("nodes", make.node(name))
    double.client.create(
        "metrics.k8s.io/v1beta1/nodes",
        {"metadata": {"name": "n1"}, "timestamp": "2026-11-24T10:00:00Z", "window": "30s", "usage": {"cpu": "1250m"}},
    )
    host = host_of(double)
    assert {n.name: n.usage for n in host.observe_nodes({}).nodes} == {"n1": 1250, "n2": None}
    for code in (503, 403, 404):
        double.faults.fail(matching("GET", "metrics.k8s.io"), code, times=1)
        usage = {n.name: n.usage for n in host.observe_nodes({}).nodes}
        assert set(usage.values()) == {None}, code


def test_an_eviction_that_a_budget_of_disruption_forbids_is_to_be_repeated(
    cluster: Cluster, host: KubernetesNodes
) -> None:
    run(cluster, "a", app="web")
    about = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "web"}}
    spec = {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}
    made = cluster.client.create("poddisruptionbudgets", {**about, "spec": spec}, "models")
    status = {"disruptionsAllowed": 0, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1}
    status |= {"observedGeneration": made["metadata"]["generation"]}
    cluster.client.status("poddisruptionbudgets", "web", "models", status)
    (budget,) = host.observe_nodes({}).disruption
    assert (budget.name, budget.allowed) == ("web", 0)
    with pytest.raises(ConnectionError, match=r"pod models/a cannot be evicted: 429 .*disruption budget"):
        host.evict("models/a", 0.0)
    assert not cluster.client.get("pods", "a", "models")["metadata"].get("deletionTimestamp")
    cluster.client.status("poddisruptionbudgets", "web", "models", {**status, "disruptionsAllowed": 1})
    host.evict("models/a", 7.0)
    assert cluster.client.get("pods", "a", "models")["metadata"]["deletionGracePeriodSeconds"] == 7


def test_another_pod_of_the_same_name_is_not_evicted(cluster: Cluster, host: KubernetesNodes) -> None:
    run(cluster, "a")
    host.observe_nodes({})
    cluster.client.delete("pods", "a", "models", grace=0)
    run(cluster, "a")
    host.evict("models/a", 1.0)
    assert not cluster.client.get("pods", "a", "models")["metadata"].get("deletionTimestamp")
    host.observe_nodes({})
    host.evict("models/a", 1.0)
    assert cluster.client.get("pods", "a", "models")["metadata"].get("deletionTimestamp")


def test_events_about_a_node_are_where_kubectl_looks(cluster: Cluster, host: KubernetesNodes) -> None:
    for _ in range(2):
        host.tell("n1", "Normal", "RemovalMarked", "its load fits elsewhere")
    (event,) = cluster.client.list("events", "default", fieldSelector="involvedObject.kind=Node")
    about = event["involvedObject"]
    assert (about["name"], about["uid"]) == ("n1", "n1"), "kubectl describe node looks for the name as the uid"
    assert (event["reason"], event["message"], event["count"]) == ("RemovalMarked", "its load fits elsewhere", 2)
