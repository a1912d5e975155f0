"""A cluster whose nodes `headgate run` scales: infrastructure, a service "a" that headgate sizes, and "web", which is
not headgate's and under a PodDisruptionBudget. Writes down in `wrong` what must never happen and did."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from headgate.adapters.kubernetes.nodes_read import CORDONED, TAINT

from . import builders as make
from .harness import Cluster
from .infrastructure import MachineDeployment, Nodes
from .process import Load, until

Object = dict[str, Any]
Build = Callable[[Cluster, Callable[[str], None], int], Nodes]
NOTE = {"serving.kserve.io/autoscalerClass": "external"}
LIMITS = {"name": "pool", "minimum": 1, "maximum": 3}
HURRY = {
    "up_after": "1s",
    "down_after": "1s",
    "window": "2s",
    "delay_after_add": "1s",
    "delay_after_failure": "1s",
    "provisioning_timeout": "2s",
    "backoff": "1s",
    "backoff_most": "1s",
}


class Site:
    """Nodes of 4 CPUs, from 1 to 3 of them."""

    def __init__(
        self,
        cluster: Cluster,
        folder: Path,
        size: int,
        build: Build = MachineDeployment,
        web: int = 0,
        group: Object | None = None,
        token: str = "",
        **nodes: Any,
    ) -> None:
        self.cluster, self.folder, self.client = cluster, folder, cluster.client
        for space in ("headgate", "capi"):
            cluster.space(space)
        self.wrong: list[str] = []
        self.seen: list[str] = []
        self.hold = False
        """Whether kubelets end no pods."""
        self.infrastructure = build(cluster, self._given_up, size)
        self.infrastructure.settle()
        cluster.plane.settle()
        service = make.inference_service("a", "models", make.guaranteed("500m"), annotations=NOTE)
        self.client.create("inferenceservices", service)
        if web:
            self.client.create("deployments", _web(web))
            self.client.create("poddisruptionbudgets", _disruption(), "models")
        cluster.settle(30)
        self.client.create("cpubudgets", _budget(), "headgate")
        self.load = Load(folder, {"models/a": 0.2})
        (folder / "kubeconfig").write_text(json.dumps(cluster.kubeconfig(token)))
        access = {"kubeconfig": "kubeconfig"}
        lease = {"duration": "2s", "deadline": "1s", "retry": "200ms"}
        self.settings: Object = {
            "interval": "300ms",
            "listen": "127.0.0.1:0",
            "host": {"kind": "kserve", **access},
            "home": {"kind": "kubernetes", "namespace": "headgate", "lease": lease, **access},
            "sources": [{"kind": "file", "path": self.load.path.name, "every": "200ms"}],
            "nodes": {
                "mode": "apply",
                "interval": "300ms",
                "soak": "500ms",
                "provider": self.infrastructure.provider(LIMITS, access),
                "groups": [{**LIMITS, **HURRY, "signals": ["requests", "demand"], **(group or {})}],
                **nodes,
            },
        }
        (folder / "run.yaml").write_text(yaml.safe_dump(self.settings))
        self.processes: list[subprocess.Popen[bytes]] = []
        self.log = folder / "log"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._live)
        self._thread.start()

    # The cluster's side ----------------------------------------------------------------------------------------------

    def _live(self) -> None:
        while not self._stop.wait(0.1):
            self.infrastructure.settle()
            if not LIMITS["minimum"] <= (size := self.infrastructure.size()) <= LIMITS["maximum"]:
                self.wrong.append(f"{size} machines")
            self._disruption()
            self.cluster.kubelets.default.deaf = self.hold
            self.cluster.step(0.5)
            self._watch()

    def _given_up(self, node: str) -> None:
        self.wrong += [f"{node} was given up with {pod}" for pod in self.on(node)]

    def _disruption(self) -> None:
        """What the disruption controller does."""
        for budget in self.client.list("poddisruptionbudgets", "models"):
            pods = [p for p in self.cluster.pods(app="web") if not p["metadata"].get("deletionTimestamp")]
            ready, least = sum(p["status"].get("phase") == "Running" for p in pods), budget["spec"]["minAvailable"]
            status = {
                "observedGeneration": budget["metadata"]["generation"],
                "disruptionsAllowed": max(0, ready - least),
                "currentHealthy": ready,
                "desiredHealthy": least,
                "expectedPods": len(pods),
            }
            if any((budget.get("status") or {}).get(key) != value for key, value in status.items()):
                self.client.status("poddisruptionbudgets", budget["metadata"]["name"], "models", status)
            if ready < least:
                self.wrong.append(f"{ready} pods of web are left")

    def _watch(self) -> None:
        for node in self.client.list("nodes"):
            now = self.stage(node)
            if now and (not self.seen or self.seen[-1] != now):
                self.seen.append(now)

    # What the tests look at ------------------------------------------------------------------------------------------

    @staticmethod
    def stage(node: Object) -> str:
        taints = [t["key"] for t in node["spec"].get("taints") or () if t["effect"] == "PreferNoSchedule"]
        if CORDONED in (node["metadata"].get("annotations") or {}):
            return "cordoned" if node["spec"].get("unschedulable") and TAINT in taints else "wrong"
        return "marked" if TAINT in taints else ""

    def stages(self) -> dict[str, str]:
        return {n["metadata"]["name"]: self.stage(n) for n in self.client.list("nodes")}

    def size(self) -> int:
        return self.infrastructure.size()

    def on(self, node: str) -> list[str]:
        """Pods on a node; placeholders have nothing to lose."""
        there = [p["metadata"] for p in self.cluster.pods() if p["spec"].get("nodeName") == node]
        return [meta["name"] for meta in there if "headgate.dev/placeholder" not in (meta.get("labels") or {})]

    def start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "headgate", "run", "run.yaml", "--apply"]
        with self.log.open("ab") as log:
            process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def kill(self) -> None:
        """As the kernel does when memory runs out: no chance to clean up."""
        self.processes[-1].kill()
        self.processes[-1].wait()

    def read(self, path: str) -> str:
        """What the last process answers."""
        address = self.log.read_text().rpartition("listening on ")[2].split()[0]
        with urllib.request.urlopen(f"{address}{path}", timeout=10) as answer:
            return str(answer.read().decode())

    def phase(self) -> str:
        """How far the process says that the removal is; "": there is none, or nobody answers yet."""
        try:
            removals = json.loads(self.read("/status")).get("nodes", {}).get("removals", {})
        except (OSError, IndexError):
            return ""
        return next((str(removal["phase"]) for removal in removals.values()), "")

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()
        self._stop.set()
        self._thread.join()
        self.load.close()
        self.infrastructure.close()

    def busy(self, cores: float) -> None:
        self.load.busy = {"models/a": cores}

    def shrinks_to(self, size: int) -> None:
        until(f"{size} machines", lambda: self.size() <= size)
        until(f"{size} nodes", lambda: len(self.stages()) <= size)


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


def _budget() -> Object:
    rule = {"selector": {}, "namespaces": ["*"], "floor": "100m"}
    spec = {"mode": "Apply", "nodes": {}, "pipelines": [rule], "calm": {"stabilisation": "1s", "noise": 0}}
    about = {"apiVersion": "headgate.dev/v1alpha1", "kind": "CPUBudget", "metadata": {"name": "all"}}
    return {**about, "spec": spec}
