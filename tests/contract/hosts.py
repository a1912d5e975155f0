"""One harness for each host adapter: pipelines that are served, the adapter, and what the host really does.

To hold another adapter to the contract, write a class with the same methods and add it to KINDS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from tests.cluster import builders as make
from tests.cluster.double.faults import matching
from tests.cluster.harness import Cluster
from tests.cluster.recorder import Recorder, committed

from headgate.adapters.kserve.adapter import KserveAdapter
from headgate.adapters.kserve.settings import KserveSettings
from headgate.adapters.kubernetes.api import Api
from headgate.core.budgets import BudgetSpec, CPUBudget
from headgate.core.hosting import Change, HostAdapter

TOTAL = 2000
GUIDE = Path(__file__).resolve().parents[2] / "docs" / "plugins" / "host-adapters.md"


class Harness(Protocol):
    """Pipelines "a", "b" and "fixed" by these keys of `names`; the adapter does not change what "fixed" has."""

    names: Mapping[str, str]
    budget: CPUBudget
    delays: bool
    """Whether a change is accepted before it is in force."""

    def host(self) -> HostAdapter:
        """A new instance, as another process would have it."""

    def wait(self) -> None:
        """Time passes: what was accepted comes into force."""

    def taken(self) -> Mapping[str, int]:
        """Millicores that each pipeline really takes, by an independent look."""

    def writes(self) -> int:
        """Changes that the host has taken so far."""

    def check(self) -> None:
        """At no instant since the start was the sum above the total, and nothing restarted."""

    def lose_answers(self, times: int) -> bool:
        """Of the next writes the effect takes place and the answer is lost; False: that cannot be."""

    def down(self) -> bool:
        """From now on the host does not answer; False: that cannot be."""

    def accepts(self, change: Change) -> bool:
        """Whether the host takes this very request, were it made now."""

    def close(self) -> None: ...


def _budget(total: int = TOTAL) -> CPUBudget:
    text = {"total": f"{total}m", "mode": "Apply", "pipelines": [{"selector": {}, "namespaces": ["*"]}]}
    return CPUBudget("shared", "models", BudgetSpec.model_validate(text), created="2026-01-01T00:00:00Z")


class InMemory:
    """The example of the guide for those who write adapters."""

    delays = False

    def __init__(self, a: int, b: int) -> None:
        self._code: dict[str, Any] = {}
        exec(_first_block(GUIDE), self._code)
        self.names = {"a": "a", "b": "b", "fixed": "fixed"}
        self.budget = _budget()
        self._grants = _Watched({"a": a, "b": b})

    def host(self) -> HostAdapter:
        made = self._code["InMemory"](self._code["Settings"](services=("a", "b")))
        made.grants = self._grants
        return made  # type: ignore[no-any-return]

    def wait(self) -> None:
        """It obeys at once."""

    def taken(self) -> Mapping[str, int]:
        return dict(self._grants)

    def writes(self) -> int:
        return len(self._grants.sums)

    def check(self) -> None:
        assert all(total <= TOTAL for total in self._grants.sums)

    def lose_answers(self, times: int) -> bool:
        return False

    def down(self) -> bool:
        return False

    def accepts(self, change: Change) -> bool:
        return change.path == f"/grants/{change.pipeline}" and change.body == change.after

    def close(self) -> None:
        """Nothing is open."""


class _Watched(dict[str, int]):
    """Tells the sum after each change."""

    def __init__(self, first: Mapping[str, int]) -> None:
        super().__init__(first)
        self.sums: list[int] = []

    def __setitem__(self, name: str, value: int) -> None:
        super().__setitem__(name, value)
        self.sums.append(sum(self.values()))


def _first_block(path: Path) -> str:
    return path.read_text().partition("```python\n")[2].partition("```")[0]


class KServe:
    """Two services on a node, each with two pods of half its CPUs, and one whose container restarts on a resize."""

    delays = True

    def __init__(self, cluster: Cluster, a: int, b: int, node: str = "8") -> None:
        self.cluster = cluster
        self.names = {key: f"models/{key}" for key in ("a", "b", "fixed")}
        self.now = cluster.kubelets.epoch
        cluster.client.create("nodes", make.node("n1", node))
        cluster.plane.settle()
        note = {"serving.kserve.io/autoscalerClass": "external"}
        for name, cpu in (("a", a), ("b", b)):
            wanted = make.guaranteed(f"{cpu // 2}m")
            service = make.inference_service(name, "models", wanted, annotations=note, minReplicas=2, maxReplicas=2)
            cluster.client.create("inferenceservices", service)
        fixed = make.inference_service("fixed", "models", make.guaranteed("100m"), annotations=note, custom=True)
        fixed["spec"]["predictor"]["containers"][0]["resizePolicy"] = make.restarting()
        cluster.client.create("inferenceservices", fixed)
        cluster.settle()
        self.budget = _budget(TOTAL + 100)
        self.recorder = Recorder(cluster)
        self._first = self._generations()

    def host(self) -> HostAdapter:
        return KserveAdapter(Api(self.cluster.connection(), 5), KserveSettings(), lambda: self.now)

    def wait(self) -> None:
        self.cluster.step()
        self.now = self.cluster.kubelets.epoch + self.cluster.kubelets.now

    def taken(self) -> Mapping[str, int]:
        found: dict[str, int] = {}
        for pod in self.cluster.pods():
            name = f"models/{pod['metadata']['labels']['serving.kserve.io/inferenceservice']}"
            found[name] = found.get(name, 0) + committed(pod)
        return found

    def writes(self) -> int:
        return self._generations() - self._first

    def _generations(self) -> int:
        return sum(pod["metadata"]["generation"] for pod in self.cluster.pods())

    def check(self) -> None:
        self.recorder.check(TOTAL + 100)

    def lose_answers(self, times: int) -> bool:
        if not self.cluster.real:
            self.cluster.faults.drop(matching("write", "/resize"), times=times)
        return not self.cluster.real

    def down(self) -> bool:
        if not self.cluster.real:
            self.cluster.faults.fail(matching(), 503, times=-1)
        return not self.cluster.real

    def accepts(self, change: Change) -> bool:
        code, _ = self.cluster.client.send("PATCH", f"{change.path}?dryRun=All", change.body, change.content_type)
        return code == 200

    def close(self) -> None:
        """The cluster is its fixture's."""


Make = Callable[[int, int], Harness]
KINDS = ("in-memory", "kserve", "kserve-real")
