"""`headgate run` as a process in a cluster that goes on by itself, with real kubelets where they can be had.

All pods are read many times a second: the sum of what is asked for, set aside and in force is never above the budget,
no container restarts, and none is replaced by another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cluster import builders as make
from tests.cluster.double.quantities import milli
from tests.cluster.harness import Cluster
from tests.cluster.process import Headgate, Load, budget, until
from tests.cluster.sampler import Sampler
from tests.cluster.scheduler import CORDONED

from headgate.adapters.kserve.adapter import KserveAdapter
from headgate.adapters.kserve.settings import KserveSettings
from headgate.adapters.kubernetes.api import Api
from headgate.core.budgets import BudgetSpec, CPUBudget
from headgate.core.hosting import Applied, Order

NOTE = {"serving.kserve.io/autoscalerClass": "external"}
TOTAL = 4000
RESERVE = 500
"""What a new pod starts with."""

Start = Callable[[], Headgate]


class Scene:
    """Services "a" (one pod), "b" (two) and "c" (one, Burstable) on two nodes, and the load that they have."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        cluster.space("headgate")
        for name, pods, wanted in (
            ("a", 1, make.guaranteed("500m")),
            ("b", 2, make.guaranteed("500m")),
            ("c", 1, make.burstable("500m", "2")),
        ):
            service = make.inference_service(name, "models", wanted, annotations=NOTE, minReplicas=pods)
            cluster.client.create("inferenceservices", service)
        until("all pods run", lambda: sum(map(runs, cluster.pods())) == 4)
        rules = [{"selector": {}, "floor": "100m"}]
        cluster.client.create("cpubudgets", budget("4", reserve="500m", pipelines=rules))
        self.load = Load(folder, {})

    def busy(self, **cores: float) -> None:
        """CPUs that each service is busy with."""
        self.load.busy = {f"models/{name}": value for name, value in cores.items()}

    def amounts(self, name: str) -> tuple[list[int], list[int]]:
        """Millicores that each pod of a service asks for, and has."""
        asked, actual = [], []
        for pod in self.cluster.of(name):
            asked.append(milli(pod["spec"]["containers"][0]["resources"]["requests"]["cpu"]))
            state = (pod["status"].get("containerStatuses") or [{}])[0]
            actual.append(milli((state.get("resources") or {}).get("requests", {}).get("cpu", "0")))
        return asked, actual

    def shrinking(self, name: str) -> bool:
        """Whether less is asked for than is in force."""
        asked, actual = self.amounts(name)
        return any(wanted < has for wanted, has in zip(asked, actual, strict=True))

    def growing(self, name: str) -> bool:
        """Whether more is asked for than is in force."""
        asked, actual = self.amounts(name)
        return any(wanted > has for wanted, has in zip(asked, actual, strict=True))

    def most(self, name: str) -> Callable[[], bool]:
        """Whether this service has more than half of all, and nothing is half-way."""

        def found() -> bool:
            amounts = {each: self.amounts(each) for each in ("a", "b", "c")}
            return sum(amounts[name][1]) > TOTAL / 2 and all(asked == actual for asked, actual in amounts.values())

        return found

    def close(self) -> None:
        self.load.close()


def runs(pod: dict[str, Any]) -> bool:
    return bool(pod["status"].get("phase") == "Running")


@pytest.fixture
def scene(town: Cluster, tmp_path: Path) -> Iterator[Scene]:
    made = Scene(town, tmp_path)
    yield made
    made.close()


@pytest.fixture
def start(scene: Scene, tmp_path: Path) -> Iterator[Start]:
    made: list[Headgate] = []

    def start() -> Headgate:
        made.append(Headgate(scene.cluster, tmp_path, scene.load))
        return made[-1]

    yield start
    for one in made:
        one.close()


