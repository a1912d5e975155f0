"""`headgate run` as a process, KServe's pods under it: CPUs move by load, and nobody is ever restarted."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml
from tests.cluster import builders as make
from tests.cluster.harness import Cluster

from headgate.core.units import parse_cpu

EXTERNAL = {"serving.kserve.io/autoscalerClass": "external"}
METRICS = "metrics.k8s.io/v1beta1/pods"
COST = 0.1
"""CPU seconds of a request."""


class Site:
    """A cluster with two services of 2 CPUs together, a file that says their load, and kubelets that go on."""

    source: ClassVar[dict[str, Any]] = {"kind": "file", "path": "load.csv"}

    custom = False
    calm: ClassVar[dict[str, Any]] = {"stabilisation": 0, "noise": 0}
    more: ClassVar[dict[str, Any]] = {}
    """Of the budget's spec."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        cluster.space("headgate")
        cluster.client.create("nodes", make.node("n1"))
        for name, cpu in (("a", "1500m"), ("b", "500m")):
            service = make.inference_service(
                name, "models", make.guaranteed(cpu), annotations=EXTERNAL, custom=self.custom
            )
            cluster.client.create("inferenceservices", service)
        cluster.settle()
        (folder / "kubeconfig").write_text(json.dumps(cluster.kubeconfig()))
        self.load(a=1, b=5)
        settings = {
            "interval": "500ms",
            "host": {"kind": "kserve", "kubeconfig": "kubeconfig"},
            "home": {
                "kind": "kubernetes",
                "kubeconfig": "kubeconfig",
                "namespace": "headgate",
                "lease": {"duration": "3s", "deadline": "1s", "retry": "200ms"},
            },
            "sources": [{"every": "200ms", "stale": "60s", **self.source}],
        }
        (folder / "run.yaml").write_text(yaml.safe_dump(settings))
        body = {
            "apiVersion": "headgate.dev/v1alpha1",
            "kind": "CPUBudget",
            "metadata": {"name": "main", "namespace": "models"},
            "spec": {
                "total": "2",
                "mode": "Apply",
                "pipelines": [{"selector": {}, "floor": "100m"}],
                "calm": self.calm,
                **self.more,
            },
        }
        cluster.client.create("cpubudgets", body)
        self.sums: list[int] = []
        self.processes: list[subprocess.Popen[str]] = []
        self._stop = threading.Event()
        self._kubelets = threading.Thread(target=self._live)
        self._kubelets.start()

    def load(self, **rates: float) -> None:
        """Requests per second of each service."""
        rows = [f"models/{name},10,{10 * r},{10 * r},{10 * r * COST}" for name, r in rates.items()]
        fresh = self.folder / "load.new"
        fresh.write_text("\n".join(["pipeline,window,arrivals,completions,cpu_seconds", *rows]) + "\n")
        fresh.replace(self.folder / "load.csv")

    def _live(self) -> None:
        while not self._stop.wait(0.1):
            self.cluster.step(0.5)
            self.measure()
            self.sums.append(sum(max(self.asked(n), self.actual(n)) for n in ("a", "b")))

    def measure(self) -> None:
        """Once more, the same."""
        os.utime(self.folder / "load.csv")

    def asked(self, name: str) -> int:
        return sum(_request(pod["spec"]["containers"][0]) for pod in self.cluster.of(name))

    def actual(self, name: str) -> int:
        return sum(_request(c) for pod in self.cluster.of(name) for c in pod["status"].get("containerStatuses", ())[:1])

    def command(self, *options: str) -> list[str]:
        return [sys.executable, "-m", "headgate", "run", "run.yaml", *options]

    def start(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            self.command("--apply"), cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.processes.append(process)
        return process

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.cluster.client.get("cpubudgets", "main", "models").get("status") or {}
        return found

    def condition(self, kind: str) -> str:
        return next((c["reason"] for c in self.status().get("conditions", ()) if c["type"] == kind), "")

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.communicate()
        self._stop.set()
        self._kubelets.join()


class Metered(Site):
    """Its only source is the metrics API: nobody counts requests."""

    source: ClassVar[dict[str, Any]] = {
        "kind": "kubernetes",
        "kubeconfig": "kubeconfig",
        "container": "kserve-container",
    }
    needs: ClassVar[dict[str, int]] = {"a": 200, "b": 1200}
    """Millicores that each uses if it has them."""

    def measure(self) -> None:
        client = self.cluster.client
        for name, need in self.needs.items():
            (pod,) = self.cluster.of(name)
            meta = {key: pod["metadata"][key] for key in ("name", "namespace", "labels")}
            measured = {
                "timestamp": datetime.now(UTC).isoformat(),
                "window": "1s",
                "containers": [
                    {"name": "kserve-container", "usage": {"cpu": f"{min(need, self.actual(name))}m"}},
                    {"name": "agent", "usage": {"cpu": "400m"}},
                ],
            }
            if client.find(METRICS, meta["name"], meta["namespace"]) is None:
                kind = {"apiVersion": "metrics.k8s.io/v1beta1", "kind": "PodMetrics"}
                client.create(METRICS, {**kind, "metadata": meta, **measured})
            else:
                client.patch(METRICS, meta["name"], meta["namespace"], measured)


def _request(container: dict[str, Any]) -> int:
    """Millicores that a container, or its status, asks for."""
    return parse_cpu(container["resources"]["requests"]["cpu"])


@pytest.fixture
def site(cluster: Cluster, tmp_path: Path) -> Iterator[Site]:
    made = Site(cluster, tmp_path)
    yield made
    made.close()


def until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + 45
    while not condition():
        assert time.monotonic() < end, "never happened"
        time.sleep(0.05)


def test_cpus_follow_the_load_through_a_crash_and_a_pause(site: Site) -> None:
    names = [pod["metadata"]["name"] for pod in site.cluster.pods()]
    first = site.start()
    # Proportional: 2 CPUs for loads of 0.1 and 0.5 in steps of 10m: 2 / 6 = 0.333.
    until(lambda: (site.actual("a"), site.actual("b")) in ((330, 1670), (340, 1660)))
    until(lambda: site.condition("Applied") == "InForce")
    assert {c["status"] for c in site.status()["conditions"] if c["type"] in ("Accepted", "Ready")} == {"True"}
    events = site.cluster.client.list("events", "models")
    assert any(e["reason"] == "CPUsMoved" for e in events)

    # Killed in the middle of a move: the next process finishes it.
    site.load(a=5, b=1)
    until(lambda: site.asked("b") < 1000)
    first.kill()
    first.communicate()
    second = site.start()
    until(lambda: (site.actual("b"), site.actual("a")) in ((330, 1670), (340, 1660)))

    site.cluster.client.patch("cpubudgets", "main", "models", {"spec": {"paused": True}})
    until(lambda: site.condition("Paused") == "Paused")
    site.load(a=1, b=5)
    written = site.asked("a")
    until(lambda: next(p["wanted"] for p in site.status()["pipelines"] if p["name"] == "models/a")[:2] in ("33", "34"))
    assert site.asked("a") == written, "wanted is told, nothing is changed"
    site.cluster.client.patch("cpubudgets", "main", "models", {"spec": {"paused": False}})
    until(lambda: site.actual("a") in (330, 340))

    second.send_signal(signal.SIGTERM)
    _, log = second.communicate(timeout=30)
    assert second.returncode == 0, log
    assert site.cluster.client.get("leases", "headgate", "headgate")["spec"].get("holderIdentity", "") == ""
    assert max(site.sums) <= 2000
    assert [pod["metadata"]["name"] for pod in site.cluster.pods()] == names
    assert all(c["restartCount"] == 0 for pod in site.cluster.pods() for c in pod["status"]["containerStatuses"])


def test_cpus_follow_the_metrics_api_where_nothing_else_is_known(double: Cluster, tmp_path: Path) -> None:
    site = Metered(double, tmp_path)
    try:
        site.start()
        # b uses all of its 500m at first; a needs 200m of its 1500m.
        until(lambda: site.actual("b") >= 1200)
        until(lambda: site.condition("Applied") == "InForce")
        rows = {p["name"]: p for p in site.status()["pipelines"]}
        assert all("by the CPU in use alone" in row["reason"] for row in rows.values())
        assert parse_cpu(rows["models/b"]["used"]) <= 1200
        assert site.actual("a") >= 200
        assert max(site.sums) <= 2000
    finally:
        site.close()


class Rolling(Site):
    """Grants that stood for a second become the services' own setting, and have four to succeed."""

    custom = True
    more: ClassVar[dict[str, Any]] = {
        "total": "4",
        "pipelines": [{"selector": {}, "floor": "100m", "ceiling": "700m"}],
        "template": {"write": True, "after": "1s", "timeout": "4s"},
    }


def test_a_setting_is_restored_by_the_process_after_the_one_that_was_killed(double: Cluster, tmp_path: Path) -> None:
    site = Rolling(double, tmp_path)

    def setting(name: str) -> str:
        found = double.client.get("inferenceservices", name, "models")["spec"]["predictor"]["containers"]
        return str(found[0]["resources"]["requests"]["cpu"])

    earlier = {"a": setting("a"), "b": setting("b")}
    double.client.patch("nodes", "n1", "", {"spec": {"unschedulable": True}})  # no new pod is ever ready
    try:
        first = site.start()
        until(lambda: {"a": setting("a"), "b": setting("b")} != earlier)
        first.kill()
        first.communicate()
        site.start()
        until(lambda: {"a": setting("a"), "b": setting("b")} == earlier)
        until(lambda: "RolloutFailed" in {r["reason"] for r in site.status().get("refused", ())})
    finally:
        site.close()


def test_what_a_dry_run_prints_is_what_kubectl_takes(site: Site) -> None:
    found = subprocess.run(
        site.command("--dry-run", "-o", "json"), cwd=site.folder, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    changes = json.loads(found.stdout)["models/main"]["changes"]
    assert [change["pipeline"] for change in changes] == ["models/a", "models/b"], "the shrink comes first"
    assert site.cluster.client.find("leases", "headgate", "headgate") is None
    assert site.cluster.client.list("configmaps", "headgate") == [] or site.cluster.real
    assert site.status() == {}
    kubectl = shutil.which("kubectl", path=os.environ.get("KUBEBUILDER_ASSETS", ""))
    if kubectl is None or not site.cluster.real:
        return
    for change in changes:
        line = change["command"].replace("kubectl", f"{kubectl} --kubeconfig kubeconfig", 1) + " --dry-run=server"
        answer = subprocess.run(line, shell=True, cwd=site.folder, capture_output=True, text=True, check=False)
        assert answer.returncode == 0, answer.stderr
    assert (site.asked("a"), site.asked("b")) == (1500, 500)
