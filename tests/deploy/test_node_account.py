"""The node scaler with the permissions of the manifests and no others: it adds, it removes, nothing is forbidden."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.harness import Cluster
from tests.cluster.infrastructure import MachineDeployment, NodePool, OwnAutoscaler
from tests.cluster.process import until
from tests.cluster.site import Site

from .files import MANIFESTS, manifests, objects
from .test_account import PLURALS, TOKEN

KINDS: dict[str, Any] = {
    "cluster-api": MachineDeployment,
    "karpenter": NodePool,
    "capacity": partial(OwnAutoscaler, buffers=False),
}
Make = Callable[..., Site]


@pytest.fixture
def site(closest: Cluster, tmp_path: Path) -> Iterator[Make]:
    made: list[Site] = []

    def make(provider: str, without: str = "") -> Site:
        made.append(Site(closest, tmp_path, 2, build=KINDS[provider], web=4, token=TOKEN))
        nodes = objects(MANIFESTS / "nodes" / "rbac.yaml", MANIFESTS / "nodes" / f"{provider}.yaml")
        for found in (*manifests("cluster"), *nodes):
            if found["kind"] in PLURALS:
                kept = [rule for rule in found.get("rules", ()) if without not in rule["resources"]]
                closest.client.create(PLURALS[found["kind"]], {**found, "rules": kept} if "rules" in found else found)
        closest.plane.settle()
        return made[-1]

    yield make
    for one in made:
        one.close()


def refused(it: Site) -> set[str]:
    """What was answered 401 or 403."""
    return set(re.findall(r'headgate_api_requests_total{code="40[13]"[^}]*} [1-9].*', it.read("/metrics")))


@pytest.mark.parametrize("provider", KINDS)
def test_the_account_may_do_all_that_it_does(site: Make, provider: str) -> None:
    it = site(provider)
    it.busy(5.0)
    it.start()
    until("a node more", lambda: len(it.stages()) == 3)
    it.busy(0.2)
    it.shrinks_to(2)
    until("it is told", lambda: any(e["reason"] == "RemovalDeleting" for e in it.client.list("events", "default")))
    until("it is done", lambda: not it.phase())
    metrics = it.read("/metrics")
    assert re.search(r'headgate_api_requests_total{code="200",part="nodes"', metrics)
    assert not refused(it)
    assert "forbidden" not in it.log.read_text().lower()
    command = [sys.executable, "-m", "headgate", "doctor", "run.yaml", "-o", "json"]
    doctor = subprocess.run(command, cwd=it.folder, capture_output=True, text=True, check=False)
    found = {each["check"]: each["outcome"] for each in json.loads(doctor.stdout)}
    assert found.get("node group pool") == "ok", doctor.stdout
    assert not it.wrong


@pytest.mark.parametrize("resource", ["pods/eviction", "machines"])
def test_a_permission_that_is_missing_shows_and_nothing_is_deleted(site: Make, resource: str) -> None:
    """Of the test above: it would notice."""
    it = site("cluster-api", without=resource)
    it.start()
    until("it is refused", lambda: "listening on" in it.log.read_text() and bool(refused(it)))
    assert it.size() == 2
    assert not it.wrong
