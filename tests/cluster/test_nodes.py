"""`headgate run` adds and removes nodes of a MachineDeployment, with a machine controller emulated through the API."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from headgate.adapters.infrastructure.scale import CAPI_DELETE
from headgate.adapters.kubernetes.nodes_read import CORDONED, TAINT

from . import builders as make
from .crds import plain
from .harness import Cluster
from .process import Load, until

Object = dict[str, Any]
GROUP = "cluster.x-k8s.io"
NOTE = {"serving.kserve.io/autoscalerClass": "external"}


class Site:
    """Nodes of 4 CPUs of the MachineDeployment "md", a service "a", and "web", which is not headgate's."""

    def __init__(self, cluster: Cluster, folder: Path, size: int, web: int = 0, **nodes: Any) -> None:
        self.cluster, self.folder = cluster, folder
        self.client = cluster.client
        cluster.plane.install([plain(GROUP, "v1beta2", "Machine", "machines")])
        until(
            "machines are served",
            lambda: self.client.send("GET", f"/apis/{GROUP}/v1beta2/machines", None, "")[0] == 200,
        )
        for space in ("headgate", "capi"):
            cluster.space(space)
        spec = {
            "clusterName": "c",
            "replicas": size,
            "selector": {},
            "template": {
                "spec": {
                    "clusterName": "c",
                    "bootstrap": {"dataSecretName": "s"},
                    "infrastructureRef": {"kind": "M", "name": "m", "apiGroup": "infrastructure.cluster.x-k8s.io"},
                }
            },
        }
        deployment = {"apiVersion": f"{GROUP}/v1beta2", "kind": "MachineDeployment", "metadata": {"name": "md"}}
        self.client.create("machinedeployments", {**deployment, "spec": spec}, "capi")
        self.count, self.wrong = 0, []
        self.seen: list[str] = []
        self.hold = False
        """Whether kubelets end no pods."""
        self.machines()
        cluster.plane.settle()
        service = make.inference_service("a", "models", make.guaranteed("500m"), annotations=NOTE)
        self.client.create("inferenceservices", service)
        if web:
            self.client.create("deployments", _web(web))
            self.client.create("poddisruptionbudgets", _disruption(), "models")
        cluster.settle(30)
        budget = {"mode": "Apply", "nodes": {}, "pipelines": [{"selector": {}, "namespaces": ["*"], "floor": "100m"}]}
        budget["calm"] = {"stabilisation": "1s", "noise": 0}
        about = {"apiVersion": "headgate.dev/v1alpha1", "kind": "CPUBudget", "metadata": {"name": "all"}}
        self.client.create("cpubudgets", {**about, "spec": budget}, "headgate")
        self.load = Load(folder, {"models/a": 0.2})
        (folder / "kubeconfig").write_text(json.dumps(cluster.kubeconfig()))
        access = {"kubeconfig": "kubeconfig"}
        limits = {"name": "pool", "minimum": 1, "maximum": 3}
        scaled = {**limits, "kind": "MachineDeployment", "object": "md", "namespace": "capi", "template": {"cpu": "4"}}
        times = {"up_after": "1s", "down_after": "1s", "window": "2s", "delay_after_add": "1s"}
        settings = {
            "interval": "300ms",
            "host": {"kind": "kserve", **access},
            "home": {
                "kind": "kubernetes",
                "namespace": "headgate",
                "lease": {"duration": "3s", "deadline": "1s", "retry": "200ms"},
                **access,
            },
            "sources": [{"kind": "file", "path": self.load.path.name, "every": "200ms"}],
            "nodes": {
                "mode": "apply",
                "interval": "300ms",
                "soak": "500ms",
                "provider": {"kind": "scale", "groups": [scaled], **access},
                "groups": [{**limits, **times, "signals": ["requests", "demand"]}],
                **nodes,
            },
        }
        (folder / "run.yaml").write_text(yaml.safe_dump(settings))
        self.processes: list[subprocess.Popen[bytes]] = []
        self.log = (folder / "log").open("ab")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._live)
        self._thread.start()

    # The cluster's side

    def _live(self) -> None:
        while not self._stop.wait(0.1):
            self.machines()
            self.disruption()
            self.cluster.kubelets.default.deaf = self.hold
            self.cluster.step(0.5)
            self._watch()

    def machines(self) -> None:
        """What Cluster API does: marked machines go first; a machine brings a node, and takes it away."""
        wanted = self.replicas()
        found = self.client.list("machines", "capi")
        if not 1 <= wanted <= 3:
            self.wrong.append(f"{wanted} replicas")
        order = sorted(found, key=lambda m: not (m["metadata"].get("annotations") or {}).get(CAPI_DELETE))
        for machine in order[: max(0, len(found) - wanted)]:
            node = machine["status"]["nodeRef"]["name"]
            self.wrong += [f"{node} was deleted with {p}" for p in self.on(node)]
            self.client.delete("nodes", node)
            self.client.delete("machines", machine["metadata"]["name"], "capi")
        for _ in range(wanted - len(found)):
            self.count += 1
            name = f"n{self.count}"
            self.cluster.add("nodes", make.node(name, cpu="4"))
            # Admission taints a new node as not ready; the node controller takes that off.
            self.client.patch("nodes", name, "", {"spec": {"taints": None}})
            meta = {"name": f"md-{self.count}", "labels": {f"{GROUP}/deployment-name": "md"}}
            machine = {"apiVersion": f"{GROUP}/v1beta2", "kind": "Machine", "metadata": meta}
            self.client.create("machines", machine, "capi")
            self.client.status("machines", meta["name"], "capi", {"phase": "Running", "nodeRef": {"name": name}})

    def disruption(self) -> None:
        """What the disruption controller does."""
        for budget in self.client.list("poddisruptionbudgets", "models"):
            pods = [p for p in self.cluster.pods(app="web") if not p["metadata"].get("deletionTimestamp")]
            ready = sum(p["status"].get("phase") == "Running" for p in pods)
            status = {
                "observedGeneration": budget["metadata"]["generation"],
                "disruptionsAllowed": max(0, ready - budget["spec"]["minAvailable"]),
                "currentHealthy": ready,
                "desiredHealthy": budget["spec"]["minAvailable"],
                "expectedPods": len(pods),
            }
            if any((budget.get("status") or {}).get(key) != value for key, value in status.items()):
                self.client.status("poddisruptionbudgets", budget["metadata"]["name"], "models", status)
            if ready < budget["spec"]["minAvailable"]:
                self.wrong.append(f"{ready} pods of web are left")

    def _watch(self) -> None:
        for node in self.client.list("nodes"):
            now = self.stage(node)
            if now and (not self.seen or self.seen[-1] != now):
                self.seen.append(now)

    # What the tests look at

    @staticmethod
    def stage(node: Object) -> str:
        taints = [t["key"] for t in node["spec"].get("taints") or () if t["effect"] == "PreferNoSchedule"]
        if CORDONED in (node["metadata"].get("annotations") or {}):
            return "cordoned" if node["spec"].get("unschedulable") and TAINT in taints else "wrong"
        return "marked" if TAINT in taints else ""

    def stages(self) -> dict[str, str]:
        return {n["metadata"]["name"]: self.stage(n) for n in self.client.list("nodes")}

    def replicas(self) -> int:
        return int(self.client.get("machinedeployments", "md", "capi")["spec"]["replicas"])

    def on(self, node: str) -> list[str]:
        return [p["metadata"]["name"] for p in self.cluster.pods() if p["spec"].get("nodeName") == node]

    def start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "headgate", "run", "run.yaml", "--apply"]
        self.processes.append(subprocess.Popen(command, cwd=self.folder, stdout=self.log, stderr=self.log))
        return self.processes[-1]

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()
        self._stop.set()
        self._thread.join()
        self.load.close()
        self.log.close()
        for machine in self.client.list("machines", "capi"):
            self.client.delete("machines", machine["metadata"]["name"], "capi")


