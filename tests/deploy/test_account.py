"""The controller with the permissions of the manifests and no others: it does everything, needs each of them, and
nothing is forbidden."""

from __future__ import annotations

import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cluster import builders as make
from tests.cluster.harness import HEADGATE, Cluster
from tests.cluster.process import PATIENCE, Load, budget, until
from tests.controller.test_plugins import invoke

from .files import VARIANTS, grants, manifests, rules, settings
from .test_monitoring import used_by_alerts, used_by_the_dashboard

TOKEN = "headgate-t0ken"
"""Of the account "headgate" in the namespace "headgate"."""
PLURALS = {kind: f"{kind.lower()}s" for kind in ("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")}


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Load]:
    made = Load(tmp_path, {"models/a": 0.1, "models/b": 1.4})
    yield made
    made.close()


class Controller:
    """`headgate run` by the manifest's own settings, reached from outside the cluster and in more of a hurry."""

    def __init__(self, cluster: Cluster, variant: str, load: Load, folder: Path) -> None:
        (folder / "kubeconfig").write_text(yaml.safe_dump(cluster.kubeconfig(TOKEN)))
        found = settings(variant)
        found["host"]["kubeconfig"] = found["home"]["kubeconfig"] = "kubeconfig"
        found["home"]["lease"] |= {"duration": "3s", "deadline": "1s", "retry": "500ms"}
        found |= {"listen": "127.0.0.1:0", "interval": "500ms", "state": {"learned": "1s"}}
        found["sources"] = [{"kind": "file", "path": load.path.name, "every": "200ms"}]
        (folder / "headgate.yaml").write_text(yaml.safe_dump(found))
        command = [sys.executable, "-m", "headgate", "run", "headgate.yaml", "--apply"]
        self._log = (folder / "headgate.log").open("w+")
        self.process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=self._log, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("listening on "), self.log()
        self._url = line.removeprefix("listening on ").strip()

    def log(self) -> str:
        return Path(self._log.name).read_text()

    def metrics(self) -> str:
        with urllib.request.urlopen(f"{self._url}/metrics", timeout=10) as answer:
            return str(answer.read().decode())

    def end(self) -> int:
        self.process.terminate()
        self.process.communicate(timeout=PATIENCE)
        return self.process.returncode

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()
        self._log.close()


def populate(cluster: Cluster, total: str = "2", **spec: Any) -> None:
    """Two services on one node, and a budget for them."""
    cluster.space("headgate")
    cluster.client.create("nodes", make.node("n1"))
    cluster.plane.settle()
    note = {"serving.kserve.io/autoscalerClass": "external"}
    for name, cpu in (("a", "1500m"), ("b", "500m")):
        service = make.inference_service(name, "models", make.guaranteed(cpu), annotations=note)
        cluster.client.create("inferenceservices", service)
    cluster.settle()
    cluster.client.create("cpubudgets", budget(total, **spec))
    cluster.kubelets.start()


def allow(cluster: Cluster, variant: str, without: str = "", more: str = "") -> None:
    """What the manifests allow, the rules for a resource aside, and everywhere what another file of rules does."""
    for found in manifests(variant):
        if found["kind"] in PLURALS:
            kept = [rule for rule in found.get("rules", ()) if without not in rule["resources"]]
            if more and found["kind"] == "ClusterRole":
                kept += rules(more)
            body = {**found, "rules": kept} if "rules" in found else found
            cluster.client.create(PLURALS[found["kind"]], body)
    cluster.plane.settle()


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_account_may_do_all_that_it_does(cluster: Cluster, variant: str, load: Load, tmp_path: Path) -> None:
    populate(cluster)
    allow(cluster, variant)
    running = Controller(cluster, variant, load, tmp_path)
    try:
        until("CPUs move", lambda: _asked(cluster, "b") not in ("500m", ""))
        until("it is told", lambda: any(e["reason"] == "CPUsMoved" for e in cluster.client.list("events", "models")))
        until("the state is kept", lambda: len(_state(cluster)) >= 2)
        until("all is in force", lambda: _applied(cluster) == "InForce")
        metrics = running.metrics()
        command = [sys.executable, "-m", "headgate", "doctor", "headgate.yaml"]
        doctor = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False).stdout
        assert "may patch pods/resize" in doctor
        assert "not allowed" not in doctor
        for command in ("pause", "resume"):
            code, out, err = invoke(command, str(tmp_path / "headgate.yaml"))
            assert code == 0, out + err
        assert running.end() == 0, running.log()
    finally:
        running.close()
    codes = set(re.findall(r'headgate_api_requests_total{code="(\d+)"', metrics))
    assert "200" in codes
    assert not codes & {"401", "403"}, running.log()
    assert "forbidden" not in running.log().lower()
    exported = set(re.findall(r"^# TYPE (\w+)", metrics, re.MULTILINE))
    assert used_by_alerts() | used_by_the_dashboard() <= exported
    if not cluster.real:
        given = {grant for found in manifests(variant) for grant in grants(found.get("rules", ()))}
        # An event is patched where it is told again in the same words, which nothing here is.
        assert given - cluster.plane.server.machine.authority.used[HEADGATE.name] == {("", "events", "patch")}


@pytest.mark.parametrize("resource", ["pods/resize", "cpubudgets/status", "leases"])
def test_a_permission_that_is_missing_shows(double: Cluster, resource: str, load: Load, tmp_path: Path) -> None:
    """Of the test above: it would notice."""
    populate(double)
    allow(double, "cluster", without=resource)
    running = Controller(double, "cluster", load, tmp_path)
    try:
        until("it is refused", lambda: 'code="403"' in running.metrics())
    finally:
        running.close()


@pytest.mark.parametrize("allowed", [True, False])
@pytest.mark.parametrize("path", ["template", "replicas"])
def test_the_slower_paths_need_their_own_rules(
    double: Cluster, path: str, allowed: bool, load: Load, tmp_path: Path
) -> None:
    """1500m for each, twice that to spare: room for a rollout, and for one replica more of "b"."""
    how = {"template": {"write": True, "after": "1s"}, "replicas": {"manage": True, "most": "1"}}
    populate(double, "6", pipelines=[{"selector": {}, "ceiling": "1500m"}], **{path: how[path]})
    allow(double, "cluster", more=path if allowed else "")
    running = Controller(double, "cluster", load, tmp_path)
    try:
        if not allowed:
            until("it is refused", lambda: 'code="403"' in running.metrics())
        elif path == "replicas":
            until(
                "another replica",
                lambda: double.client.get("deployments", "b-predictor", "models")["spec"]["replicas"] == 2,
            )
        else:  # the test's own services have set the field: the server says so to who may write it
            until("it is somebody else's", lambda: "FieldOwned" in _refused(double))
        assert ('code="403"' in running.metrics()) is not allowed, running.log()
    finally:
        running.close()


def _refused(cluster: Cluster) -> set[str]:
    status = cluster.client.get("cpubudgets", "shared", "models").get("status") or {}
    return {each["reason"] for each in status.get("refused", ())}


def _asked(cluster: Cluster, name: str) -> str:
    (pod,) = cluster.of(name)
    return str(pod["spec"]["containers"][0]["resources"]["requests"]["cpu"])


def _state(cluster: Cluster) -> list[str]:
    names = [found["metadata"]["name"] for found in cluster.client.list("configmaps", "headgate")]
    return [name for name in names if name.startswith("headgate-state-headgate-")]


def _applied(cluster: Cluster) -> str:
    status = cluster.client.get("cpubudgets", "shared", "models").get("status") or {}
    return next((c["reason"] for c in status.get("conditions", ()) if c["type"] == "Applied"), "")
