"""`headgate doctor` on a cluster: what it finds where all is well, and where one thing is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cluster import builders as make
from tests.cluster.harness import Cluster
from tests.controller.test_plugins import invoke

EXTERNAL = {"serving.kserve.io/autoscalerClass": "external"}
EVERYWHERE = [
    {"apiGroups": ["serving.kserve.io"], "resources": ["inferenceservices", "inferencegraphs"], "verbs": ["list"]},
    {"apiGroups": [""], "resources": ["pods", "nodes", "limitranges"], "verbs": ["list"]},
    {"apiGroups": ["autoscaling"], "resources": ["horizontalpodautoscalers"], "verbs": ["list"]},
    {"apiGroups": ["keda.sh"], "resources": ["scaledobjects"], "verbs": ["list"]},
    {"apiGroups": ["autoscaling.k8s.io"], "resources": ["verticalpodautoscalers"], "verbs": ["list"]},
    {"apiGroups": ["headgate.dev"], "resources": ["cpubudgets"], "verbs": ["list"]},
    {"apiGroups": ["headgate.dev"], "resources": ["cpubudgets/status"], "verbs": ["patch"]},
    {"apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch"]},
]
OWN = [
    {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "patch"]},
    {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "create", "patch", "delete"]},
]
RESIZE = [{"apiGroups": [""], "resources": ["pods/resize"], "verbs": ["patch"]}]


class Site:
    """Two services, a budget for them, and a settings file with an account of its own."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        cluster.space("headgate")
        cluster.add("nodes", make.node("n1"))
        for name in ("a", "b"):
            service = make.inference_service(name, "models", make.guaranteed("1"), annotations=EXTERNAL)
            cluster.client.create("inferenceservices", service)
        cluster.settle()
        cluster.bind("look", EVERYWHERE)
        cluster.bind("own", OWN, namespace="headgate")
        self.load = folder / "load.csv"
        self.load.write_text(
            "pipeline,window,arrivals,completions,cpu_seconds\nmodels/a,10,10,10,1\nmodels/b,10,50,50,5\n"
        )
        (folder / "kubeconfig").write_text(json.dumps(cluster.kubeconfig("headgate-t0ken")))
        at = {"kubeconfig": "kubeconfig"}
        self.settings: dict[str, Any] = {
            "host": {"kind": "kserve", **at},
            "home": {"kind": "kubernetes", "namespace": "headgate", **at},
            "sources": [{"kind": "file", "path": "load.csv", "every": "1s", "stale": "60s"}],
        }
        self.spec: dict[str, Any] = {"total": "2", "pipelines": [{"selector": {}, "floor": "100m"}]}

    def allow(self) -> None:
        """Resizes too: now it has what the documentation lists."""
        self.cluster.bind("resize", RESIZE, namespace="models")

    def budget(self) -> None:
        meta = {"name": "main", "namespace": "models"}
        body = {"apiVersion": "headgate.dev/v1alpha1", "kind": "CPUBudget", "metadata": meta, "spec": self.spec}
        self.cluster.client.create("cpubudgets", body)

    def doctor(self) -> tuple[int, dict[str, dict[str, str]]]:
        """The exit code, and the findings by what was checked."""
        path = self.folder / "headgate.yaml"
        path.write_text(yaml.safe_dump(self.settings))
        code, out, err = invoke("doctor", str(path), "-o", "json")
        assert code in (0, 1), err
        assert "t0ken" not in out + err
        found = {each["check"]: each for each in json.loads(out)}
        assert all(each["advice"] for each in found.values() if each["outcome"] == "fail")
        return code, found


@pytest.fixture
def site(cluster: Cluster, tmp_path: Path) -> Site:
    return Site(cluster, tmp_path)


@pytest.fixture
def scene(double: Cluster, tmp_path: Path) -> Site:
    return Site(double, tmp_path)


def outcomes(found: dict[str, dict[str, str]], *but: str) -> set[str]:
    """How the checks went, some left aside."""
    return {each["outcome"] for check, each in found.items() if check not in but}


