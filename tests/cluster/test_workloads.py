"""The emulated controllers: what lives in the cluster besides headgate."""

from __future__ import annotations

from tests.cluster import builders as make
from tests.cluster.harness import Cluster


def test_a_service_becomes_pods_and_a_template_edit_rolls_them(cluster: Cluster) -> None:
    cluster.client.create("nodes", make.node("n1"))
    service = make.inference_service("fraud", "models", make.guaranteed("500m"), minReplicas=2)
    cluster.client.create("inferenceservices", service)
    cluster.settle()
    before = {pod["metadata"]["name"] for pod in cluster.of("fraud")}
    assert len(before) == 2
    wanted = {"spec": {"predictor": {"model": {"resources": make.guaranteed("1")}}}}
    cluster.client.patch("inferenceservices", "fraud", "models", wanted)
    cluster.settle()
    after = cluster.of("fraud")
    assert len(after) == 2
    assert not before & {pod["metadata"]["name"] for pod in after}
    assert {pod["spec"]["containers"][0]["resources"]["limits"]["cpu"] for pod in after} == {"1"}
