"""What watches the others has to be able to see."""

from __future__ import annotations

import pytest
from tests.cluster import builders as make
from tests.cluster.harness import Cluster
from tests.cluster.recorder import Recorder


def test_a_budget_that_is_exceeded_for_one_write_is_noticed(cluster: Cluster) -> None:
    cluster.client.create("nodes", make.node("n1"))
    cluster.plane.settle()
    for name, cpu in (("a", "600m"), ("b", "400m")):
        cluster.client.create("inferenceservices", make.inference_service(name, "models", make.burstable(cpu)))
    cluster.settle()
    recorder = Recorder(cluster)
    (a,), (b,) = cluster.of("a"), cluster.of("b")

    def resize(pod: dict, cpu: str) -> None:  # type: ignore[type-arg]
        cluster.client.resize(pod["metadata"]["name"], "models", {"kserve-container": {"requests": {"cpu": cpu}}})

    resize(a, "500m")
    cluster.step()
    cluster.step()
    resize(b, "500m")
    cluster.step()
    cluster.step()
    assert max(instant.taken for instant in recorder.check(1000)) == 1000
    resize(a, "600m")  # before b has given anything up
    with pytest.raises(AssertionError, match="1100 of 1000 millicores after models/a-predictor"):
        recorder.check(1000)
    resize(b, "400m")
    cluster.step()
    cluster.step()
    with pytest.raises(AssertionError, match="1100 of 1000"):
        recorder.check(1000)


def test_a_restart_is_noticed(cluster: Cluster) -> None:
    cluster.client.create("nodes", make.node("n1"))
    cluster.plane.settle()
    cluster.client.create("inferenceservices", make.inference_service("a", "models", make.burstable("500m")))
    cluster.settle()
    recorder = Recorder(cluster)
    name = cluster.of("a")[0]["metadata"]["name"]
    cluster.kubelets.restart(name)
    cluster.step()
    assert recorder.restarts() == {name: 1}
