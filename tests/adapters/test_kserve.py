"""The KServe adapter against the double: kubelets, KServe and its neighbours do their part step by step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.cluster import builders as make
from tests.cluster.harness import Cluster, Double

from headgate.adapters.kserve.adapter import KserveAdapter
from headgate.adapters.kserve.settings import KserveSettings
from headgate.adapters.kubernetes.api import Api
from headgate.core.budgets import BudgetSpec, CPUBudget
from headgate.core.hosting import Applied, Inventory, Order

Object = dict[str, Any]
EXTERNAL = {"serving.kserve.io/autoscalerClass": "external"}


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    made = Cluster(Double())
    made.install()
    made.space()
    yield made
    made.close()


class Turns:
    """What the controller does, with grants that the test decides on, and the budget watched at every write."""

    def __init__(self, cluster: Cluster, total: str = "2", rules: list[Object] | None = None, **spec: Any) -> None:
        self.cluster = cluster
        self.now = 1_800_000_000.0
        self.settings = KserveSettings(**spec.pop("host", {}))
        text = {"total": total, "pipelines": rules or [{"selector": {}}], "mode": "Apply", **spec}
        self.budget = CPUBudget("shared", "models", BudgetSpec.model_validate(text), created="2026-01-01T00:00:00Z")
        self.host = self.restarted()

    def restarted(self) -> KserveAdapter:
        """A new process."""
        self.host = KserveAdapter(Api(self.cluster.connection(), 5), self.settings, lambda: self.now)
        return self.host

    def observe(self) -> Inventory:
        return self.host.observe([self.budget])[self.budget.key]

    def apply(self, grants: dict[str, int], dry_run: bool = False, **replicas: int) -> Applied:
        assert self.budget.spec.total is not None
        order = Order(self.budget, self.budget.spec.total, grants, replicas)
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
