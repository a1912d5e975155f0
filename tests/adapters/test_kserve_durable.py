"""The slower paths on every control plane: templates that follow grants which stood, and numbers of replicas."""

from __future__ import annotations

from typing import Any

import pytest
from tests.cluster import builders as make
from tests.cluster.harness import Cluster

from .test_kserve import EXTERNAL, Turns, cpus, serve

Object = dict[str, Any]
RULES = {"write": True, "after": "100s", "timeout": "60s"}


def template(cluster: Cluster, name: str) -> Object:
    found: Object = cluster.client.get("inferenceservices", name, "models")["spec"]["predictor"]["model"]
    return found.get("resources") or {}


def stand(turns: Turns, grants: dict[str, int], seconds: float = 101) -> Any:
    """The grants hold for so long."""
    turns.reach(grants)
    turns.observe()
    turns.apply(grants)
    turns.now += seconds
    turns.observe()
    return turns.apply(grants)


def note(turns: Turns, name: str) -> str:
    return turns.observe().refused[f"{name} template"].reason


def unset() -> Object:
    """Resources that leave CPU to the runtime's defaults: nobody owns the fields."""
    return {}


def test_a_grant_that_stood_becomes_the_template_and_the_pods_roll(cluster: Cluster) -> None:
    cluster.client.create("nodes", make.node("n1"))
    serve(cluster, "a", unset())
    cluster.settle()
    turns = Turns(cluster, total="6", template=RULES)
    grants = {"models/a": 1600}
    before = {pod["metadata"]["name"] for pod in cluster.of("a")}
    (change,) = stand(turns, grants).changes
    assert (change.content_type, change.target) == ("application/apply-patch+yaml", "inferenceservice models/a")
    assert template(cluster, "a") == {"requests": {"cpu": "1600m"}, "limits": {"cpu": "1600m"}}
    cluster.settle()
    assert not before & {pod["metadata"]["name"] for pod in cluster.of("a")}
    turns.now += 1
    turns.reach(grants)
    owners = cluster.client.get("inferenceservices", "a", "models")["metadata"]["managedFields"]
    assert any(o["manager"] == "headgate" and o["operation"] == "Apply" for o in owners)
    assert stand(turns, grants).changes == (), "once is enough"


def test_a_field_of_somebody_else_is_left_to_them(cluster: Cluster) -> None:
    cluster.client.create("nodes", make.node("n1"))
    serve(cluster, "a", make.guaranteed("500m"))
    cluster.settle()
    turns = Turns(cluster, total="6", template=RULES)
    assert stand(turns, {"models/a": 1600}).changes == ()
    assert note(turns, "models/a") == "FieldOwned"
    assert template(cluster, "a")["requests"]["cpu"] == "500m"
    assert cpus(cluster, "a") == [("1600m", "1600m")], "the pod has its grant all the same"


def test_a_custom_predictor_is_patched_where_it_still_is_as_it_was_seen(cluster: Cluster) -> None:
    cluster.client.create("nodes", make.node("n1"))
    serve(cluster, "a", make.guaranteed("500m"), custom=True)
    cluster.settle()
    turns = Turns(cluster, total="6", template=RULES)
    (change,) = stand(turns, {"models/a": 1600}).changes
    assert change.content_type == "application/json-patch+json"
    (container,) = cluster.client.get("inferenceservices", "a", "models")["spec"]["predictor"]["containers"]
    assert container["resources"] == {
        "requests": {"cpu": "1600m", "memory": "256Mi"},
        "limits": {"cpu": "1600m", "memory": "256Mi"},
    }


@pytest.mark.parametrize(
    ("annotations", "total", "reason"),
    [
        ({"argocd.argoproj.io/tracking-id": "x"}, "6", "GitOps"),
        ({"serving.kserve.io/deploymentMode": "Knative"}, "6", "KnativeRevision"),
        ({}, "1600m", "NoRoomForRollout"),
    ],
)
def test_templates_that_are_not_to_be_written_are_left_alone(
    cluster: Cluster, annotations: dict[str, str], total: str, reason: str
) -> None:
    cluster.client.create("nodes", make.node("n1"))
    serve(cluster, "a", unset(), annotations=EXTERNAL | annotations)
    cluster.settle()
    turns = Turns(cluster, total=total, template=RULES)
    assert stand(turns, {"models/a": 1600}).changes == ()
    assert note(turns, "models/a") == reason


def test_a_rollout_that_does_not_succeed_is_undone(cluster: Cluster) -> None:
    cluster.client.create("nodes", make.node("n1"))
    serve(cluster, "a", unset())
    cluster.settle()
    turns = Turns(cluster, total="6", template=RULES)
    grants = {"models/a": 1600}
    assert stand(turns, grants).changes
    cluster.kubelets.default.deaf = True  # no new pod ever starts
    cluster.step()
    turns.now += 61
    turns.observe()
    turns.apply(grants)
    assert template(cluster, "a") == {}
    assert note(turns, "models/a") == "RolloutFailed"


def test_one_more_replica_where_each_would_have_too_many_cpus_and_one_fewer_where_too_few(cluster: Cluster) -> None:
    cluster.client.create("nodes", make.node("n1"))
    serve(cluster, "a", make.guaranteed("500m"), maxReplicas=3)
    cluster.settle()
    turns = Turns(cluster, total="4", replicas={"manage": True, "most": "1", "least": "400m"})
    turns.observe()
    turns.apply({"models/a": 1500})
    cluster.settle()
    turns.reach({"models/a": 1500})
    assert cpus(cluster, "a") == [("750m", "750m")] * 2
    turns.now += 61
    turns.reach({"models/a": 700})
    cluster.settle()
    turns.reach({"models/a": 700})
    assert cpus(cluster, "a") == [("700m", "700m")]


def test_there_is_no_new_replica_without_room_for_what_it_starts_with(cluster: Cluster) -> None:
    cluster.client.create("nodes", make.node("n1"))
    serve(cluster, "a", make.guaranteed("500m"), maxReplicas=3)
    cluster.settle()
    turns = Turns(cluster, total="1500m", replicas={"manage": True, "most": "1", "least": "400m"})
    for _ in range(3):
        turns.observe()
        pending = turns.apply({"models/a": 1500}).pending
        cluster.step()
        turns.now += 1
    assert "one more replica" in pending["models/a"]
    assert len(cluster.of("a")) == 1
