"""pods/resize as measured on 1.36: every rule on the double, and on the real server where there is one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from tests.cluster import builders as make
from tests.cluster.client import JSON_PATCH, MERGE, STRATEGIC, RequestError
from tests.cluster.harness import Cluster

SPACE = "models"


@pytest.fixture
def on_node(cluster: Cluster) -> Cluster:
    cluster.client.create("nodes", make.node("n1", "8"))
    cluster.plane.settle()
    return cluster


def run(cluster: Cluster, name: str, wanted: Mapping[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    """A running pod with one container "main"."""
    main = make.container("main", wanted, **{k: spec.pop(k) for k in ("resizePolicy",) if k in spec})
    cluster.client.create("pods", make.pod(name, main, namespace=SPACE, node="n1", **spec))
    cluster.kubelets.step()
    return cluster.client.get("pods", name, SPACE)


def refused(cluster: Cluster, pod: str, code: int, *parts: str, **wanted: Any) -> RequestError:
    with pytest.raises(RequestError) as error:
        cluster.client.resize(pod, SPACE, {"main": wanted})
    assert error.value.code == code
    for part in parts:
        assert part in error.value.message
    return error.value


def cpu(pod: Mapping[str, Any], part: str = "requests") -> str:
    return str(pod["spec"]["containers"][0]["resources"][part]["cpu"])


def body(**wanted: Any) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "main", "resources": wanted}]}}


def test_a_strategic_patch_resizes_and_counts_a_generation(on_node: Cluster) -> None:
    before = run(on_node, "p", make.guaranteed("1"))
    after = on_node.client.resize("p", SPACE, {"main": {"requests": {"cpu": "2"}, "limits": {"cpu": "2"}}})
    assert (cpu(after), cpu(after, "limits")) == ("2", "2")
    assert after["metadata"]["generation"] == before["metadata"]["generation"] + 1
    assert after["status"]["containerStatuses"][0]["resources"]["requests"]["cpu"] == "1"


def test_quantities_are_stored_in_their_canonical_spelling(on_node: Cluster) -> None:
    run(on_node, "p", make.burstable("1"))
    assert cpu(on_node.client.resize("p", SPACE, {"main": {"requests": {"cpu": "1.5"}}})) == "1500m"
    assert cpu(on_node.client.resize("p", SPACE, {"main": {"requests": {"cpu": "2000m"}}})) == "2"


def test_a_json_patch_resizes(on_node: Cluster) -> None:
    run(on_node, "p", make.burstable("1"))
    operation = {"op": "replace", "path": "/spec/containers/0/resources/requests/cpu", "value": "700m"}
    after = on_node.client.patch("pods", "p", SPACE, [operation], JSON_PATCH, "resize")
    assert cpu(after) == "700m"


def test_server_side_apply_resizes_what_nobody_else_set(on_node: Cluster) -> None:
    run(on_node, "p", make.burstable("1"))
    wanted = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": SPACE},
        **body(limits={"cpu": "3"}),
    }
    after = on_node.client.apply("pods", wanted, "headgate", "resize")
    assert cpu(after, "limits") == "3"
    wanted |= body(requests={"cpu": "2"})
    with pytest.raises(RequestError) as error:
        on_node.client.apply("pods", wanted, "headgate", "resize")
    assert error.value.code == 409
    (cause,) = error.value.causes
    assert cause["field"] == '.spec.containers[name="main"].resources.requests.cpu'
    assert '"test"' in cause["message"]


def test_a_whole_pod_put_to_resize_changes_only_resources(on_node: Cluster) -> None:
    pod = run(on_node, "p", make.burstable("1"))
    pod["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "800m"
    pod["spec"]["containers"][0]["image"] = "example.org/other:2"
    pod["metadata"]["labels"] = {"a": "b"}
    after = on_node.client.replace("pods", pod, "resize")
    assert cpu(after) == "800m"
    assert after["spec"]["containers"][0]["image"] == "example.org/image:1"
    assert not after["metadata"].get("labels")


def test_resize_reads_as_the_pod(on_node: Cluster) -> None:
    pod = run(on_node, "p", make.burstable("1"))
    assert on_node.client.get("pods", "p", SPACE, "resize")["metadata"]["uid"] == pod["metadata"]["uid"]


def test_dry_run_answers_and_changes_nothing(on_node: Cluster) -> None:
    before = run(on_node, "p", make.burstable("1"))
    wanted = {"main": {"requests": {"cpu": "2"}}}
    assert cpu(on_node.client.resize("p", SPACE, wanted, dryRun="All")) == "2"
    assert on_node.client.get("pods", "p", SPACE)["metadata"] == before["metadata"]


def test_a_dry_run_is_refused_as_the_write_would_be(on_node: Cluster) -> None:
    run(on_node, "p", make.burstable("1"))
    with pytest.raises(RequestError, match="node didn't have enough allocatable resources"):
        on_node.client.resize("p", SPACE, {"main": {"requests": {"cpu": "99"}}}, dryRun="All")


def test_a_merge_patch_replaces_the_containers_and_fails(on_node: Cluster) -> None:
    main, side = make.container("main", make.burstable("1")), make.container("side")
    on_node.client.create("pods", make.pod("p", main, side, namespace=SPACE, node="n1"))
    on_node.kubelets.step()
    with pytest.raises(RequestError) as error:
        on_node.client.patch("pods", "p", SPACE, body(requests={"cpu": "2"}), MERGE, "resize")
    assert error.value.code == 422
    assert "spec.containers[0].image: Required value" in error.value.message
    assert "containers may not be added or removed on resize" in error.value.message


def test_a_merge_patch_of_a_whole_container_loses_what_it_leaves_out(on_node: Cluster) -> None:
    run(on_node, "p", make.burstable("1"))
    wanted = body(requests={"cpu": "2"})
    wanted["spec"]["containers"][0]["image"] = "example.org/image:1"
    with pytest.raises(RequestError, match="resource requests cannot be removed"):
        on_node.client.patch("pods", "p", SPACE, wanted, MERGE, "resize")


def test_the_pod_itself_does_not_take_resources(on_node: Cluster) -> None:
    run(on_node, "p", make.burstable("1"))
    with pytest.raises(RequestError, match="pod updates may not change fields other than") as error:
        on_node.client.patch("pods", "p", SPACE, body(requests={"cpu": "2"}), STRATEGIC)
    assert error.value.code == 422


def test_an_unknown_container_would_be_an_added_one(on_node: Cluster) -> None:
    run(on_node, "p", make.burstable("1"))
    with pytest.raises(RequestError, match="containers may not be added or removed on resize"):
        on_node.client.resize("p", SPACE, {"other": {"requests": {"cpu": "2"}}})


class TestQosClass:
    def test_guaranteed_may_not_become_burstable(self, on_node: Cluster) -> None:
        run(on_node, "p", make.guaranteed("1"))
        said = 'spec: Invalid value: "Guaranteed": Pod QOS Class may not change as a result of resizing'
        refused(on_node, "p", 422, said, requests={"cpu": "500m"})

    def test_burstable_may_not_become_guaranteed(self, on_node: Cluster) -> None:
        run(on_node, "p", make.resources("1", "2", "1Gi", "1Gi"))
        refused(on_node, "p", 422, "Pod QOS Class may not change", requests={"cpu": "2"})

    def test_best_effort_takes_no_resources(self, on_node: Cluster) -> None:
        run(on_node, "p")
        refused(on_node, "p", 422, "Pod QOS Class may not change", requests={"cpu": "100m"})

    def test_guaranteed_keeps_equal_requests_and_limits(self, on_node: Cluster) -> None:
        run(on_node, "p", make.guaranteed("1"))
        after = on_node.client.resize("p", SPACE, {"main": {"requests": {"cpu": "2"}, "limits": {"cpu": "2"}}})
        assert after["status"]["qosClass"] == "Guaranteed"


class TestRequestsAndLimits:
    def test_a_burstable_container_without_cpu_may_get_some(self, on_node: Cluster) -> None:
        run(on_node, "p", make.resources(None, None, "256Mi"))
        assert cpu(on_node.client.resize("p", SPACE, {"main": {"requests": {"cpu": "100m"}}})) == "100m"

    def test_a_limit_stays(self, on_node: Cluster) -> None:
        run(on_node, "p", make.burstable("1", "2"))
        refused(on_node, "p", 422, "resource limits cannot be removed", limits={"cpu": None})

    def test_a_request_removed_below_a_limit_becomes_the_limit(self, on_node: Cluster) -> None:
        run(on_node, "p", make.burstable("1", "2"))
        assert cpu(on_node.client.resize("p", SPACE, {"main": {"requests": {"cpu": None}}})) == "2"

    def test_a_request_without_a_limit_stays(self, on_node: Cluster) -> None:
        run(on_node, "p", make.burstable("1"))
        refused(on_node, "p", 422, "resource requests cannot be removed", requests={"cpu": None})

    def test_a_request_is_not_above_its_limit(self, on_node: Cluster) -> None:
        run(on_node, "p", make.burstable("1", "1700m"))
        refused(on_node, "p", 422, "must be less than or equal to cpu limit of 1700m", requests={"cpu": "2"})

    def test_memory_may_change(self, on_node: Cluster) -> None:
        run(on_node, "p", make.burstable("1"))
        after = on_node.client.resize("p", SPACE, {"main": {"requests": {"memory": "512Mi"}}})
        assert after["spec"]["containers"][0]["resources"]["requests"]["memory"] == "512Mi"

    def test_other_resources_may_not(self, on_node: Cluster) -> None:
        run(on_node, "p", make.burstable("1"))
        refused(on_node, "p", 422, "only cpu and memory resources are mutable", requests={"ephemeral-storage": "1Gi"})


class TestForbidden:
    """A 403 has four meanings."""

    def test_node_capacity_counts_this_pod_alone(self, on_node: Cluster) -> None:
        run(on_node, "other", make.burstable("7"))
        run(on_node, "p", make.burstable("1"))
        said = "node didn't have enough allocatable resources: cpu, requested: 99000, allocatable: 8000"
        error = refused(on_node, "p", 403, said, requests={"cpu": "99"})
        assert [cause["reason"] for cause in error.causes] == ["NodeCapacity"]
        assert cpu(on_node.client.resize("p", SPACE, {"main": {"requests": {"cpu": "8"}}})) == "8"

    def test_a_limit_range(self, on_node: Cluster) -> None:
        run(on_node, "p", make.burstable("1", "2"))
        on_node.client.create("limitranges", make.limit_range("most", SPACE, max={"cpu": "2"}))
        on_node.plane.settle()
        error = refused(on_node, "p", 403, "maximum cpu usage per Container is 2, but limit is 3", limits={"cpu": "3"})
        assert not error.causes

    def test_a_quota(self, on_node: Cluster) -> None:
        run(on_node, "p", make.burstable("1"))
        on_node.add("resourcequotas", make.quota("rq", SPACE, {"requests.cpu": "1"}, requests__cpu="2"))
        on_node.plane.settle()
        said = "exceeded quota: rq, requested: requests.cpu=3, used: requests.cpu=1, limited: requests.cpu=2"
        refused(on_node, "p", 403, said, requests={"cpu": "4"})
        assert cpu(on_node.client.resize("p", SPACE, {"main": {"requests": {"cpu": "2"}}})) == "2"

    def test_no_permission(self, on_node: Cluster) -> None:
        run(on_node, "p", make.burstable("1"))
        rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "patch", "update"]}]
        on_node.bind("headgate", rules)
        api = on_node.as_user("headgate-t0ken")
        assert api.get("pods", "p", SPACE)["kind"] == "Pod"
        with pytest.raises(RequestError) as error:
            api.resize("p", SPACE, {"main": {"requests": {"cpu": "2"}}})
        assert error.value.code == 403
        assert 'cannot patch resource "pods/resize" in API group "" in the namespace "models"' in error.value.message
        on_node.bind("headgate", [{"apiGroups": [""], "resources": ["pods/resize"], "verbs": ["patch"]}])
        assert cpu(api.resize("p", SPACE, {"main": {"requests": {"cpu": "2"}}})) == "2"


def test_a_node_without_support_for_resize(on_node: Cluster) -> None:
    on_node.kubelets.default.old = True
    run(on_node, "p", make.burstable("1"))
    refused(on_node, "p", 422, "Pod running on node without support for resize", requests={"cpu": "2"})


def test_a_stale_resource_version_is_a_conflict(on_node: Cluster) -> None:
    pod = run(on_node, "p", make.burstable("1"))
    on_node.client.patch("pods", "p", SPACE, {"metadata": {"labels": {"a": "b"}}})
    stale = {"metadata": {"resourceVersion": pod["metadata"]["resourceVersion"]}, **body(requests={"cpu": "2"})}
    with pytest.raises(RequestError, match="the object has been modified") as error:
        on_node.client.patch("pods", "p", SPACE, stale, STRATEGIC, "resize")
    assert (error.value.code, error.value.reason) == (409, "Conflict")


def test_pending_and_succeeded_pods_take_it(on_node: Cluster) -> None:
    on_node.client.create("pods", make.pod("waits", make.container("main", make.burstable("1")), namespace=SPACE))
    assert cpu(on_node.client.resize("waits", SPACE, {"main": {"requests": {"cpu": "2"}}})) == "2"
    run(on_node, "done", make.burstable("1"))
    on_node.client.status("pods", "done", SPACE, {"phase": "Succeeded"})
    assert cpu(on_node.client.resize("done", SPACE, {"main": {"requests": {"cpu": "2"}}})) == "2"


def test_image_labels_and_annotations_in_a_resize_are_ignored(on_node: Cluster) -> None:
    run(on_node, "p", make.burstable("1"))
    wanted = body(requests={"cpu": "2"})
    wanted["spec"]["containers"][0]["image"] = "example.org/other:2"
    wanted["metadata"] = {"labels": {"a": "b"}, "annotations": {"a": "b"}}
    after = on_node.client.patch("pods", "p", SPACE, wanted, STRATEGIC, "resize")
    assert cpu(after) == "2"
    assert after["spec"]["containers"][0]["image"] == "example.org/image:1"
    assert "annotations" not in after["metadata"]
    assert not after["metadata"].get("labels")


def test_an_unknown_pod_is_not_found(on_node: Cluster) -> None:
    refused(on_node, "nobody", 404, 'pods "nobody" not found', requests={"cpu": "1"})


def test_a_patch_that_changes_nothing_is_no_change(on_node: Cluster) -> None:
    before = run(on_node, "p", make.burstable("1"))
    after = on_node.client.resize("p", SPACE, {"main": {"requests": {"cpu": "1"}}})
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