def test_cpus_move_to_and_fro_while_leaders_are_killed_and_new_pods_are_sized(scene: Scene, start: Start) -> None:
    # Of 3.5 CPUs who has five times the load of each of the others has 2.5.
    scene.busy(a=0.5, b=0.5, c=2.5)
    sampler = Sampler(scene.cluster, TOTAL)
    first = start()
    until("c has most", scene.most("c"))

    second = start()
    scene.busy(a=2.5, b=0.5, c=0.5)
    until("a has most", scene.most("a"))

    # Killed when a shrink has been asked for, before anything can grow: the one that waits goes on.
    scene.busy(a=0.5, b=2.5, c=0.5)
    until("a shrinks", lambda: scene.shrinking("a"))
    first.kill()
    start()
    until("b has most", scene.most("b"))

    # Killed when growth has been asked for.
    scene.busy(a=0.5, b=0.5, c=2.5)
    until("c grows", lambda: scene.growing("c") or scene.most("c")())
    second.kill()
    until("c has most again", scene.most("c"))

    # A new pod starts with what its template says, out of the reserve, and has its share soon after.
    scene.cluster.client.patch("deployments", "b-predictor", "models", {"spec": {"replicas": 3}}, sub="scale")
    until("the new pod is sized", lambda: len(has := scene.amounts("b")[1]) == 3 and 0 < min(has) <= max(has) < 300)

    sampler.close()
    assert sampler.most.taken > TOTAL - 2 * RESERVE, "it saw the CPUs"
    assert sampler.moves >= 12


class Alone:
    """A service "a" of 500m that is kept on one node, where another's pod takes 3 of 4 CPUs; turned by hand."""

    def __init__(self, cluster: Cluster, node: str = "n1", **settings: Any) -> None:
        self.cluster = cluster
        here: dict[str, Any] = {"nodeSelector": {"kubernetes.io/hostname": node}}
        here["tolerations"] = [{"key": CORDONED, "operator": "Exists"}]
        service = make.inference_service("a", "models", make.guaranteed("500m"), annotations=NOTE, **here)
        cluster.client.create("inferenceservices", service)
        other = make.container("main", make.burstable("3"))
        cluster.client.create("pods", make.pod("other", other, **here))
        until("both run", lambda: sum(map(runs, cluster.pods())) == 2)
        spec = {"total": "4", "mode": "Apply", "pipelines": [{"selector": {}}]}
        self.budget = CPUBudget("shared", "models", BudgetSpec.model_validate(spec), created="2026-01-01T00:00:00Z")
        self.host = KserveAdapter(Api(cluster.connection(), 5), KserveSettings(**settings))
        self.sampler = Sampler(cluster, TOTAL)

    def pod(self) -> dict[str, Any]:
        (pod,) = self.cluster.of("a")
        return pod

    def asked(self) -> str:
        return str(self.pod()["spec"]["containers"][0]["resources"]["requests"]["cpu"])

    def actual(self) -> str:
        return str(self.pod()["status"]["containerStatuses"][0]["resources"]["requests"]["cpu"])

    def waits(self) -> list[str]:
        return [one["reason"] for one in self.pod()["status"]["conditions"] if one["type"] == "PodResizePending"]

    def turn(self, grant: int) -> Applied:
        self.host.observe([self.budget])
        order = Order(self.budget, 2 * TOTAL, {"models/a": grant}, {})
        return self.host.apply([order], lambda: True)[self.budget.key]

    def refused(self, grant: int) -> str:
        refusal = self.turn(grant).refused.get("models/a")
        return refusal.reason if refusal else ""


def test_a_full_node_puts_a_growth_off_until_there_is_room(town: Cluster) -> None:
    it = Alone(town, namespaces=("models",))  # it looks at no nodes: the kubelet has to say it
    it.turn(2000)
    until("the kubelet has no room", lambda: it.waits() == ["Deferred"])
    waiting = it.turn(2000)
    assert waiting.granted == {"models/a": 2000}, "what is asked for is kept for it while it waits"
    assert "Deferred" in waiting.pending["models/a"]
    town.client.delete("pods", "other", "default", grace=0)
    until("there is room", lambda: it.actual() == "2")
    assert not it.turn(2000).pending
    it.sampler.close()


def test_what_waits_for_too_long_is_taken_back(town: Cluster) -> None:
    it = Alone(town, namespaces=("models",), patience=1.0)
    it.turn(2000)
    until("it is given up", lambda: it.refused(2000) == "Deferred")
    until("it is as it was", lambda: (it.asked(), it.actual(), it.waits()) == ("500m", "500m", []))
    assert it.refused(2000) == "Deferred"
    assert it.asked() == "500m", "not again at once"
    it.sampler.close()


def test_what_a_kubelet_will_never_do_is_taken_back_at_once(town: Cluster) -> None:
    it = Alone(town, "static", namespaces=("models",))
    it.turn(900)
    until("the kubelet never will", lambda: it.waits() == ["Infeasible"])
    assert it.refused(900) == "Infeasible"
    until("it is as it was", lambda: (it.asked(), it.actual(), it.waits()) == ("500m", "500m", []))
    assert it.refused(900) == "Infeasible"
    assert it.asked() == "500m", "not again at once"
    it.sampler.close()
