"""What else clients rely on: conflicts, lists, watches, scale, statuses, definitions, evictions, permissions."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.cluster import builders as make
from tests.cluster.client import JSON_PATCH, MERGE, STRATEGIC, RequestError
from tests.cluster.harness import HEADGATE, Cluster

SPACE = "models"


def config(name: str, **data: str) -> dict[str, Any]:
    meta = {"name": name, "namespace": SPACE}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}


def budget(name: str = "b", disruptions: int = 0) -> dict[str, Any]:
    meta = {"name": name, "namespace": SPACE}
    spec = {"selector": {"matchLabels": {"app": "x"}}, "minAvailable": 1}
    status = {"disruptionsAllowed": disruptions, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1}
    status["observedGeneration"] = 1
    return {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": meta, "spec": spec, "status": status}


class TestObjects:
    def test_a_put_of_a_stale_object_is_a_conflict(self, cluster: Cluster) -> None:
        first = cluster.client.create("configmaps", config("c", a="1"))
        cluster.client.patch("configmaps", "c", SPACE, {"data": {"a": "2"}})
        with pytest.raises(RequestError, match="the object has been modified") as error:
            cluster.client.replace("configmaps", {**first, "data": {"a": "3"}})
        assert (error.value.code, error.value.reason) == (409, "Conflict")

    def test_an_object_of_the_same_name_with_another_uid_is_a_conflict(self, cluster: Cluster) -> None:
        cluster.client.create("configmaps", config("c", a="1"))
        patch = {"metadata": {"uid": "00000000-0000-0000-0000-000000000000"}, "data": {"a": "2"}}
        with pytest.raises(RequestError) as error:
            cluster.client.patch("configmaps", "c", SPACE, patch)
        assert error.value.code in (409, 422)

    def test_names_are_taken_once(self, cluster: Cluster) -> None:
        cluster.client.create("configmaps", config("c"))
        with pytest.raises(RequestError, match='configmaps "c" already exists') as error:
            cluster.client.create("configmaps", config("c"))
        assert (error.value.code, error.value.reason) == (409, "AlreadyExists")

    def test_a_namespace_has_to_be_there(self, cluster: Cluster) -> None:
        body = config("c")
        body["metadata"]["namespace"] = "nowhere"
        with pytest.raises(RequestError, match='namespaces "nowhere" not found'):
            cluster.client.create("configmaps", body)

    def test_patches_by_json_and_null(self, cluster: Cluster) -> None:
        cluster.client.create("configmaps", config("c", a="1", b="2"))
        cluster.client.patch("configmaps", "c", SPACE, {"data": {"a": None}}, MERGE)
        operations = [{"op": "test", "path": "/data/b", "value": "2"}, {"op": "add", "path": "/data/c", "value": "3"}]
        assert cluster.client.patch("configmaps", "c", SPACE, operations, JSON_PATCH)["data"] == {"b": "2", "c": "3"}
        operations[0]["value"] = "9"
        with pytest.raises(RequestError):
            cluster.client.patch("configmaps", "c", SPACE, operations, JSON_PATCH)

    def test_a_dry_run_creates_and_deletes_nothing(self, cluster: Cluster) -> None:
        cluster.client.create("configmaps", config("c"), dryRun="All")
        assert cluster.client.find("configmaps", "c", SPACE) is None

    def test_finalizers_delay_a_deletion(self, cluster: Cluster) -> None:
        body = config("c")
        body["metadata"]["finalizers"] = ["example.org/wait"]
        cluster.client.create("configmaps", body)
        cluster.client.delete("configmaps", "c", SPACE)
        assert cluster.client.get("configmaps", "c", SPACE)["metadata"]["deletionTimestamp"]
        cluster.client.patch("configmaps", "c", SPACE, {"metadata": {"finalizers": None}})
        assert cluster.client.find("configmaps", "c", SPACE) is None

    def test_a_bound_pod_stays_until_its_kubelet_lets_it_go(self, cluster: Cluster) -> None:
        cluster.client.create("nodes", make.node("n1"))
        cluster.client.create("pods", make.pod("p", namespace=SPACE, node="n1"))
        cluster.kubelets.step()
        cluster.client.delete("pods", "p", SPACE)
        assert cluster.client.get("pods", "p", SPACE)["metadata"]["deletionGracePeriodSeconds"] == 30
        cluster.kubelets.step()
        assert cluster.client.find("pods", "p", SPACE) is None


class TestLists:
    def test_pages(self, cluster: Cluster) -> None:
        for index in range(5):
            cluster.client.create("configmaps", config(f"c{index}"))
        where, names = f"/api/v1/namespaces/{SPACE}/configmaps", []
        code, page = cluster.client.send("GET", f"{where}?limit=2", None, "application/json")
        while True:
            assert code == 200
            names += [item["metadata"]["name"] for item in page["items"]]
            token = page["metadata"].get("continue")
            if not token:
                break
            code, page = cluster.client.send("GET", f"{where}?limit=2&continue={token}", None, "application/json")
        assert [name for name in names if name.startswith("c")] == [f"c{index}" for index in range(5)]

    def test_selectors(self, cluster: Cluster) -> None:
        for name, labels in (("a", {"app": "x", "tier": "1"}), ("b", {"app": "y"}), ("c", {})):
            cluster.client.create(
                "pods", make.pod(name, namespace=SPACE, node="n1" if name != "c" else "", labels=labels)
            )

        def names(**query: str) -> str:
            return "".join(item["metadata"]["name"] for item in cluster.client.list("pods", SPACE, **query))

        assert names(labelSelector="app=x") == "a"
        assert names(labelSelector="app!=x") == "bc"
        assert names(labelSelector="app in (x,y),tier") == "a"
        assert names(labelSelector="!app") == "c"
        assert names(labelSelector="app notin (x)") == "bc"
        assert names(fieldSelector="spec.nodeName=n1") == "ab"
        assert names(fieldSelector="spec.nodeName=") == "c"
        assert names(fieldSelector="metadata.name=b") == "b"
        with pytest.raises(RequestError, match="field label not supported"):
            names(fieldSelector="spec.dnsPolicy=Default")


def watch(cluster: Cluster, query: str) -> list[dict[str, Any]]:
    """One short watch by HTTP."""
    import urllib3

    settings = cluster.kubeconfig()
    server, user = settings["clusters"][0]["cluster"], settings["users"][0]["user"]
    pool = urllib3.PoolManager(ca_certs=server.get("certificate-authority"))
    url = f"{server['server']}/api/v1/namespaces/{SPACE}/configmaps?watch=true&timeoutSeconds=1&{query}"
    answer = pool.request("GET", url, headers={"Authorization": f"Bearer {user['token']}"})
    return [json.loads(line) for line in answer.data.splitlines()]


class TestWatches:
    def test_changes_since_a_version_in_order(self, cluster: Cluster) -> None:
        start = cluster.client.create("configmaps", config("c", a="1"))["metadata"]["resourceVersion"]
        cluster.client.patch("configmaps", "c", SPACE, {"data": {"a": "2"}})
        cluster.client.create("configmaps", config("d"))
        cluster.client.delete("configmaps", "c", SPACE)
        events = watch(cluster, f"resourceVersion={start}")
        told = [(event["type"], event["object"]["metadata"]["name"]) for event in events]
        assert told == [("MODIFIED", "c"), ("ADDED", "d"), ("DELETED", "c")]

    def test_what_leaves_a_selection_is_deleted_for_its_watcher(self, cluster: Cluster) -> None:
        body = config("c")
        body["metadata"]["labels"] = {"app": "x"}
        start = cluster.client.create("configmaps", body)["metadata"]["resourceVersion"]
        cluster.client.patch("configmaps", "c", SPACE, {"metadata": {"labels": {"app": "y"}}})
        events = watch(cluster, f"resourceVersion={start}&labelSelector=app%3Dx")
        assert [event["type"] for event in events] == ["DELETED"]

    def test_without_a_version_what_is_there_comes_first(self, cluster: Cluster) -> None:
        cluster.client.create("configmaps", config("c"))
        events = watch(cluster, "fieldSelector=metadata.name%3Dc")
        assert [(event["type"], event["object"]["metadata"]["name"]) for event in events] == [("ADDED", "c")]

    def test_bookmarks_and_forgotten_versions(self, double: Cluster) -> None:
        start = double.client.create("configmaps", config("c"))["metadata"]["resourceVersion"]
        assert watch(double, f"resourceVersion={start}&allowWatchBookmarks=true")[-1]["type"] == "BOOKMARK"
        double.plane.server.store.compact()
        (event,) = watch(double, f"resourceVersion={start}")
        assert (event["type"], event["object"]["code"], event["object"]["reason"]) == ("ERROR", 410, "Expired")


class TestScale:
    def test_a_deployment(self, cluster: Cluster) -> None:
        cluster.client.create("inferenceservices", make.inference_service("a", SPACE, make.burstable("100m")))
        cluster.kserve.sync()
        assert cluster.client.get("deployments", "a-predictor", SPACE, "scale")["spec"]["replicas"] == 1
        after = cluster.client.patch("deployments", "a-predictor", SPACE, {"spec": {"replicas": 3}}, sub="scale")
        assert (after["kind"], after["spec"]["replicas"]) == ("Scale", 3)
        found = cluster.client.get("deployments", "a-predictor", SPACE)
        assert (found["spec"]["replicas"], found["metadata"]["generation"]) == (3, 2)

    def test_an_inference_service_has_none(self, cluster: Cluster) -> None:
        cluster.client.create("inferenceservices", make.inference_service("a", SPACE, make.burstable("100m")))
        with pytest.raises(RequestError) as error:
            cluster.client.patch("inferenceservices", "a", SPACE, {"spec": {"replicas": 3}}, sub="scale")
        assert error.value.code == 404


class TestCustomResources:
    def test_strategic_patches_are_not_for_them(self, cluster: Cluster) -> None:
        cluster.client.create("inferenceservices", make.inference_service("a", SPACE, make.burstable("100m")))
        with pytest.raises(RequestError) as error:
            cluster.client.patch("inferenceservices", "a", SPACE, {"spec": {}}, STRATEGIC)
        assert error.value.code == 415

    def test_the_schema_is_held(self, cluster: Cluster) -> None:
        wrong = make.inference_service("a", SPACE, make.burstable("100m"), minReplicas="many")
        with pytest.raises(RequestError, match=r'spec\.predictor\.minReplicas: Invalid value: "string"') as error:
            cluster.client.create("inferenceservices", wrong)
        assert error.value.code == 422

    def test_unknown_fields_are_dropped(self, cluster: Cluster) -> None:
        service = make.inference_service("a", SPACE, make.burstable("100m"), nonsense=True)
        assert "nonsense" not in cluster.client.create("inferenceservices", service)["spec"]["predictor"]

    def test_status_and_spec_are_written_apart_and_only_the_spec_counts(self, cluster: Cluster) -> None:
        service = make.inference_service("a", SPACE, make.burstable("100m"))
        cluster.client.create("inferenceservices", {**service, "status": {"url": "http://no"}})
        found = cluster.client.status("inferenceservices", "a", SPACE, {"url": "http://yes"})
        assert (found["status"]["url"], found["metadata"]["generation"]) == ("http://yes", 1)
        change = {"spec": {"predictor": {"minReplicas": 2}}, "status": {"url": "http://no"}}
        found = cluster.client.patch("inferenceservices", "a", SPACE, change)
        assert (found["status"]["url"], found["metadata"]["generation"]) == ("http://yes", 2)

    def test_a_put_names_the_version_that_it_replaces(self, cluster: Cluster) -> None:
        found = cluster.client.create("inferenceservices", make.inference_service("a", SPACE, make.burstable("100m")))
        del found["metadata"]["resourceVersion"]
        with pytest.raises(RequestError, match="must be specified for an update") as error:
            cluster.client.replace("inferenceservices", found)
        assert error.value.code == 422

    def test_discovery_tells_what_is_served(self, cluster: Cluster) -> None:
        code, found = cluster.client.send("GET", "/apis/serving.kserve.io/v1beta1", None, "application/json")
        assert code == 200
        names = {row["name"] for row in found["resources"]}
        assert {"inferenceservices", "inferenceservices/status"} <= names
        code, found = cluster.client.send("GET", "/version", None, "application/json")
        assert (code, found["major"]) == (200, "1")
        code, _ = cluster.client.send("GET", "/apis/not.there.org/v1", None, "application/json")
        assert code == 404


class TestEvictions:
    def run(self, cluster: Cluster) -> None:
        cluster.client.create("nodes", make.node("n1"))
        cluster.client.create("pods", make.pod("p", namespace=SPACE, node="n1", labels={"app": "x"}))
        cluster.kubelets.step()

    def evict(self, cluster: Cluster) -> None:
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p", "namespace": SPACE}}
        cluster.client.create("pods", body, SPACE, "eviction")

    def test_a_disruption_budget_may_refuse(self, cluster: Cluster) -> None:
        self.run(cluster)
        cluster.add("poddisruptionbudgets", budget())
        with pytest.raises(RequestError, match="violate the pod's disruption budget") as error:
            self.evict(cluster)
        assert error.value.code == 429
        (cause,) = error.value.causes
        assert cause["message"] == "The disruption budget b needs 1 healthy pods and has 1 currently"

    def test_and_allow_so_many(self, cluster: Cluster) -> None:
        self.run(cluster)
        cluster.add("poddisruptionbudgets", budget(disruptions=1))
        self.evict(cluster)
        assert cluster.client.get("pods", "p", SPACE)["metadata"]["deletionTimestamp"]
        assert cluster.client.get("poddisruptionbudgets", "b", SPACE)["status"]["disruptionsAllowed"] == 0


class TestPermissions:
    def review(self, cluster: Cluster, verb: str, sub: str = "resize") -> bool:
        asked = {"namespace": SPACE, "verb": verb, "group": "", "resource": "pods", "subresource": sub}
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "metadata": {}}
        api = cluster.as_user("headgate-t0ken")
        found = api.create("selfsubjectaccessreviews", {**body, "spec": {"resourceAttributes": asked}})
        return bool(found["status"]["allowed"])

    def test_a_review_tells_what_one_may_do(self, cluster: Cluster) -> None:
        assert not self.review(cluster, "patch")
        rules = [{"apiGroups": [""], "resources": ["pods/resize"], "verbs": ["patch"]}]
        cluster.bind("resize", rules, HEADGATE.name, SPACE)
        assert self.review(cluster, "patch")
        assert not self.review(cluster, "update")
        assert not self.review(cluster, "patch", sub="")

    def test_an_unknown_token_is_nobody(self, cluster: Cluster) -> None:
        with pytest.raises(RequestError) as error:
            cluster.as_user("stolen").list("pods")
        assert error.value.code == 401


class TestFaults:
    """What only the double can do."""

    def test_an_answer_lost_after_the_write(self, double: Cluster) -> None:
        from tests.cluster.double.faults import matching

        from headgate.adapters.kubernetes.api import Api, ApiError, path

        double.client.create("configmaps", config("c", a="1"))
        api = Api(double.connection(), 5)
        double.faults.drop(matching("write"))
        with pytest.raises(ApiError) as error:
            api.patch(path("v1", "configmaps", "c", SPACE), {"data": {"a": "2"}})
        assert (error.value.status, error.value.retry) == (0, True)
        assert double.client.get("configmaps", "c", SPACE)["data"] == {"a": "2"}
        assert double.faults.count("write") == 1
        assert double.faults.log[-1].lost

    def test_the_nth_request_fails_and_a_hanging_server_answers_later(self, double: Cluster) -> None:
        from tests.cluster.double.faults import matching

        from headgate.adapters.kubernetes.api import Api, ApiError, path

        double.client.create("configmaps", config("c", a="1"))
        where, api = path("v1", "configmaps", "c", SPACE), Api(double.connection(), 0.3)
        double.faults.fail(matching("GET", "configmaps"), 500, skip=1)
        assert api.get(where)["data"] == {"a": "1"}
        with pytest.raises(ApiError, match="500"):
            api.get(where)
        double.faults.hang()
        with pytest.raises(ApiError, match="no answer"):
            api.get(where)
        double.faults.heal()
        assert api.get(where)["data"] == {"a": "1"}
