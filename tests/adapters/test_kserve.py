"""The KServe adapter against the double: kubelets, KServe and its neighbours do their part step by step."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.cluster import builders as make
from tests.cluster.double.faults import matching
from tests.cluster.harness import Cluster

from headgate.adapters.kserve.adapter import KserveAdapter
from headgate.adapters.kserve.settings import KserveSettings
from headgate.adapters.kubernetes.api import Api
from headgate.core.budgets import BudgetSpec, CPUBudget, Selector
from headgate.core.hosting import Applied, Inventory, Order
from headgate.core.model import Demand

Object = dict[str, Any]
EXTERNAL = {"serving.kserve.io/autoscalerClass": "external"}


class Turns:
    """What the controller does, with grants that the test decides on, and the budget watched at every write."""

    def __init__(self, cluster: Cluster, total: str = "2", rules: list[Object] | None = None, **spec: Any) -> None:
        self.cluster = cluster
        self.now = 1_800_000_000.0
        self.settings = KserveSettings(**spec.pop("host", {}))
        text = {"total": total, "pipelines": rules or [{"selector": {}}], "mode": "Apply", **spec}
        self.budget = CPUBudget("shared", "models", BudgetSpec.model_validate(text), created="2026-01-01T00:00:00Z")
        self.kept = "{}"
        self.host = self.restarted()

    def restarted(self) -> KserveAdapter:
        """A new process."""
        self.host = KserveAdapter(Api(self.cluster.connection(), 5), self.settings, lambda: self.now)
        self.host.resume(json.loads(self.kept), self.keep)
        return self.host

    def keep(self, values: Mapping[str, Any]) -> bool:
        """What survives a restart."""
        self.kept = json.dumps(values)
        return True

    def observe(self) -> Inventory:
        return self.host.observe([self.budget])[self.budget.key]

    def apply(self, grants: dict[str, int], dry_run: bool = False, **replicas: int) -> Applied:
        assert self.budget.spec.total is not None
        order = Order(self.budget, self.budget.spec.total - self.budget.spec.reserve, grants, replicas)
        return self.host.apply([order], lambda: True, dry_run=dry_run)[self.budget.key]

    def reach(self, grants: dict[str, int], turns: int = 12) -> Applied:
        """Call it again until nothing is pending."""
        for _ in range(turns):
            self.observe()
            applied = self.apply(grants)
            if not applied.pending:
                return applied
            self.cluster.step(1.0)
            self.now += 1.0
        raise AssertionError(f"still pending: {applied.pending}")


def serve(cluster: Cluster, name: str, wanted: Object, **more: Any) -> None:
    more.setdefault("annotations", EXTERNAL)
    cluster.client.create("inferenceservices", make.inference_service(name, "models", wanted, **more))


def cpus(cluster: Cluster, name: str, component: str = "predictor") -> list[tuple[str | None, str | None]]:
    """(request, limit) in force of each pod of a service."""
    found = []
    for pod in cluster.of(name, component):
        state = next(c for c in pod["status"]["containerStatuses"] if c["name"] == "kserve-container")
        found.append(
            (state["resources"].get("requests", {}).get("cpu"), state["resources"].get("limits", {}).get("cpu"))
        )
    return found


def test_cpus_move_from_one_service_to_another_in_place(cluster: Cluster) -> None:
    cluster.client.create("nodes", make.node("n1"))
    serve(cluster, "a", make.guaranteed("1500m"))
    serve(cluster, "b", make.guaranteed("500m"))
    cluster.settle()
    names = [pod["metadata"]["name"] for pod in cluster.pods()]
    turns = Turns(cluster)
    seen = turns.observe()
    assert {p.name for p in seen.pipelines} == {"models/a", "models/b"}
    assert seen.granted == {"models/a": 1500, "models/b": 500}
    assert not seen.refused
    applied = turns.reach({"models/a": 600, "models/b": 1400})
    assert applied.granted == {"models/a": 600, "models/b": 1400}
    assert cpus(cluster, "a") == [("600m", "600m")]
    assert cpus(cluster, "b") == [("1400m", "1400m")]
    assert [pod["metadata"]["name"] for pod in cluster.pods()] == names, "no pod was replaced"
    assert all(c["restartCount"] == 0 for pod in cluster.pods() for c in pod["status"]["containerStatuses"])


def hpa(name: str, target: str, kind: str = "Utilization") -> Object:
    goal = {"type": kind, "averageUtilization": 80} if kind == "Utilization" else {"type": kind, "averageValue": "1"}
    metrics = [{"type": "Resource", "resource": {"name": "cpu", "target": goal}}]
    reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": target}
    spec = {"scaleTargetRef": reference, "minReplicas": 1, "maxReplicas": 5, "metrics": metrics}
    meta = {"name": name, "namespace": "models"}
    return {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": meta, "spec": spec}


def vpa(target: str, mode: str) -> Object:
    reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": target}
    spec = {"targetRef": reference, "updatePolicy": {"updateMode": mode}}
    meta = {"name": target, "namespace": "models"}
    return {"apiVersion": "autoscaling.k8s.io/v1", "kind": "VerticalPodAutoscaler", "metadata": meta, "spec": spec}


def test_a_burstable_pod_stays_burstable_and_one_without_a_limit_gets_none(cluster: Cluster) -> None:
    cluster.client.create("nodes", make.node("n1"))
    serve(cluster, "limited", make.resources("100m", "1", "256Mi", "256Mi"))
    serve(cluster, "open", make.burstable("100m"))
    cluster.settle()
    Turns(cluster).reach({"models/limited": 700, "models/open": 900})
    # Memory is limited at its request: with request = limit the pod would be Guaranteed.
    assert cpus(cluster, "limited") == [("700m", "701m")]
    assert cpus(cluster, "open") == [("900m", None)]


def test_each_component_is_a_pipeline_and_replicas_share_their_grant(cluster: Cluster) -> None:
    cluster.client.create("nodes", make.node("n1"))
    serve(cluster, "a", make.guaranteed("200m"), transformer=make.guaranteed("100m"), minReplicas=3)
    cluster.settle()
    turns = Turns(cluster, rules=[{"selector": {}, "slo": {"latency": "100ms"}}])
    seen = {p.name: p for p in turns.observe().pipelines}
    assert {name: len(p.replicas) for name, p in seen.items()} == {"models/a": 3, "models/a/transformer": 1}
    assert {name: p.floor for name, p in seen.items()} == {"models/a": 30, "models/a/transformer": 10}
    assert [p.slo.latency for p in seen.values() if p.slo] == [pytest.approx(0.05)] * 2
    turns.reach({"models/a": 1000, "models/a/transformer": 400})
    assert sorted(cpus(cluster, "a")) == [("333m", "333m"), ("333m", "333m"), ("334m", "334m")]
    assert cpus(cluster, "a", "transformer") == [("400m", "400m")]


def test_a_new_pod_is_sized_when_it_appears(cluster: Cluster) -> None:
    cluster.client.create("nodes", make.node("n1"))
    serve(cluster, "a", make.guaranteed("500m"))
    cluster.settle()
    turns = Turns(cluster)
    turns.reach({"models/a": 900})
    cluster.client.patch("deployments", "a-predictor", "models", {"spec": {"replicas": 2}})
    cluster.settle()
    assert turns.observe().granted == {"models/a": 1400}
    turns.reach({"models/a": 900})
    assert cpus(cluster, "a") == [("450m", "450m")] * 2


def test_a_pod_that_is_replaced_gets_its_grant_again(cluster: Cluster) -> None:
    cluster.client.create("nodes", make.node("n1"))
    serve(cluster, "a", make.guaranteed("500m"))
    cluster.settle()
    turns = Turns(cluster)
    turns.reach({"models/a": 900})
    cluster.client.delete("pods", cluster.of("a")[0]["metadata"]["name"], "models")
    cluster.settle()
    assert cpus(cluster, "a") == [("500m", "500m")], "the template knows nothing of the grant"
    turns.reach({"models/a": 900})
    assert cpus(cluster, "a") == [("900m", "900m")]


def test_what_a_dry_run_shows_is_accepted_as_it_is_and_nothing_is_written(cluster: Cluster) -> None:
    cluster.client.create("nodes", make.node("n1"))
    serve(cluster, "a", make.guaranteed("1500m"))
    serve(cluster, "b", make.guaranteed("500m"))
    cluster.settle()
    turns = Turns(cluster)
    turns.observe()
    before = cluster.plane.revision()
    applied = turns.apply({"models/a": 600, "models/b": 1400}, dry_run=True)
    assert cluster.plane.revision() == before
    assert [(c.pipeline, c.before, c.after, c.refused) for c in applied.changes] == [
        ("models/a", 1500, 600, None),
        ("models/b", 500, 1400, None),
    ]
    assert "waits for" in applied.changes[1].reason
    for change in applied.changes:
        assert change.content_type == "application/strategic-merge-patch+json"
        code, found = cluster.client.send("PATCH", change.path, change.body, change.content_type)
        assert code == 200, found


@pytest.mark.parametrize(
    ("wanted", "also", "more", "reason"),
    [
        (make.guaranteed("1"), hpa("x", "a-predictor"), {}, "UtilisationAutoscaler"),
        (make.guaranteed("1"), hpa("x", "a-predictor", "AverageValue"), {}, None),
        (make.guaranteed("1"), hpa("x", "other"), {}, None),
        (make.guaranteed("1"), vpa("a-predictor", "Recreate"), {}, "VerticalPodAutoscaler"),
        (make.guaranteed("1"), vpa("a-predictor", "Initial"), {}, None),
        (make.guaranteed("1"), None, {"annotations": {}, "maxReplicas": 4}, "UtilisationAutoscaler"),
        (make.guaranteed("1"), None, {"annotations": {}, "maxReplicas": 1}, None),
        (
            make.guaranteed("1"),
            None,
            {"annotations": {"serving.kserve.io/autoscalerClass": "keda"}, "maxReplicas": 4},
            "UtilisationAutoscaler",
        ),
        ({"limits": {}, "requests": {}}, None, {}, "BestEffort"),
        (make.guaranteed("1"), None, {"annotations": EXTERNAL | {"serving.kserve.io/stop": "true"}}, "Stopped"),
    ],
)
def test_what_is_anothers_is_refused_with_the_reason(
    cluster: Cluster, wanted: Object, also: Object | None, more: Object, reason: str | None
) -> None:
    cluster.client.create("nodes", make.node("n1"))
    serve(cluster, "a", wanted, **more)
    if also is not None:
        plural = "horizontalpodautoscalers" if also["kind"].startswith("Horizontal") else "verticalpodautoscalers"
        cluster.client.create(plural, also)
    cluster.settle()
    turns = Turns(cluster)
    seen = turns.observe()
    assert {name: refusal.reason for name, refusal in seen.refused.items()} == ({"models/a": reason} if reason else {})
    assert [p.pinned for p in seen.pipelines] == ([bool(reason)] if reason != "Stopped" else [])
    before = cpus(cluster, "a")
    turns.reach({"models/a": 700})
    assert cpus(cluster, "a") == (before if reason else [("700m", "700m")])


def test_under_an_autoscaler_by_utilisation_only_limits_change_where_the_budget_says_so(cluster: Cluster) -> None:
    cluster.client.create("nodes", make.node("n1"))
    serve(cluster, "a", make.burstable("200m", "500m"), annotations={}, maxReplicas=4)
    cluster.settle()
    turns = Turns(cluster, others={"utilisation": "LimitsOnly"})
    seen = turns.observe()
    assert seen.granted == {"models/a": 500}
    assert [p.floor for p in seen.pipelines] == [200], "a limit is never below its request"
    turns.reach({"models/a": 1300})
    assert cpus(cluster, "a") == [("200m", "1300m")]


def test_a_resize_policy_that_restarts_is_refused(cluster: Cluster) -> None:
    cluster.client.create("nodes", make.node("n1"))
    service = make.inference_service("a", "models", make.guaranteed("500m"), annotations=EXTERNAL, custom=True)
    service["spec"]["predictor"]["containers"][0]["resizePolicy"] = make.restarting()
    cluster.client.create("inferenceservices", service)
    cluster.settle()
    seen = Turns(cluster).observe()
    assert seen.refused["models/a"].reason == "RestartContainer"


def test_an_old_node_is_refused(cluster: Cluster) -> None:
    cluster.kubelets.default.old = True
    cluster.client.create("nodes", make.node("n1"))
    serve(cluster, "a", make.guaranteed("500m"))
    cluster.settle()
    assert Turns(cluster).observe().refused["models/a"].reason == "NodeTooOld"


def test_a_service_that_two_budgets_want_is_the_older_ones(cluster: Cluster) -> None:
    cluster.client.create("nodes", make.node("n1"))
    serve(cluster, "a", make.guaranteed("500m"))
    cluster.settle()
    turns = Turns(cluster)
    younger = CPUBudget("younger", "models", turns.budget.spec, created="2026-02-01T00:00:00Z")
    seen = turns.host.observe([younger, turns.budget])
    assert [p.name for p in seen["models/shared"].pipelines] == ["models/a"]
    assert seen["models/younger"].pipelines == ()
    assert seen["models/younger"].refused["models/a"].reason == "OtherBudget"


def test_a_canary_is_sized_by_its_share_of_the_traffic(cluster: Cluster) -> None:
    cluster.client.create("nodes", make.node("n1"))
    knative = {"serving.kserve.io/deploymentMode": "Knative"}
    serve(cluster, "a", make.guaranteed("500m"), annotations=knative)
    cluster.settle()
    change = {"model": {"resources": make.guaranteed("400m")}, "canaryTrafficPercent": 20}
    cluster.client.patch("inferenceservices", "a", "models", {"spec": {"predictor": change}})
    cluster.settle()
    revisions = sorted(pod["metadata"]["labels"]["serving.knative.dev/revision"] for pod in cluster.of("a"))
    assert len(revisions) == 2
    traffic = [{"revisionName": revisions[0], "percent": 80}, {"revisionName": revisions[1], "percent": 20}]
    found = cluster.client.get("inferenceservices", "a", "models")
    status = {**found["status"], "components": {"predictor": {"traffic": traffic}}}
    cluster.client.status("inferenceservices", "a", "models", status)
    turns = Turns(cluster)
    turns.reach({"models/a": 1000})
    by_revision = {
        pod["metadata"]["labels"]["serving.knative.dev/revision"]: pod["spec"]["containers"][0]["resources"]["requests"]
        for pod in cluster.of("a")
    }
    assert {name: found["cpu"] for name, found in by_revision.items()} == {revisions[0]: "800m", revisions[1]: "200m"}


def test_a_service_that_is_scaled_to_zero_takes_nothing_and_is_sized_when_it_comes_back(cluster: Cluster) -> None:
    cluster.client.create("nodes", make.node("n1"))
    serve(cluster, "a", make.guaranteed("500m"), annotations={"serving.kserve.io/deploymentMode": "Knative"})
    cluster.kserve.asleep.add(("models", "a-predictor"))
    cluster.settle()
    turns = Turns(cluster)
    seen = turns.observe()
    assert (seen.pipelines, seen.granted) == ((), {})
    assert seen.refused["models/a"].reason == "NoPods"
    cluster.kserve.asleep.clear()
    cluster.client.patch("deployments", "a-predictor-00001-deployment", "models", {"spec": {"replicas": 1}})
    cluster.settle()
    assert turns.observe().granted == {"models/a": 500}
    turns.reach({"models/a": 800})
    assert cpus(cluster, "a") == [("800m", "800m")]


def test_a_graph_is_a_pipeline_of_its_services(cluster: Cluster) -> None:
    cluster.client.create("nodes", make.node("n1"))
    for name in ("a", "b", "c"):
        serve(cluster, name, make.guaranteed("200m"))
    steps = [{"serviceName": "a"}, {"serviceName": "b"}]
    graph = {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "InferenceGraph",
        "metadata": {"name": "g", "namespace": "models"},
        "spec": {"nodes": {"root": {"routerType": "Sequence", "steps": steps}}},
    }
    cluster.client.create("inferencegraphs", graph)
    cluster.settle()
    rule = {"graphs": ["g"], "weight": 3, "slo": {"latency": "80ms"}}
    seen = Turns(cluster, rules=[rule]).observe()
    found = {p.name: p for p in seen.pipelines}
    assert set(found) == {"models/a", "models/b", "models/g/router"}, "c is not in the graph"
    assert {p.weight for p in found.values()} == {3.0}
    assert [p.slo.latency for p in found.values() if p.slo] == [pytest.approx(0.04)] * 2


def test_a_service_of_two_graphs_goes_by_the_load_that_each_brings(cluster: Cluster) -> None:
    cluster.client.create("nodes", make.node("n1"))
    for name in ("own", "both", "other"):
        serve(cluster, name, make.guaranteed("200m"))
    for name, services in (("one", ("own", "both")), ("two", ("both", "other"))):
        steps = [{"serviceName": service} for service in services]
        body = {
            "apiVersion": "serving.kserve.io/v1alpha1",
            "kind": "InferenceGraph",
            "metadata": {"name": name, "namespace": "models"},
            "spec": {"nodes": {"root": {"routerType": "Sequence", "steps": steps}}},
        }
        cluster.client.create("inferencegraphs", body)
    cluster.settle()
    turns = Turns(cluster, rules=[{"graphs": ["one"], "weight": 4}, {"graphs": ["two"], "weight": 1}])
    seen = turns.observe()
    assert {graph.name: graph.rate for graph in seen.graphs} == {"models/one": None, "models/two": None}
    assert next(p.weight for p in seen.pipelines if p.name == "models/both") == pytest.approx(2.5)
    # No router is measured; what the services of their own get tells: 30 and 10 requests a second.
    turns.host.learn({"models/own": Demand((30.0,), 0.01), "models/other": Demand((10.0,), 0.01)})
    seen = turns.observe()
    assert next(p.weight for p in seen.pipelines if p.name == "models/both") == pytest.approx((30 * 4 + 10 * 1) / 40)
    one, two = seen.graphs
    assert (one.rate, two.rate) == (30.0, 10.0)
    assert (one.parts["models/both"].share, two.parts["models/both"].share) == (0.75, 0.25)
    # A router that is measured is believed.
    turns.host.learn({"models/two/router": Demand((90.0,), 0.01)})
    seen = turns.observe()
    assert next(p.weight for p in seen.pipelines if p.name == "models/both") == pytest.approx((30 * 4 + 90 * 1) / 120)


def test_what_the_nodes_have_can_be_the_total(cluster: Cluster) -> None:
    cluster.client.create("nodes", make.node("n1", cpu="4", pool="serving"))
    cluster.client.create("nodes", make.node("n2", cpu="200m"))
    serve(cluster, "a", make.guaranteed("500m"))
    cluster.client.create("pods", make.pod("x", make.container(wanted=make.guaranteed("300m")), node="n1"))
    cluster.settle()
    turns = Turns(cluster, nodes={"matchLabels": {"pool": "serving"}})
    turns.budget = CPUBudget(
        "shared", "models", turns.budget.spec.model_copy(update={"total": None}), created=turns.budget.created
    )
    seen = turns.observe()
    assert seen.total == 4000 - 300
    assert {node.name: node.free for node in seen.nodes} == {"n1": 3700}


def test_an_infeasible_resize_is_taken_back_and_told(cluster: Cluster) -> None:
    cluster.kubelets.default.static = True  # whole CPUs of Guaranteed pods are exclusive
    cluster.client.create("nodes", make.node("n1"))
    serve(cluster, "a", make.guaranteed("1"))
    cluster.settle()
    turns = Turns(cluster)
    turns.observe()
    turns.apply({"models/a": 1500})
    cluster.step()
    turns.observe()
    applied = turns.apply({"models/a": 1500})
    assert applied.refused["models/a"].reason == "Infeasible"
    cluster.step()
    applied = turns.apply({"models/a": 1500})
    assert not applied.changes, "and is not tried again at once"
    assert applied.granted == {"models/a": 1000}
    assert [pod["spec"]["containers"][0]["resources"]["requests"]["cpu"] for pod in cluster.of("a")] == ["1"]


def test_what_a_node_defers_keeps_its_reservation_and_is_taken_back_when_patience_ends(cluster: Cluster) -> None:
    cluster.client.create("nodes", make.node("n1", cpu="2"))
    serve(cluster, "a", make.guaranteed("500m"))
    serve(cluster, "b", make.guaranteed("500m"))
    cluster.settle()
    turns = Turns(cluster, host={"patience": 5})
    turns.observe()
    turns.apply({"models/a": 1500, "models/b": 500})
    # Somebody's pod is on the node before the kubelet looks.
    cluster.client.create("pods", make.pod("x", make.container(wanted=make.guaranteed("900m")), node="n1"))
    turns.cluster.kubelets.step(0)
    while True:
        cluster.step()
        turns.now += 1
        turns.observe()
        applied = turns.apply({"models/a": 1500, "models/b": 500})
        if applied.refused:
            break
        assert applied.granted == {"models/a": 1500, "models/b": 500}
    assert applied.refused["models/a"].reason == "Deferred"
    cluster.step()
    assert turns.apply({"models/a": 1500, "models/b": 500}).granted == {"models/a": 500, "models/b": 500}


@pytest.mark.parametrize("answered", [True, False])
def test_a_crash_between_shrink_and_growth_is_gone_on_with_by_the_next_process(double: Cluster, answered: bool) -> None:
    double.client.create("nodes", make.node("n1"))
    serve(double, "a", make.guaranteed("1500m"))
    serve(double, "b", make.guaranteed("500m"))
    double.settle()
    turns = Turns(double)
    grants = {"models/a": 600, "models/b": 1400}
    turns.observe()
    if not answered:
        double.faults.drop(matching("PATCH", "/resize", dry_run=False))
    assert turns.apply(grants).pending
    turns.restarted()
    assert turns.reach(grants).granted == grants
    assert cpus(double, "b") == [("1400m", "1400m")]


def test_no_write_without_leave(cluster: Cluster) -> None:
    cluster.client.create("nodes", make.node("n1"))
    serve(cluster, "a", make.guaranteed("1500m"))
    cluster.settle()
    turns = Turns(cluster)
    turns.observe()
    order = Order(turns.budget, 2000, {"models/a": 100}, {})
    before = cluster.plane.revision()
    turns.host.apply([order], lambda: False)
    assert cluster.plane.revision() == before


@pytest.mark.parametrize(
    ("also", "grant", "reason"),
    [
        (make.limit_range("r", "models", max={"cpu": "2"}), 2500, "LimitRange"),
        (make.quota("q", "models", {"requests.cpu": "1"}, requests__cpu="2"), 2500, "QuotaExceeded"),
        (None, 9000, "NodeCapacity"),
    ],
)
def test_the_meanings_of_a_403_are_told_apart(cluster: Cluster, also: Object | None, grant: int, reason: str) -> None:
    cluster.client.create("nodes", make.node("n1"))
    serve(cluster, "a", make.guaranteed("1"))
    cluster.settle()
    if also is not None:
        cluster.add("limitranges" if also["kind"] == "LimitRange" else "resourcequotas", also)
    turns = Turns(cluster, total="20")
    turns.observe()
    applied = turns.apply({"models/a": grant}, dry_run=True)
    assert applied.refused["models/a"].reason == reason, applied.refused["models/a"]
    told = applied.changes[0].refused
    assert told is not None
    assert told.message == applied.refused["models/a"].message
    assert turns.reach({"models/a": grant}).granted["models/a"] <= 8000


def test_a_service_that_may_not_be_resized_is_told_and_the_others_go_on(double: Cluster) -> None:
    double.client.create("nodes", make.node("n1"))
    serve(double, "a", make.guaranteed("500m"))
    double.settle()
    said = 'pods "x" is forbidden: User "headgate" cannot patch resource "pods/resize" in API group ""'
    double.faults.fail(matching("PATCH", "/resize"), 403, said, times=-1)
    turns = Turns(double)
    turns.observe()
    applied = turns.apply({"models/a": 900})
    assert applied.refused["models/a"].reason == "Forbidden"
    double.faults.heal()
    assert turns.reach({"models/a": 900}).granted == {"models/a": 900}, "it is asked again as soon as it may"


def test_a_server_that_is_down_raises_what_the_contract_says(double: Cluster) -> None:
    turns = Turns(double)
    double.faults.fail(matching("GET"), 503, times=-1)
    with pytest.raises(ConnectionError):
        turns.observe()
    double.faults.heal()
    double.faults.fail(matching("GET", "inferenceservices"), 403, times=-1)
    with pytest.raises(PermissionError, match="inferenceservices"):
        turns.observe()


def test_before_a_stop_what_waits_is_taken_back(cluster: Cluster) -> None:
    cluster.client.create("nodes", make.node("n1", cpu="2"))
    serve(cluster, "a", make.guaranteed("500m"))
    cluster.settle()
    turns = Turns(cluster)
    turns.observe()
    turns.apply({"models/a": 1500})
    cluster.client.create("pods", make.pod("x", make.container(wanted=make.guaranteed("900m")), node="n1"))
    cluster.step()
    turns.host.restore(lambda: True)
    assert [pod["spec"]["containers"][0]["resources"]["requests"]["cpu"] for pod in cluster.of("a")] == ["500m"]


def test_kubectl_takes_the_patches_of_a_dry_run_verbatim(cluster: Cluster, tmp_path: Path) -> None:
    kubectl = Path(os.environ.get("KUBEBUILDER_ASSETS", "")) / "kubectl"
    if not cluster.real or not kubectl.is_file():
        pytest.skip("takes a real control plane, and kubectl in KUBEBUILDER_ASSETS")
    cluster.client.create("nodes", make.node("n1"))
    serve(cluster, "a", make.guaranteed("1500m"))
    serve(cluster, "b", make.resources("100m", "1", "256Mi", "256Mi"))
    cluster.settle()
    turns = Turns(cluster)
    turns.observe()
    changes = turns.apply({"models/a": 600, "models/b": 1400}, dry_run=True).changes
    assert [change.pipeline for change in changes] == ["models/a", "models/b"]
    config = tmp_path / "kubeconfig"
    config.write_text(json.dumps(cluster.kubeconfig()))
    for change in changes:
        name = change.target.split()[1].split("/")[1]
        command = [kubectl, "--kubeconfig", config, "--namespace", "models", "patch", "pod", name]
        command += ["--subresource", "resize", "--dry-run=server", "--type", "strategic", "-p", json.dumps(change.body)]
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
        assert result.returncode == 0, result.stderr
        assert "patched" in result.stdout


def test_in_its_own_namespaces_it_needs_no_look_at_nodes(cluster: Cluster) -> None:
    cluster.client.create("nodes", make.node("n1"))
    serve(cluster, "a", make.guaranteed("500m"))
    cluster.settle()
    turns = Turns(cluster, host={"namespaces": ["models"]})
    seen = turns.observe()
    assert seen.nodes == ()
    assert [replica.node for p in seen.pipelines for replica in p.replicas] == [None]
    turns.reach({"models/a": 900})
    assert cpus(cluster, "a") == [("900m", "900m")]


def test_a_budget_of_nodes_that_may_not_be_seen_is_refused_and_the_others_go_on(cluster: Cluster) -> None:
    cluster.client.create("nodes", make.node("n1"))
    serve(cluster, "a", make.guaranteed("500m"))
    cluster.settle()
    turns = Turns(cluster, host={"namespaces": ["models"]})
    spec = turns.budget.spec.model_copy(update={"total": None, "nodes": Selector()})
    seen = turns.host.observe([turns.budget, CPUBudget("blind", "models", spec, created="2026-02-01T00:00:00Z")])
    assert seen["models/blind"].refused["models/blind"].reason == "NodesUnreadable"
    assert seen["models/blind"].pipelines == ()
    assert [p.name for p in seen["models/shared"].pipelines] == ["models/a"]


def test_a_limit_range_that_is_seen_bounds_what_is_decided(cluster: Cluster) -> None:
    cluster.client.create("nodes", make.node("n1"))
    serve(cluster, "a", make.guaranteed("500m"), minReplicas=2)
    cluster.settle()
    cluster.add("limitranges", make.limit_range("r", "models", max={"cpu": "2"}, min={"cpu": "100m"}))
    (found,) = Turns(cluster, total="9").observe().pipelines
    assert (found.floor, found.ceiling) == (2 * 100, 2 * 2000)


def test_a_burstable_pod_keeps_its_limit_within_a_limit_range_too(cluster: Cluster) -> None:
    cluster.client.create("nodes", make.node("n1"))
    serve(cluster, "a", make.resources("200m", "500m", "256Mi", "256Mi"))
    cluster.settle()
    cluster.add("limitranges", make.limit_range("r", "models", max={"cpu": "2"}))
    turns = Turns(cluster, total="9")
    (found,) = turns.observe().pipelines
    # With requests equal to limits it would become Guaranteed, so that its limit is a millicore above its grant.
    assert found.ceiling == 2000 - 1
    assert turns.reach({"models/a": 1999}).refused == {}
    assert cpus(cluster, "a") == [("1999m", "2")]
