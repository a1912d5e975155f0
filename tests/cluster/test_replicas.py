"""The number of replicas by minReplicas, under autoscalerClass none."""

from __future__ import annotations

from typing import Any

from tests.cluster import builders as make
from tests.cluster.harness import Cluster
from tests.cluster.recorder import committed

from headgate.adapters.kserve.adapter import KserveAdapter
from headgate.adapters.kserve.settings import KserveSettings
from headgate.adapters.kubernetes.api import Api
from headgate.core.budgets import BudgetSpec, CPUBudget
from headgate.core.hosting import Applied, Order

NONE = {"serving.kserve.io/autoscalerClass": "none"}


class Turns:
    """A service "a" of 500m, and a budget of 4 CPUs that may change its number of replicas."""

    def __init__(self, cluster: Cluster, **predictor: Any) -> None:
        self.cluster = cluster
        cluster.client.create("nodes", make.node("n1"))
        service = make.inference_service("a", "models", make.guaranteed("500m"), annotations=NONE, **predictor)
        cluster.client.create("inferenceservices", service, fieldManager="gitops")
        cluster.settle()
        rules = {"manage": True, "most": "1", "least": "400m"}
        spec = {"total": "4", "mode": "Apply", "pipelines": [{"selector": {}}], "replicas": rules}
        self.budget = CPUBudget("shared", "models", BudgetSpec.model_validate(spec), created="2026-01-01T00:00:00Z")
        self.now = 1_800_000_000.0
        self.host = KserveAdapter(Api(cluster.connection(), 5), KserveSettings(), lambda: self.now)

    def turn(self, grant: int) -> Applied:
        self.host.observe([self.budget])
        order = Order(self.budget, 4000, {"models/a": grant}, {})
        applied = self.host.apply([order], lambda: True)[self.budget.key]
        self.cluster.settle()
        self.now += 1
        return applied

    def turns(self, grant: int) -> list[int]:
        """Until nothing is pending; millicores of each pod."""
        for _ in range(10):
            if not self.turn(grant).pending:
                return sorted(committed(pod) for pod in self.cluster.of("a"))
        raise AssertionError("still pending")

    def predictor(self) -> dict[str, Any]:
        found: dict[str, Any] = self.cluster.client.get("inferenceservices", "a", "models")["spec"]["predictor"]
        return found


def test_min_replicas_follow_the_grant_and_keep_to_max_replicas(cluster: Cluster) -> None:
    it = Turns(cluster, maxReplicas=2)
    assert it.turns(1500) == [750, 750]
    assert it.predictor()["minReplicas"] == 2
    it.now += 61
    assert it.turns(2400) == [1200, 1200], "no third one"
    it.now += 61
    assert it.turns(700) == [700]
    assert it.predictor()["minReplicas"] == 1


def test_min_replicas_of_somebody_else_are_left_to_them(cluster: Cluster) -> None:
    it = Turns(cluster, minReplicas=2, maxReplicas=4)
    assert it.turns(3000) == [1500, 1500]
    assert it.predictor()["minReplicas"] == 2
    refusal = it.host.observe([it.budget])[it.budget.key].refused["models/a replicas"]
    assert refusal.reason == "FieldOwned"
    assert "sets spec.predictor.minReplicas of inferenceservice models/a" in refusal.message
    assert '"gitops"' in refusal.message