def test_all_is_well(site: Site) -> None:
    site.allow()
    site.budget()
    code, found = site.doctor()
    assert code == 0
    assert outcomes(found) == {"ok"}, [each for each in found.values() if each["outcome"] != "ok"]
    # Two floors of 100m; each service has 1 CPU.
    assert "2 pipelines with 2 pods; floors 200m and granted 2 of 2" in found["budget models/main"]["found"]
    assert found["may patch pods/resize"]["found"] == "allowed in namespace models"
    assert found["load"]["found"].startswith("samples of 2 of 2 pipelines")
    assert site.cluster.client.find("leases", "headgate", "headgate") is None, "it only looks"


def test_resizes_are_not_allowed(site: Site) -> None:
    site.budget()
    code, found = site.doctor()
    assert code == 1
    missing = found["may patch pods/resize"]
    assert (missing["outcome"], missing["found"]) == ("fail", "not allowed in namespace models")
    assert 'resources: ["pods/resize"], verbs: ["patch"]' in missing["advice"]
    # The dry run is refused as the write would be.
    assert found["models/a"]["outcome"] == "warn"
    assert "Forbidden" in found["models/a"]["advice"]


def test_a_cpu_autoscaler_is_in_the_way(site: Site) -> None:
    site.allow()
    site.budget()
    metric = {
        "type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
    }
    scaled = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "a-predictor"}
    scaler = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "a", "namespace": "models"},
        "spec": {"scaleTargetRef": scaled, "minReplicas": 1, "maxReplicas": 3, "metrics": [metric]},
    }
    site.cluster.client.create("horizontalpodautoscalers", scaler)
    code, found = site.doctor()
    assert code == 0, "the other service can be moved"
    assert outcomes(found, "models/a") == {"ok"}
    assert found["models/a"]["outcome"] == "warn"
    assert "HorizontalPodAutoscaler models/a" in found["models/a"]["found"]
    assert "UtilisationAutoscaler" in found["models/a"]["advice"]


def test_floors_above_the_total(site: Site) -> None:
    site.allow()
    site.spec = {"total": "1", "pipelines": [{"selector": {}, "floor": "600m"}]}
    site.budget()
    code, found = site.doctor()
    assert code == 1
    assert found["budget models/main"]["outcome"] == "fail"
    assert found["budget models/main"]["found"].startswith("Infeasible")


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"paused": True}, "spec.paused"),
        ({"mode": "Apply"}, "apply: true"),
        # Two services of 1 CPU each.
        ({"total": "1500m"}, "more than the total"),
    ],
)
def test_a_budget_that_does_not_do_as_it_says(scene: Site, spec: dict[str, Any], says: str) -> None:
    scene.allow()
    scene.spec |= spec
    scene.budget()
    code, found = scene.doctor()
    assert code == 0
    assert found["budget models/main"]["outcome"] == "warn"
    assert says in found["budget models/main"]["advice"]
    assert outcomes(found, "budget models/main") == {"ok"}


def test_mode_apply_where_the_settings_apply(scene: Site) -> None:
    scene.allow()
    scene.spec["mode"] = "Apply"
    scene.settings["apply"] = True
    scene.budget()
    assert outcomes(scene.doctor()[1]) == {"ok"}
    assert scene.cluster.client.find("leases", "headgate", "headgate") is None, "it only looks"


def test_a_source_is_down_and_a_pipeline_has_no_samples(site: Site) -> None:
    site.allow()
    site.budget()
    site.load.unlink()
    code, found = site.doctor()
    assert code == 1
    assert found["source file"]["outcome"] == "fail"
    assert found["load"]["found"] == "samples of 0 of 2 pipelines; load not known of models/a, models/b"


