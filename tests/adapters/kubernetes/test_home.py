"""The home `kubernetes` with CPUBudget's own definition, on the double and on a real API server."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest
from tests.cluster.client import RequestError
from tests.cluster.double.faults import matching
from tests.cluster.harness import Cluster

from headgate.adapters.kubernetes.api import Api
from headgate.adapters.kubernetes.events import BURST, Events
from headgate.adapters.kubernetes.home import KubernetesHome
from headgate.adapters.kubernetes.settings import KubernetesHomeSettings
from headgate.adapters.kubernetes.state import PART, State
from headgate.core.budgets import CPUBudget, Mode
from headgate.core.hosting import Rejected

OWN = "headgate"
ALL: list[dict[str, Any]] = [{"selector": {}}]


def home_in(cluster: Cluster) -> KubernetesHome:
    cluster.space(OWN)
    settings = KubernetesHomeSettings.model_validate({"namespace": OWN})
    return KubernetesHome(settings, Api(cluster.connection()), Api(cluster.connection()), "here_1")


@pytest.fixture
def home(cluster: Cluster) -> KubernetesHome:
    """On the double, and on a real API server where there is one."""
    return home_in(cluster)


@pytest.fixture
def on_double(double: Cluster) -> KubernetesHome:
    return home_in(double)


def put(cluster: Cluster, name: str = "main", namespace: str = "models", **spec: Any) -> dict[str, Any]:
    body = {
        "apiVersion": "headgate.dev/v1alpha1",
        "kind": "CPUBudget",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"total": "4", "pipelines": ALL, **spec},
    }
    return cluster.client.create("cpubudgets", body)


def status(**more: Any) -> dict[str, Any]:
    return {
        "observedGeneration": 1,
        "mode": "Apply",
        "total": "4",
        "pipelines": [{"name": "models/a", "granted": "1", "wanted": "2", "reason": "because"}],
        "conditions": [{"type": "Ready", "status": "True", "reason": "Decided", "message": ""}],
        **more,
    }


def test_a_resource_becomes_a_budget_with_the_servers_defaults(double: Cluster, on_double: KubernetesHome) -> None:
    put(double, pipelines=[{"selector": {"matchLabels": {"team": "a"}}, "floor": "250m", "slo": {"latency": "50ms"}}])
    (found,) = on_double.budgets()
    assert isinstance(found, CPUBudget)
    assert (found.key, found.generation, found.spec.mode) == ("models/main", 1, Mode.RECOMMEND)
    (rule,) = found.spec.pipelines
    assert (rule.floor, rule.step, found.spec.total) == (250, 10, 4000)
    assert rule.slo is not None
    assert rule.slo.latency == 0.05
    assert found.created
    assert found.uid
    raw = double.client.get("cpubudgets", "main", "models")["spec"]
    assert raw["calm"] == {"band": 0.1, "noise": 5.0, "stabilisation": "1m"}


@pytest.mark.parametrize(
    ("spec", "what"),
    [
        ({"total": "lots"}, "total"),
        ({"pipelines": []}, "pipelines"),
        ({"pipelines": [{"selector": {}, "weight": 0}]}, "weight"),
        ({"mode": "Sometimes"}, "mode"),
        ({"calm": {"band": -1}}, "band"),
    ],
)
def test_the_server_refuses_what_the_definition_excludes(cluster: Cluster, spec: dict[str, Any], what: str) -> None:
    with pytest.raises(RequestError, match=what) as refused:
        put(cluster, **spec)
    assert refused.value.code == 422


def test_what_only_headgate_knows_to_be_wrong_is_rejected_with_its_field(
    cluster: Cluster, home: KubernetesHome
) -> None:
    put(cluster, groups=[{"name": "x", "total": "1"}, {"name": "x", "total": "2"}])
    put(cluster, "other")
    rejected, good = sorted(home.budgets(), key=lambda found: isinstance(found, CPUBudget))
    assert isinstance(rejected, Rejected)
    assert rejected.key == "models/main"
    assert "groups[1].name" in rejected.message
    assert isinstance(good, CPUBudget)


@pytest.mark.parametrize(
    ("spec", "what"),
    [
        ({"pipelines": [{"selector": {}, "namespaces": ["*"]}]}, r"pipelines\[0\]: looks into \*"),
        ({"pipelines": [{"selector": {}, "namespaces": ["models", "b"]}]}, "looks into b"),
        ({"pipelines": [{"services": ["b/x"]}]}, "looks into b"),
        ({"total": None, "nodes": {}}, "nodes: what nodes have belongs to all"),
    ],
)
def test_a_budget_reaches_beyond_its_namespace_only_from_the_controllers(
    cluster: Cluster, home: KubernetesHome, spec: dict[str, Any], what: str
) -> None:
    put(cluster, **spec)
    (found,) = home.budgets()
    assert isinstance(found, Rejected)
    assert re.search(what, found.message)
    cluster.client.delete("cpubudgets", "main", "models")
    put(cluster, namespace=OWN, **spec)
    (found,) = home.budgets()
    assert isinstance(found, CPUBudget)


def test_whether_somebody_has_reported_on_a_budget_is_known(cluster: Cluster, home: KubernetesHome) -> None:
    def accepted(reason: str) -> dict[str, Any]:
        return status(conditions=[{"type": "Accepted", "status": "True", "reason": reason, "message": ""}])

    def reported() -> bool:
        (found,) = home.budgets()
        assert isinstance(found, CPUBudget)
        return found.reported

    put(cluster, host="seldon")
    assert not reported()
    home.report("models/main", accepted("OtherHost"))
    assert not reported(), "that was one that did not take it up"
    home.report("models/main", accepted("Valid"))
    assert reported()
    cluster.client.patch("cpubudgets", "main", "models", {"spec": {"total": "7"}})
    assert not reported(), "not on this generation"


def test_a_status_is_written_with_times_and_only_when_it_says_something_new(
    double: Cluster, on_double: KubernetesHome
) -> None:
    put(double)
    on_double.budgets()
    on_double.report("models/main", status(granted="1"))
    shown = double.client.get("cpubudgets", "main", "models")["status"]
    (ready,) = shown["conditions"]
    assert ready["lastTransitionTime"]
    assert ready["observedGeneration"] == 1
    assert shown["pipelines"][0]["wanted"] == "2"
    patches = double.faults.count("PATCH", "/status")
    on_double.report("models/main", status(granted="1"))
    on_double.budgets()
    on_double.report("models/main", status(granted="1"))
    assert double.faults.count("PATCH", "/status") == patches
    on_double.report("models/main", status(observedGeneration=2))
    shown = double.client.get("cpubudgets", "main", "models")["status"]
    assert "granted" not in shown, "what is not said any more is gone"
    assert shown["conditions"][0]["lastTransitionTime"] == ready["lastTransitionTime"], "it is as true as before"


def test_a_condition_that_turns_has_a_new_time(cluster: Cluster, home: KubernetesHome) -> None:
    put(cluster)
    home.budgets()
    home.report("models/main", status())
    old = cluster.client.get("cpubudgets", "main", "models")["status"]
    old["conditions"][0]["lastTransitionTime"] = "2020-01-01T00:00:00Z"
    cluster.client.status("cpubudgets", "main", "models", old)
    home.budgets()
    turned = [{"type": "Ready", "status": "False", "reason": "Infeasible", "message": "floors"}]
    home.report("models/main", status(conditions=turned))
    (ready,) = cluster.client.get("cpubudgets", "main", "models")["status"]["conditions"]
    assert ready["lastTransitionTime"] > "2020-01-01T00:00:00Z"


def test_a_status_never_changes_what_was_asked_for(cluster: Cluster, home: KubernetesHome) -> None:
    before = put(cluster)
    home.budgets()
    home.report("models/main", status())
    after = cluster.client.get("cpubudgets", "main", "models")
    assert after["spec"] == before["spec"]
    assert after["metadata"]["generation"] == before["metadata"]["generation"]


def test_state_is_kept_in_objects_of_its_own(cluster: Cluster, home: KubernetesHome) -> None:
    assert home.load() == {}
    home.save({"standing": {"a": 1}, "learned-1-0": {"b": [1.5, None]}})
    assert home.load() == {"standing": {"a": 1}, "learned-1-0": {"b": [1.5, None]}}
    names = sorted(found["metadata"]["name"] for found in cluster.client.list("configmaps", OWN))
    assert names == ["headgate-state-headgate-learned-1-0", "headgate-state-headgate-standing"]
    home.save({"learned-1-0": None, "standing": {"a": 2}})
    assert home.load() == {"standing": {"a": 2}}


def test_what_does_not_fit_into_one_object_is_kept_in_several(cluster: Cluster, home: KubernetesHome) -> None:
    noise = random.Random(1)
    large = {"x": [noise.random() for _ in range(200_000)]}
    home.save({"learned": large})
    found = cluster.client.list("configmaps", OWN)
    assert len(found) > 1
    assert all(len(item["binaryData"]["value"]) * 3 / 4 <= PART for item in found)
    assert home.load() == {"learned": large}
    home.save({"learned": {"x": []}})
    assert len(cluster.client.list("configmaps", OWN)) == 1


def test_a_value_half_written_is_dropped_and_the_others_stay(
    double: Cluster, on_double: KubernetesHome, caplog: pytest.LogCaptureFixture
) -> None:
    noise = random.Random(1)
    on_double.save({"standing": {"a": 1}, "learned": {"x": [noise.random() for _ in range(200_000)]}})
    double.faults.fail(matching("PATCH", "-part1"), 503)
    with pytest.raises(ConnectionError):
        on_double.save({"learned": {"x": [noise.random() for _ in range(200_000)]}})
    fresh = State(Api(double.connection()), OWN, "headgate")
    assert fresh.load() == {"standing": {"a": 1}}
    assert "learned: is damaged" in caplog.text
    fresh.save({"learned": {"x": [1]}})
    assert fresh.load() == {"standing": {"a": 1}, "learned": {"x": [1]}}


def test_the_same_value_twice_costs_no_request(double: Cluster, on_double: KubernetesHome) -> None:
    on_double.save({"standing": {"a": 1}})
    writes = double.faults.count("write")
    on_double.save({"standing": {"a": 1}})
    assert double.faults.count("write") == writes


def test_the_pause_switch_is_an_object_that_anybody_can_make(cluster: Cluster, home: KubernetesHome) -> None:
    assert home.paused() is None
    home.pause("maintenance")
    home.pause("maintenance until noon")
    assert home.paused() == "maintenance until noon"
    home.pause(None)
    home.pause(None)
    assert home.paused() is None
    made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "headgate-pause", "namespace": OWN}}
    cluster.client.create("configmaps", made)  # kubectl create configmap headgate-pause
    assert home.paused() == "the ConfigMap headgate-pause is there"


def test_an_event_is_counted_rather_than_repeated(cluster: Cluster, home: KubernetesHome) -> None:
    put(cluster)
    home.budgets()
    for _ in range(3):
        home.event("models/main", "Warning", "Infeasible", "floors")
    (event,) = cluster.client.list("events", "models")
    assert (event["count"], event["reason"], event["type"]) == (3, "Infeasible", "Warning")
    assert event["involvedObject"]["kind"] == "CPUBudget"
    assert event["involvedObject"]["uid"]


def test_events_are_bounded(cluster: Cluster) -> None:
    now = [0.0]
    events = Events(Api(cluster.connection()), "here", lambda: now[0])
    about = {"apiVersion": "v1", "kind": "Pod", "namespace": "models", "name": "p", "uid": "u"}
    for index in range(100):
        events.tell(about, "Normal", "CPUsMoved", f"move {index}")
    assert len(cluster.client.list("events", "models")) == BURST
    now[0] += 120
    for index in range(100, 110):
        events.tell(about, "Normal", "CPUsMoved", f"move {index}")
    assert len(cluster.client.list("events", "models")) == BURST + 2


def test_an_event_that_cannot_be_written_is_no_error(double: Cluster, on_double: KubernetesHome) -> None:
    put(double)
    on_double.budgets()
    double.faults.fail(matching(path="/events"), 403, times=-1)
    on_double.event("models/main", "Normal", "CPUsMoved", "a 1 -> 2")
    on_double.event("models/gone", "Normal", "CPUsMoved", "a 1 -> 2")


@pytest.mark.parametrize(("code", "error"), [(403, PermissionError), (503, ConnectionError), (404, FileNotFoundError)])
def test_errors_are_those_of_the_contract(
    double: Cluster, on_double: KubernetesHome, code: int, error: type[Exception]
) -> None:
    double.faults.fail(matching(path="cpubudgets"), code, times=-1)
    double.faults.fail(matching("write"), code, times=-1)
    with pytest.raises(error, match="CPUBudgets cannot be read"):
        on_double.budgets()
    if code != 404:
        with pytest.raises(error):
            on_double.save({"a": 1})
        with pytest.raises(error):
            on_double.pause("x")


def test_only_who_campaigns_can_lead(cluster: Cluster, home: KubernetesHome) -> None:
    assert not home.leads()
    assert cluster.client.list("leases", OWN) == []
    home.close()
    assert cluster.client.list("leases", OWN) == []


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"total": None}, "give the CPUs to share"),
        ({"pipelines": [{"floor": "1"}]}, "name services or graphs, or give a selector"),
        ({"pipelines": [{"selector": {}, "group": "x"}]}, "the group of a pipeline must be one of groups"),
        ({"groups": [{"name": "x", "total": "1", "parent": "y"}]}, "the parent of a group must be one of groups"),
        (
            {"pipelines": [{"selector": {}, "floor": "2", "ceiling": "1500m"}]},
            "the floor must not be above the ceiling",
        ),
        ({"pipelines": [{"selector": {}, "floor": 2, "ceiling": 1}]}, "the floor must not be above the ceiling"),
    ],
)
def test_the_server_checks_what_concerns_several_fields(real: Cluster, spec: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        put(real, **spec)
