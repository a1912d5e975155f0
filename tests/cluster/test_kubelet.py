"""The kubelet simulator behaves as the measured kubelet: accepted is not in force."""

from __future__ import annotations

from typing import Any

import pytest
from tests.cluster import builders as make
from tests.cluster.harness import Cluster

SPACE = "models"


def conditions(pod: dict[str, Any]) -> dict[str, str]:
    """Resize conditions and their reasons."""
    return {c["type"]: c.get("reason", "") for c in pod["status"]["conditions"] if c["type"].startswith("PodResize")}


def told(cluster: Cluster, name: str) -> tuple[str, str, dict[str, str]]:
    """CPU allocated and in force, and conditions."""
    pod = cluster.client.get("pods", name, SPACE)
    status = pod["status"]["containerStatuses"][0]
    return status["allocatedResources"]["cpu"], status["resources"]["requests"]["cpu"], conditions(pod)


@pytest.fixture
def small(cluster: Cluster) -> Cluster:
    """A node of 2 CPUs with two pods of 900m."""
    cluster.client.create("nodes", make.node("n1", "2"))
    cluster.plane.settle()
    for name in ("p", "q"):
        container = make.container("main", make.burstable("900m"))
        cluster.client.create("pods", make.pod(name, container, namespace=SPACE, node="n1"))
    cluster.kubelets.step()
    return cluster


def grow(cluster: Cluster, name: str, cpu: str) -> dict[str, Any]:
    return cluster.client.resize(name, SPACE, {"main": {"requests": {"cpu": cpu}}})


def test_a_resize_is_accepted_first_and_in_force_later(small: Cluster) -> None:
    generation = grow(small, "p", "1")["metadata"]["generation"]
    small.kubelets.step(0.5)
    assert told(small, "p") == ("1", "900m", {"PodResizeInProgress": ""})
    # observedGeneration leads the cgroup: alone it proves nothing.
    assert small.client.get("pods", "p", SPACE)["status"]["observedGeneration"] == generation
    small.kubelets.step(1.0)
    assert told(small, "p") == ("1", "1", {})
    assert small.client.get("pods", "p", SPACE)["status"]["containerStatuses"][0]["restartCount"] == 0


def test_a_full_node_defers_until_there_is_room(small: Cluster) -> None:
    grow(small, "p", "1200m")
    small.kubelets.step()
    assert told(small, "p") == ("900m", "900m", {"PodResizePending": "Deferred"})
    pod = small.client.get("pods", "p", SPACE)
    (message,) = [c["message"] for c in pod["status"]["conditions"] if c["type"] == "PodResizePending"]
    assert message == "Node didn't have enough resource: cpu, requested: 1200, used: 900, capacity: 2000"
    grow(small, "q", "800m")
    for _ in range(3):
        small.kubelets.step()
    assert told(small, "p") == ("1200m", "1200m", {})


def test_beyond_the_node_is_infeasible(small: Cluster) -> None:
    small.kubelets.client.status("nodes", "n1", "", {"allocatable": {"cpu": "4"}})
    small.plane.settle()
    grow(small, "p", "3")
    small.kubelets.client.status("nodes", "n1", "", {"allocatable": {"cpu": "2"}})
    small.kubelets.step()
    assert told(small, "p") == ("900m", "900m", {"PodResizePending": "Infeasible"})


def test_the_runtime_may_fail(small: Cluster) -> None:
    small.kubelets.broken["p"] = "the cgroup is gone"
    grow(small, "p", "1")
    small.kubelets.step()
    small.kubelets.step()
    assert told(small, "p") == ("1", "900m", {"PodResizeInProgress": "Error"})
    small.kubelets.broken.clear()
    small.kubelets.step()
    assert told(small, "p") == ("1", "1", {})


def test_a_container_that_crashes_starts_with_what_is_set_aside_for_it(small: Cluster) -> None:
    # Measured with containerd and runc: a growth that could not be put in force was, when the container started again.
    small.kubelets.broken["p"] = "the update is refused"
    grow(small, "p", "1")
    small.kubelets.step()
    small.kubelets.step()
    assert told(small, "p") == ("1", "900m", {"PodResizeInProgress": "Error"})
    small.kubelets.restart("p")
    small.kubelets.step()
    assert told(small, "p") == ("1", "1", {})
    assert small.client.get("pods", "p", SPACE)["status"]["containerStatuses"][0]["restartCount"] == 1


def test_a_policy_may_restart_the_container(small: Cluster) -> None:
    container = make.container("main", make.burstable("100m"), resizePolicy=make.restarting())
    small.client.create("pods", make.pod("r", container, namespace=SPACE, node="n1"))
    small.kubelets.step()
    grow(small, "r", "150m")
    small.kubelets.step()
    small.kubelets.step()
    status = small.client.get("pods", "r", SPACE)["status"]["containerStatuses"][0]
    assert (status["restartCount"], status["resources"]["requests"]["cpu"]) == (1, "150m")


def test_a_static_cpu_manager_resizes_no_guaranteed_pod(small: Cluster) -> None:
    small.kubelets.default.static = True
    small.client.create(
        "pods", make.pod("g", make.container("main", make.guaranteed("100m")), namespace=SPACE, node="n1")
    )
    small.kubelets.step()
    small.client.resize("g", SPACE, {"main": make.guaranteed("150m")})
    small.kubelets.step()
    assert told(small, "g")[2] == {"PodResizePending": "Infeasible"}


def test_new_replicas_use_the_template(cluster: Cluster) -> None:
    cluster.client.create("nodes", make.node("n1"))
    cluster.plane.settle()
    cluster.client.create("inferenceservices", make.inference_service("a", SPACE, make.guaranteed("500m")))
    cluster.settle()
    (pod,) = cluster.of("a")
    cluster.client.resize(pod["metadata"]["name"], SPACE, {"kserve-container": make.guaranteed("1")})
    cluster.client.patch("deployments", "a-predictor", SPACE, {"spec": {"replicas": 2}}, sub="scale")
    cluster.settle()
    sizes = sorted(p["spec"]["containers"][0]["resources"]["requests"]["cpu"] for p in cluster.of("a"))
    assert sizes == ["1", "500m"]
