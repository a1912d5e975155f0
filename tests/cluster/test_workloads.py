"""The emulated controllers: what lives in the cluster besides headgate."""

from __future__ import annotations

from tests.cluster import builders as make
from tests.cluster.harness import Cluster


def test_a_service_becomes_pods_and_a_template_edit_rolls_them(double: Cluster) -> None:
    double.client.create("nodes", make.node("n1"))
    service = make.inference_service("fraud", "models", make.guaranteed("500m"), minReplicas=2)
    double.client.create("inferenceservices", service)
    double.settle()
    before = {pod["metadata"]["name"] for pod in double.of("fraud")}
    assert len(before) == 2
    wanted = {"spec": {"predictor": {"model": {"resources": make.guaranteed("1")}}}}
    double.client.patch("inferenceservices", "fraud", "models", wanted)
    double.settle()
    after = double.of("fraud")
    assert len(after) == 2
    assert not before & {pod["metadata"]["name"] for pod in after}
    assert {pod["spec"]["containers"][0]["resources"]["limits"]["cpu"] for pod in after} == {"1"}