def _web(count: int) -> Object:
    container = {"name": "web", "image": "example.org/web:1", "resources": make.guaranteed("500m")}
    labels = {"app": "web"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "models"},
        "spec": {
            "replicas": count,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }


def _disruption() -> Object:
    about = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "web"}}
    return {**about, "spec": {"minAvailable": 3, "selector": {"matchLabels": {"app": "web"}}}}


Make = Callable[..., Site]


@pytest.fixture
def site(cluster: Cluster, tmp_path: Path) -> Iterator[Make]:
    made: list[Site] = []

    def make(size: int, **more: Any) -> Site:
        made.append(Site(cluster, tmp_path, size, **more))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_demand_beyond_the_nodes_adds_machines(site: Make) -> None:
    it = site(1)
    it.load.busy = {"models/a": 5.0}
    it.start()
    # 5 CPUs at a utilisation of 0.7 are 7.2: two nodes of 4.
    until("another node", lambda: len(it.stages()) == 2)
    assert not it.wrong


def test_a_recommendation_writes_nothing_and_says_what_it_would_do(site: Make) -> None:
    it = site(1, mode="recommend")
    it.load.busy = {"models/a": 5.0}
    it.start()
    log = it.folder / "log"
    until("a recommendation", lambda: "would be done: add 1 to the 1 machines of group pool" in log.read_text())
    command = [sys.executable, "-m", "headgate", "run", "run.yaml", "--dry-run"]
    found = subprocess.run(command, cwd=it.folder, capture_output=True, text=True, check=False)
    assert "nodes: recommend" in found.stdout, found.stderr
    assert "group pool: " in found.stdout
    assert it.replicas() == 1
    assert set(it.stages().values()) == {""}


def test_a_node_is_drained_and_deleted_by_name_through_a_crash(site: Make) -> None:
    it = site(3, web=4)
    first = it.start()
    until("a node is cordoned", lambda: "cordoned" in it.stages().values())
    first.kill()
    first.wait()
    it.start()
    until("a machine less", lambda: it.replicas() <= 2)
    until("a node less", lambda: len(it.stages()) <= 2)
    assert it.seen[:2] == ["marked", "cordoned"], it.seen
    assert not it.wrong


def test_a_removal_is_undone_when_the_load_returns(site: Make) -> None:
    it = site(3, web=4)
    it.hold = True
    it.start()
    until("a node is cordoned", lambda: "cordoned" in it.stages().values())
    it.load.busy = {"models/a": 9.0}
    until("everything is taken back", lambda: set(it.stages().values()) == {""})
    assert it.replicas() == 3
    assert "wrong" not in it.seen
    assert not it.wrong