def test_samples_that_do_not_say_how_many_requests_arrive(scene: Site) -> None:
    scene.allow()
    scene.budget()
    scene.load.write_text("pipeline,window,cpu_seconds\nmodels/a,10,1\nmodels/b,10,5\n")
    code, found = scene.doctor()
    assert code == 0
    assert found["load"]["outcome"] == "warn"
    assert found["load"]["found"].endswith("known by the CPU in use alone: models/a, models/b")
    scene.load.write_text("pipeline,window,queue\nmodels/a,10,1\nmodels/b,10,5\n")
    _, found = scene.doctor()
    assert found["load"]["outcome"] == "warn"
    assert "models/a (the samples do not say how many requests arrive)" in found["load"]["found"]


def test_the_resource_is_not_installed(scene: Site) -> None:
    scene.allow()
    double = scene.cluster
    double.faults.fail(lambda request: request.group == "headgate.dev", 404, "the server could not find it", times=-1)
    code, found = scene.doctor()
    assert code == 1
    assert found["CPUBudget resource"]["outcome"] == "fail"
    assert "deploy/crds" in found["CPUBudget resource"]["advice"]
    assert found["budgets"]["outcome"] == "fail"
    scene.settings["budgets"] = [{"name": "main", "namespace": "models", **scene.spec}]
    code, found = scene.doctor()
    assert code == 0, "budgets of the settings file need none"
    assert "CPUBudget resource" not in found
    assert outcomes(found) == {"ok"}


@pytest.mark.parametrize(
    ("version", "outcome"), [("1.31", "fail"), ("1.32", "fail"), ("1.33", "ok"), ("1.34", "ok"), ("1.35", "ok")]
)
def test_versions_of_the_server(scene: Site, version: str, outcome: str) -> None:
    scene.allow()
    scene.budget()
    scene.cluster.plane.server.machine.version = version
    code, found = scene.doctor()
    assert found["in-place resize"]["outcome"] == outcome
    assert version in found["in-place resize"]["found"]
    assert code == (outcome == "fail")


def test_a_kubelet_that_is_too_old(scene: Site) -> None:
    scene.allow()
    scene.budget()
    old = make.node("n2")
    old["status"]["nodeInfo"]["kubeletVersion"] = "v1.32.4-gke.1"
    scene.cluster.add("nodes", old)
    code, found = scene.doctor()
    assert code == 0
    assert found["nodes"]["outcome"] == "warn"
    assert "1 of 2" in found["nodes"]["found"]
    assert "n2 (v1.32.4-gke.1)" in found["nodes"]["found"]


def test_the_server_cannot_be_reached(scene: Site) -> None:
    config = json.loads((scene.folder / "kubeconfig").read_text())
    config["clusters"][0]["cluster"]["server"] = "http://127.0.0.1:1"
    (scene.folder / "kubeconfig").write_text(json.dumps(config))
    code, found = scene.doctor()
    assert code == 1
    assert found["API server"]["outcome"] == "fail"
    assert {"budgets", "host"} <= {check for check, each in found.items() if each["outcome"] == "fail"}


def test_who_leads_and_who_holds(site: Site) -> None:
    site.allow()
    site.budget()
    spec = {"holderIdentity": "headgate-0_1f", "leaseDurationSeconds": 15, "renewTime": "2026-01-02T03:04:05.000006Z"}
    meta = {"name": "headgate", "namespace": "headgate"}
    body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": spec}
    site.cluster.client.create("leases", body)
    pause = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {**meta, "name": "headgate-pause"},
        "data": {"reason": "tests"},
    }
    site.cluster.client.create("configmaps", pause)
    code, found = site.doctor()
    assert code == 0
    assert (
        found["lease headgate/headgate"]["found"] == "held by headgate-0_1f, last renewed 2026-01-02T03:04:05.000006Z"
    )
    assert found["pause switch"] == {
        "check": "pause switch",
        "outcome": "warn",
        "found": "everything is held: tests",
        "advice": "headgate resume SETTINGS",
    }


def test_settings_that_are_wrong(tmp_path: Path) -> None:
    path = tmp_path / "headgate.yaml"
    path.write_text("host: {kind: kserve}\nintervall: 10s\n")
    code, out, err = invoke("doctor", str(path))
    assert (code, out) == (2, "")
    assert "intervall" in err
