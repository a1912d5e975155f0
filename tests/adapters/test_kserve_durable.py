"""The slower paths on every control plane: templates that follow grants which stood, and numbers of replicas."""

from __future__ import annotations

from collections.abc import Mapping
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


def begun(cluster: Cluster, **more: Any) -> Turns:
    """A rollout of 1600m that will never succeed."""
    cluster.client.create("nodes", make.node("n1"))
    serve(cluster, "a", **more)
    cluster.settle()
    turns = Turns(cluster, total="6", template=RULES)
    assert stand(turns, {"models/a": 1600}).changes
    cluster.kubelets.default.deaf = True  # no new pod ever starts
    cluster.step()
    return turns


def test_a_process_that_was_killed_leaves_the_next_one_what_to_restore(cluster: Cluster) -> None:
    turns = begun(cluster, wanted=make.guaranteed("500m"), custom=True)
    turns.restarted()
    turns.now += 30
    turns.observe()
    assert not [c for c in turns.apply({"models/a": 1600}).changes if c.target.startswith("inferenceservice")]
    turns.now += 31
    turns.observe()
    (change,) = [c for c in turns.apply({"models/a": 1600}).changes if c.target.startswith("inferenceservice")]
    assert (change.before, change.after) == (1600, 500)
    (container,) = cluster.client.get("inferenceservices", "a", "models")["spec"]["predictor"]["containers"]
    assert container["resources"] == make.guaranteed("500m")
    assert note(turns, "models/a") == "RolloutFailed"
    turns.restarted()
    turns.observe()
    assert not [c for c in turns.apply({"models/a": 1600}).changes if c.target.startswith("inferenceservice")]


def test_what_is_restored_is_what_headgate_had_set_before(cluster: Cluster) -> None:
    cluster.client.create("nodes", make.node("n1"))
    serve(cluster, "a", unset())
    cluster.settle()
    turns = Turns(cluster, total="6", template=RULES)
    assert stand(turns, {"models/a": 1600}).changes
    cluster.settle()
    turns.now += 1
    turns.reach({"models/a": 1600})
    turns.restarted()
    assert stand(turns, {"models/a": 800}).changes
    cluster.kubelets.default.deaf = True
    cluster.step()
    turns.restarted()
    turns.now += 61
    turns.observe()
    turns.apply({"models/a": 800})
    assert template(cluster, "a") == {"requests": {"cpu": "1600m"}, "limits": {"cpu": "1600m"}}


def test_a_process_that_was_killed_before_it_wrote_leaves_nothing_to_restore(cluster: Cluster) -> None:
    class Killed(BaseException):
        pass

    cluster.client.create("nodes", make.node("n1"))
    serve(cluster, "a", make.guaranteed("500m"), custom=True)
    cluster.settle()
    turns = Turns(cluster, total="6", template=RULES)

    def keep(values: Mapping[str, Any]) -> bool:
        turns.keep(values)
        raise Killed

    turns.host.resume({}, keep)
    with pytest.raises(Killed):
        stand(turns, {"models/a": 1600})
    assert "models/a" in turns.kept
    before = cluster.client.get("inferenceservices", "a", "models")["spec"]
    turns.restarted()
    for _ in range(2):
        turns.now += 61
        turns.observe()
        turns.apply({"models/a": 1600})
    assert cluster.client.get("inferenceservices", "a", "models")["spec"] == before
    assert "models/a" not in turns.kept


def test_what_somebody_has_set_since_is_not_undone(cluster: Cluster) -> None:
    turns = begun(cluster, wanted=make.guaranteed("500m"), custom=True)
    patch = [{"op": "replace", "path": "/spec/predictor/containers/0/resources/limits/cpu", "value": "3"}]
    where = "inferenceservices", "a", "models"
    cluster.client.patch(*where, patch, kind="application/json-patch+json")
    turns.restarted()
    turns.now += 61
    turns.observe()
    turns.apply({"models/a": 1600})
    (container,) = cluster.client.get(*where)["spec"]["predictor"]["containers"]
    assert container["resources"]["limits"]["cpu"] == "3"


def test_nothing_is_written_where_the_earlier_values_cannot_be_kept(cluster: Cluster) -> None:
    cluster.client.create("nodes", make.node("n1"))
    serve(cluster, "a", unset())
    cluster.settle()
    turns = Turns(cluster, total="6", template=RULES)
    turns.host.resume({}, lambda _: False)
    found = stand(turns, {"models/a": 1600})
    assert found.changes == ()
    assert "could not be written down" in found.pending["models/a"]
    assert template(cluster, "a") == {}


@pytest.mark.parametrize("kept", [{"format": 2}, {"rollouts": {"models/a": {"began": "x"}}}, {"rollouts": {"x": None}}])
def test_a_state_that_cannot_be_read_is_dropped(double: Cluster, kept: Object) -> None:
    turns = Turns(double)
    turns.host.resume(kept, turns.keep)
    assert turns.observe().pipelines == ()


def test_a_transformer_is_written_like_a_custom_predictor(cluster: Cluster) -> None:
    cluster.client.create("nodes", make.node("n1"))
    serve(cluster, "a", make.guaranteed("1"), transformer=make.guaranteed("500m"))
    cluster.settle()
    turns = Turns(cluster, total="6", template=RULES)
    changes = stand(turns, {"models/a": 1000, "models/a/transformer": 1600}).changes
    assert [c.pipeline for c in changes] == ["models/a/transformer"]
    (container,) = cluster.client.get("inferenceservices", "a", "models")["spec"]["transformer"]["containers"]
    assert container["resources"]["requests"]["cpu"] == "1600m"


@pytest.mark.parametrize("reserve", ["1599m", "1600m"])
def test_the_reserve_is_what_a_rollout_may_take(cluster: Cluster, reserve: str) -> None:
    """Grants make up all the rest: one pod more, of 1600m, is what the rollout of a single one adds."""
    cluster.client.create("nodes", make.node("n1"))
    serve(cluster, "a", unset())
    cluster.settle()
    total = f"{1600 + int(reserve.removesuffix('m'))}m"
    turns = Turns(cluster, total=total, reserve=reserve, template=RULES)
    changes = stand(turns, {"models/a": 1600}).changes
    if reserve == "1599m":
        assert (changes, note(turns, "models/a")) == ((), "NoRoomForRollout")
    else:
        assert [change.after for change in changes] == [1600]


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
