"""What goes wrong in a cluster, against the KServe adapter: each ends with a reason, within the budget, no restart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from tests.cluster import builders as make
from tests.cluster.client import RequestError
from tests.cluster.harness import Cluster
from tests.cluster.recorder import Recorder, committed

from headgate.adapters.kserve.adapter import KserveAdapter
from headgate.adapters.kserve.settings import KserveSettings
from headgate.adapters.kubernetes.api import Api
from headgate.core.budgets import BudgetSpec, CPUBudget
from headgate.core.decision import Config, State, decide
from headgate.core.hosting import Applied, Inventory, Order
from headgate.core.model import Budget, Observation, Sample

NOTE = {"serving.kserve.io/autoscalerClass": "external"}


class Turns:
    """Services of one budget of 2 CPUs, turned by hand; every write is watched."""

    def __init__(self, cluster: Cluster, node: str = "8", **services: Mapping[str, Any]) -> None:
        self.cluster = cluster
        cluster.client.create("nodes", make.node("n1", node))
        cluster.plane.settle()
        for name, wanted in services.items():
            service = make.inference_service(name, "models", wanted, annotations=NOTE)
            cluster.client.create("inferenceservices", service)
        cluster.settle()
        text = {"total": "2", "mode": "Apply", "pipelines": [{"selector": {}}]}
        self.budget = CPUBudget("shared", "models", BudgetSpec.model_validate(text), created="2026-01-01T00:00:00Z")
        self.recorder = Recorder(cluster)
        self.token = ""
        self.host = self.restarted()

    @property
    def now(self) -> float:
        return self.cluster.kubelets.epoch + self.cluster.kubelets.now

    def restarted(self, **settings: Any) -> KserveAdapter:
        api = Api(self.cluster.connection(self.token), 5)
        self.host = KserveAdapter(api, KserveSettings(**settings), lambda: self.now)
        return self.host

    def decided(self, **busy: float) -> dict[str, int]:
        """The grants for services that are busy with so many CPUs, 20 requests per second of each."""
        seen = self.observe()
        samples = {
            f"models/{name}": Sample(f"models/{name}", self.now, 10.0, 200 * cores, 200 * cores, cpu_seconds=10 * cores)
            for name, cores in busy.items()
        }
        config = Config(seen.pipelines, Budget(seen.total, 0, (), seen.nodes), "proportional")
        _, decision = decide(State(), Observation(samples, seen.granted), config, self.now)
        return {name.partition("/")[2]: grant for name, grant in decision.allocation.grants.items()}

    def observe(self) -> Inventory:
        return self.host.observe([self.budget])[self.budget.key]

    def turn(self, **grants: int) -> Applied:
        """One turn, and a second for the cluster."""
        self.observe()
        order = Order(self.budget, 2000, {f"models/{name}": value for name, value in grants.items()}, {})
        applied = self.host.apply([order], lambda: True)[self.budget.key]
        self.cluster.step()
        return applied

    def reach(self, turns: int = 20, until: Callable[[Applied], bool] | None = None, **grants: int) -> Applied:
        for _ in range(turns):
            applied = self.turn(**grants)
            if until(applied) if until else not applied.pending:
                return applied
        raise AssertionError(f"still pending: {applied.pending}, refused: {applied.refused}")

    def cpus(self, name: str) -> int:
        return sum(committed(pod) for pod in self.cluster.of(name))

    def asked(self, name: str) -> list[str]:
        return [pod["spec"]["containers"][0]["resources"]["requests"]["cpu"] for pod in self.cluster.of(name)]

    def pod(self, name: str) -> str:
        (pod,) = self.cluster.of(name)
        return str(pod["metadata"]["name"])


def refused(name: str, reason: str) -> Callable[[Applied], bool]:
    return lambda applied: (
        applied.refused.get(f"models/{name}") is not None and (applied.refused[f"models/{name}"].reason == reason)
    )


def test_a_node_that_fills_up_defers_and_in_the_end_it_is_taken_back(cluster: Cluster) -> None:
    it = Turns(cluster, "3", a=make.guaranteed("1500m"), b=make.guaranteed("500m"))
    it.reach(a=600, b=500)
    it.observe()
    order = Order(it.budget, 2000, {"models/a": 600, "models/b": 1400}, {})
    it.host.apply([order], lambda: True)
    # Before the kubelet looks, somebody else's pod takes the node.
    other = make.container("main", make.burstable("1800m"))
    cluster.client.create("pods", make.pod("other", other, namespace="models", node="n1"))
    cluster.kubelets.first.add("other")
    cluster.step()
    (pod,) = cluster.of("b")
    waits = [one for one in pod["status"]["conditions"] if one["type"] == "PodResizePending"]
    assert [one["reason"] for one in waits] == ["Deferred"]
    assert it.observe().granted["models/b"] == 1400, "what is asked for is kept for it while it waits"
    cluster.kubelets.step(70.0)
    it.reach(until=refused("b", "Deferred"), a=600, b=1400)
    it.cluster.step()
    assert (it.asked("b"), it.cpus("b")) == (["500m"], 500)
    it.recorder.check(2000)


def test_what_a_node_will_never_do_is_restored_and_not_tried_again(cluster: Cluster) -> None:
    cluster.kubelets.default.static = True
    it = Turns(cluster, a=make.guaranteed("1500m"), b=make.burstable("400m"))
    it.reach(until=refused("a", "Infeasible"), a=600, b=400)
    it.cluster.step()
    assert it.asked("a") == ["1500m"]
    before = it.cluster.client.get("pods", it.pod("a"), "models")["metadata"]["generation"]
    for _ in range(5):
        it.turn(a=600, b=400)
    after = it.cluster.client.get("pods", it.pod("a"), "models")["metadata"]["generation"]
    assert after == before
    it.recorder.check(2000)


def test_a_runtime_that_fails_is_reported_and_what_it_has_is_kept(cluster: Cluster) -> None:
    it = Turns(cluster, a=make.guaranteed("1500m"), b=make.guaranteed("500m"))
    cluster.kubelets.broken[it.pod("a")] = "the cgroup is gone"
    for _ in range(4):
        it.turn(a=600, b=1400)
    assert it.cpus("b") == 500, "what was not given up is not given away"
    cluster.kubelets.step(70.0)
    it.reach(until=refused("a", "ResizeError"), a=600, b=1400)
    it.recorder.check(2000)


def test_a_pod_replaced_half_way_is_taken_as_it_is(cluster: Cluster) -> None:
    it = Turns(cluster, a=make.guaranteed("1500m"), b=make.guaranteed("500m"))
    it.turn(a=600, b=1400)
    cluster.client.delete("pods", it.pod("a"), "models")
    it.reach(a=600, b=1400)
    assert (it.cpus("a"), it.cpus("b")) == (600, 1400)
    assert it.recorder.restarts() == {}


def test_a_template_reset_rolls_the_pods_and_they_are_sized_again(cluster: Cluster) -> None:
    it = Turns(cluster, a=make.guaranteed("1"), b=make.guaranteed("500m"))
    it.reach(a=600, b=1400)
    change = {"spec": {"predictor": {"labels": {"version": "2"}}}}
    cluster.client.patch("inferenceservices", "a", "models", change)
    cluster.settle()
    assert it.cpus("a") == 1000, "a new pod has what its template says"
    it.reach(a=600, b=1400)
    assert (it.cpus("a"), it.cpus("b")) == (600, 1400)


def test_a_manual_resize_is_seen_and_taken_back(cluster: Cluster) -> None:
    it = Turns(cluster, a=make.guaranteed("1500m"), b=make.guaranteed("500m"))
    it.reach(a=600, b=1400)
    cluster.client.resize(it.pod("a"), "models", {"kserve-container": make.guaranteed("1")})
    for _ in range(3):
        cluster.step()
    assert it.observe().granted == {"models/a": 1000, "models/b": 1400}
    it.reach(a=600, b=1400)
    assert it.cpus("a") == 600
    it.recorder.check(2000, excused=(it.pod("a"),))


def test_somebody_elses_write_between_look_and_patch_is_not_overwritten(cluster: Cluster) -> None:
    it = Turns(cluster, a=make.guaranteed("1500m"), b=make.guaranteed("500m"))
    it.observe()
    name, asked = it.pod("a"), [0]

    def allowed() -> bool:
        asked[0] += 1
        if asked[0] == 1:
            cluster.client.patch("pods", name, "models", {"metadata": {"annotations": {"touched": "by another"}}})
        return True

    order = Order(it.budget, 2000, {"models/a": 600, "models/b": 1400}, {})
    applied = it.host.apply([order], allowed)[it.budget.key]
    assert "models/a" in applied.pending
    assert it.asked("a") == ["1500m"]
    it.reach(a=600, b=1400)
    it.recorder.check(2000)


def test_missing_permission_is_named_and_ends_when_it_is_given(cluster: Cluster) -> None:
    it = Turns(cluster, a=make.guaranteed("1500m"), b=make.guaranteed("500m"))
    read = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "watch"]}]
    it.token = "headgate-t0ken"
    it.restarted()
    with pytest.raises(PermissionError, match="inferenceservices"):
        it.observe()
    cluster.bind("read", read)
    applied = it.turn(a=600, b=1400)
    assert {refusal.reason for refusal in applied.refused.values()} == {"Forbidden"}
    assert "pods/resize" in applied.refused["models/a"].message
    cluster.bind("resize", [{"apiGroups": [""], "resources": ["pods/resize"], "verbs": ["patch"]}])
    it.reach(a=600, b=1400)
    it.recorder.check(2000)


def test_a_quota_and_a_limit_range_are_told_apart(cluster: Cluster) -> None:
    it = Turns(cluster, a=make.guaranteed("500m"), b=make.guaranteed("500m"))
    cluster.add("resourcequotas", make.quota("rq", "models", {"requests.cpu": "1"}, requests__cpu="1200m"))
    cluster.plane.settle()
    applied = it.reach(until=refused("a", "QuotaExceeded"), a=1000, b=500)
    assert applied.refused["models/a"].most == 750, "half of what was refused is worth an attempt"
    it.reach(a=600, b=500)
    assert it.cpus("a") == 600
    cluster.client.delete("resourcequotas", "rq", "models")
    cluster.client.create("limitranges", make.limit_range("most", "models", max={"cpu": "800m"}))
    cluster.plane.settle()
    it.restarted()
    ceilings = {pipeline.name: pipeline.ceiling for pipeline in it.observe().pipelines}
    assert ceilings["models/a"] == 800
    it.reach(until=refused("a", "LimitRange"), a=900, b=500)
    it.recorder.check(2000)


def test_pods_keep_what_their_probes_need_however_idle_they_are(cluster: Cluster) -> None:
    it = Turns(cluster, a=make.guaranteed("400m"), b=make.guaranteed("400m"))
    cluster.client.patch("deployments", "b-predictor", "models", {"spec": {"replicas": 3}}, sub="scale")
    cluster.settle()
    it.restarted(least="100m")
    cluster.kubelets.needs = dict.fromkeys((pod["metadata"]["name"] for pod in cluster.pods()), 90)
    it.recorder = Recorder(cluster)
    for _ in range(12):
        it.turn(**it.decided(a=2.0, b=0.0))
    assert [it.cpus("a"), it.cpus("b")] == [1700, 300]
    it.recorder.check(2000)


def test_a_pod_that_is_starved_all_the_same_harms_no_other(cluster: Cluster) -> None:
    it = Turns(cluster, a=make.guaranteed("1500m"), b=make.guaranteed("500m"))
    cluster.kubelets.needs = {it.pod("a"): 700}
    it.reach(a=600, b=1400)
    assert (it.cpus("a"), it.cpus("b")) == (600, 1400)
    assert max(instant.taken for instant in it.recorder.instants()) <= 2000
    assert it.recorder.restarts().keys() == {it.pod("a")}
    it.reach(a=800, b=1200)
    assert (it.cpus("a"), it.cpus("b")) == (800, 1200), "a higher floor ends it"


def test_a_stopped_service_gives_its_cpus_back_to_the_budget(cluster: Cluster) -> None:
    it = Turns(cluster, a=make.guaranteed("1500m"), b=make.guaranteed("500m"))
    stop = {"metadata": {"annotations": {"serving.kserve.io/stop": "true"}}}
    cluster.client.patch("inferenceservices", "a", "models", stop)
    cluster.settle()
    seen = it.observe()
    assert (seen.refused["models/a"].reason, dict(seen.granted)) == ("Stopped", {"models/b": 500})
    it.reach(b=2000)
    it.recorder.check(2000)


def test_pods_of_a_service_that_was_deleted_count_until_they_are_gone(cluster: Cluster) -> None:
    it = Turns(cluster, a=make.guaranteed("1500m"), b=make.guaranteed("500m"))
    cluster.client.delete("inferenceservices", "a", "models")
    # Nobody has told the pod yet: the garbage collector comes later.
    assert dict(it.observe().granted) == {"models/b": 500}
    assert it.observe().refused["models/a"].reason == "NoService"
    assert it.turn(b=2000).pending.keys() == {"models/b"}
    cluster.kubelets.default.deaf = True
    cluster.settle()
    it.restarted()
    assert it.turn(b=2000).pending.keys() == {"models/b"}, "it is on its way out, and has its CPUs"
    cluster.kubelets.default.deaf = False
    it.reach(b=2000)
    it.recorder.check(2000)


def test_pods_of_a_component_that_was_taken_out_count_until_they_are_gone(cluster: Cluster) -> None:
    it = Turns(cluster, b=make.guaranteed("500m"))
    service = make.inference_service("a", "models", make.guaranteed("700m"), annotations=NOTE)
    container = make.container("kserve-container", make.guaranteed("800m"))
    service["spec"]["transformer"] = {"containers": [container]}
    cluster.client.create("inferenceservices", service)
    cluster.settle()
    it.recorder = Recorder(cluster)
    cluster.kubelets.default.deaf = True
    cluster.client.patch("inferenceservices", "a", "models", {"spec": {"transformer": None}})
    cluster.settle()
    assert it.turn(a=700, b=1300).pending.keys() == {"models/b"}
    cluster.kubelets.default.deaf = False
    it.reach(a=700, b=1300)
    it.recorder.check(2000)


def test_the_router_of_a_graph_that_was_deleted_counts_until_it_is_gone(cluster: Cluster) -> None:
    it = Turns(cluster, b=make.guaranteed("500m"))
    rules = {"total": "2", "mode": "Apply", "pipelines": [{"graphs": ["g"]}, {"selector": {}}]}
    it.budget = replace(it.budget, spec=BudgetSpec.model_validate(rules))
    nodes = {"root": {"routerType": "Sequence", "steps": [{"serviceName": "b"}]}}
    meta = {"name": "g", "namespace": "models"}
    spec = {"nodes": nodes, "resources": make.guaranteed("700m")}
    graph = {"apiVersion": "serving.kserve.io/v1alpha1", "kind": "InferenceGraph", "metadata": meta, "spec": spec}
    cluster.client.create("inferencegraphs", graph)
    cluster.settle()
    assert dict(it.observe().granted) == {"models/b": 500, "models/g/router": 700}
    cluster.kubelets.default.deaf = True
    cluster.client.delete("inferencegraphs", "g", "models")
    cluster.settle()
    assert it.turn(b=2000).pending.keys() == {"models/b"}
    cluster.kubelets.default.deaf = False
    it.reach(b=2000)
    assert it.cpus("b") == 2000


def test_pods_of_a_service_that_came_after_the_look_count(cluster: Cluster) -> None:
    it = Turns(cluster, a=make.guaranteed("500m"), b=make.guaranteed("500m"))
    it.observe()
    service = make.inference_service("c", "models", make.guaranteed("700m"), annotations=NOTE)
    cluster.client.create("inferenceservices", service)
    cluster.settle()
    order = Order(it.budget, 2000, {"models/a": 500, "models/b": 1500}, {})
    for _ in range(3):
        applied = it.host.apply([order], lambda: True)[it.budget.key]
        cluster.step()
    assert applied.pending.keys() == {"models/b"}
    assert it.cpus("b") == 2000 - 500 - 700
    it.recorder.check(2000)


def test_pods_are_resized_also_where_kserve_is_told_not_to_update(cluster: Cluster) -> None:
    it = Turns(cluster, a=make.guaranteed("1500m"), b=make.guaranteed("500m"))
    frozen = {"metadata": {"annotations": {"serving.kserve.io/disable-auto-update": "true"}}}
    cluster.client.patch("inferenceservices", "a", "models", frozen)
    cluster.settle()
    it.reach(a=600, b=1400)
    it.recorder.check(2000)


def test_nothing_of_the_hosts_objects_is_touched_but_resources(cluster: Cluster) -> None:
    it = Turns(cluster, a=make.guaranteed("1500m"), b=make.guaranteed("500m"))

    def shown() -> dict[str, Any]:
        kinds = ("inferenceservices", "deployments", "replicasets")
        found = {f"{kind}/{o['metadata']['name']}": o["spec"] for kind in kinds for o in cluster.client.list(kind)}
        for meta in (pod["metadata"] for pod in cluster.pods()):
            found[meta["name"]] = (meta.get("labels"), meta.get("annotations"))
        return found

    before = shown()
    it.reach(a=600, b=1400)
    it.host.close()
    assert shown() == before, "an uninstall leaves nothing behind but the CPUs that pods have"
    with pytest.raises(RequestError):
        cluster.client.get("configmaps", "headgate", "models")
