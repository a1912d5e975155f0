"""Server-side apply and field owners: on the double, and on the real server where there is one."""

from __future__ import annotations

from typing import Any

import pytest
from tests.cluster import builders as make
from tests.cluster.client import MERGE, RequestError
from tests.cluster.harness import Cluster

SPACE = "models"


def deployment(**spec: Any) -> dict[str, Any]:
    labels = {"app": "x"}
    template = {
        "metadata": {"labels": labels},
        "spec": {"containers": [make.container("main", make.burstable("100m"))]},
    }
    full = {"replicas": 2, "selector": {"matchLabels": labels}, "template": template, **spec}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x", "namespace": SPACE}, "spec": full}


def partial(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x", "namespace": SPACE}, "spec": spec}


def service(**predictor: Any) -> dict[str, Any]:
    meta = {"name": "a", "namespace": SPACE}
    kind = {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService"}
    return {**kind, "metadata": meta, "spec": {"predictor": predictor}}


def causes(error: RequestError) -> dict[str, str]:
    return {cause["field"]: cause["message"] for cause in error.causes}


def test_apply_creates_what_is_not_there(cluster: Cluster) -> None:
    assert cluster.client.apply("deployments", deployment(), "one")["spec"]["replicas"] == 2
    (entry,) = cluster.client.get("deployments", "x", SPACE)["metadata"]["managedFields"]
    assert (entry["manager"], entry["operation"]) == ("one", "Apply")
    assert entry["fieldsV1"]["f:spec"]["f:replicas"] == {}


def test_a_field_of_another_is_a_conflict_that_names_its_owner(cluster: Cluster) -> None:
    cluster.client.apply("deployments", deployment(), "one")
    with pytest.raises(RequestError) as error:
        cluster.client.apply("deployments", partial(replicas=5), "two")
    assert error.value.code == 409
    assert causes(error.value) == {".spec.replicas": 'conflict with "one"'}
    assert error.value.message == 'Apply failed with 1 conflict: conflict with "one": .spec.replicas'


def test_the_same_value_is_shared_and_then_neither_may_change_it_alone(cluster: Cluster) -> None:
    cluster.client.apply("deployments", deployment(), "one")
    cluster.client.apply("deployments", partial(replicas=2), "two")
    with pytest.raises(RequestError):
        cluster.client.apply("deployments", partial(replicas=3), "two")
    with pytest.raises(RequestError):
        cluster.client.apply("deployments", deployment(replicas=3), "one")


def test_force_takes_the_field(cluster: Cluster) -> None:
    cluster.client.apply("deployments", deployment(), "one")
    assert cluster.client.apply("deployments", partial(replicas=5), "two", force="true")["spec"]["replicas"] == 5
    with pytest.raises(RequestError) as error:
        cluster.client.apply("deployments", deployment(), "one")
    assert causes(error.value) == {".spec.replicas": 'conflict with "two"'}


def test_an_update_owns_what_it_changes(cluster: Cluster) -> None:
    cluster.client.apply("deployments", deployment(), "one")
    cluster.client.patch("deployments", "x", SPACE, {"spec": {"replicas": 4}}, MERGE, fieldManager="kubectl-edit")
    with pytest.raises(RequestError) as error:
        cluster.client.apply("deployments", deployment(), "one")
    ((field, message),) = causes(error.value).items()
    assert field == ".spec.replicas"
    assert message.startswith('conflict with "kubectl-edit" using apps/v1')


def test_containers_of_built_in_types_are_merged_by_name(cluster: Cluster) -> None:
    cluster.client.apply("deployments", deployment(), "one")
    limits = {"name": "main", "resources": {"limits": {"cpu": "1"}}}
    template = {"spec": {"containers": [limits]}}
    found = cluster.client.apply("deployments", partial(template=template), "two")
    (container,) = found["spec"]["template"]["spec"]["containers"]
    assert container["resources"] == {"limits": {"cpu": "1"}, "requests": {"cpu": "100m", "memory": "256Mi"}}
    limits["resources"] = {"requests": {"cpu": "200m"}}
    with pytest.raises(RequestError) as error:
        cluster.client.apply("deployments", partial(template=template), "two")
    path = '.spec.template.spec.containers[name="main"].resources.requests.cpu'
    assert causes(error.value) == {path: 'conflict with "one"'}


def test_what_an_apply_leaves_out_it_gives_up(cluster: Cluster) -> None:
    cluster.client.apply("deployments", deployment(), "one")
    cluster.client.apply("deployments", partial(minReadySeconds=7), "two")
    assert "minReadySeconds" not in cluster.client.apply("deployments", partial(), "two")["spec"]


def test_an_apply_needs_a_manager(cluster: Cluster) -> None:
    with pytest.raises(RequestError):
        cluster.client.apply("deployments", deployment(), "")


def test_an_apply_that_changes_nothing_is_no_change(cluster: Cluster) -> None:
    first = cluster.client.apply("deployments", deployment(), "one")
    again = cluster.client.apply("deployments", deployment(), "one")
    assert again["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]


class TestInferenceService:
    """The published schema: resources of a model are granular, lists of containers atomic."""

    def test_resources_of_a_model_have_owners_of_their_own(self, cluster: Cluster) -> None:
        full = service(model={"modelFormat": {"name": "onnx"}, "resources": {"limits": {"cpu": "1"}}})
        cluster.client.apply("inferenceservices", full, "gitops")
        wanted = service(model={"resources": {"requests": {"cpu": "500m"}}})
        found = cluster.client.apply("inferenceservices", wanted, "headgate")
        model = found["spec"]["predictor"]["model"]
        assert model["resources"] == {"limits": {"cpu": "1"}, "requests": {"cpu": "500m"}}
        assert model["modelFormat"]["name"] == "onnx"
        with pytest.raises(RequestError) as error:
            cluster.client.apply(
                "inferenceservices", service(model={"resources": {"limits": {"cpu": "2"}}}), "headgate"
            )
        assert causes(error.value) == {".spec.predictor.model.resources.limits.cpu": 'conflict with "gitops"'}

    def test_a_list_of_containers_has_one_owner(self, cluster: Cluster) -> None:
        own = {"name": "kserve-container", "image": "x", "resources": {"requests": {"cpu": "1"}}}
        cluster.client.apply("inferenceservices", service(containers=[own]), "gitops")
        partly = {"name": "kserve-container", "resources": {"requests": {"cpu": "2"}}}
        with pytest.raises(RequestError) as error:
            cluster.client.apply("inferenceservices", service(containers=[partly]), "headgate")
        assert causes(error.value) == {".spec.predictor.containers": 'conflict with "gitops"'}
        found = cluster.client.apply("inferenceservices", service(containers=[partly]), "headgate", force="true")
        (container,) = found["spec"]["predictor"]["containers"]
        assert "image" not in container, "a partial apply replaces the list"

    def test_the_status_has_its_own_owners(self, cluster: Cluster) -> None:
        cluster.client.apply("inferenceservices", service(minReplicas=1), "gitops")
        body = {**service(), "status": {"url": "http://a"}}
        del body["spec"]
        found = cluster.client.apply("inferenceservices", body, "manager", "status")
        assert found["status"]["url"] == "http://a"
        entries = {(e["manager"], e.get("subresource", "")) for e in found["metadata"]["managedFields"]}
        assert entries == {("gitops", ""), ("manager", "status")}
