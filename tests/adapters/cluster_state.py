"""Pods as the API shows them, and a kubelet that does what is asked when a test lets it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from headgate.adapters.kubernetes.pods import Pod, Qos, read_pod
from headgate.adapters.kubernetes.resize import Step

MEMORY = {"Guaranteed": ("1Gi", "1Gi"), "Burstable": ("512Mi", "1Gi")}


@dataclass
class Virtual:
    """One pod: what is asked for, admitted and in force."""

    name: str
    node: str
    spec: tuple[int | None, int | None]
    qos: Qos = Qos.GUARANTEED
    allocated: int = 0
    actual: tuple[int | None, int | None] = (0, 0)
    generation: int = 1
    observed: int = 1
    version: int = 1
    condition: tuple[str, str, float] | None = None
    deleting: bool = False

    def __post_init__(self) -> None:
        self.allocated = self.spec[0] or 0
        self.actual = self.spec

    @property
    def taken(self) -> int:
        asked = 0 if self.infeasible else self.spec[0] or 0
        return max(asked, self.allocated, self.actual[0] or 0)

    @property
    def infeasible(self) -> bool:
        return self.condition is not None and self.condition[1] == "Infeasible" and self.observed == self.generation

    def raw(self) -> dict[str, Any]:
        memory = MEMORY.get(str(self.qos), MEMORY["Burstable"])
        conditions = []
        if self.condition is not None:
            kind, reason, since = self.condition
            time = f"1970-01-01T{int(since) // 3600:02d}:{int(since) // 60 % 60:02d}:{int(since) % 60:02d}Z"
            conditions = [
                {"type": kind, "status": "True", "reason": reason, "lastTransitionTime": time,
                 "observedGeneration": self.observed}
            ]  # fmt: skip
        state = {
            "name": "kserve-container",
            "state": {"running": {}},
            "allocatedResources": {"cpu": f"{self.allocated}m"},
            "resources": _resources(self.actual, memory),
        }
        spec = {"name": "kserve-container", "resources": _resources(self.spec, memory)}
        meta = {"name": self.name, "namespace": "models", "uid": self.name, "generation": self.generation}
        return {
            "metadata": meta
            | {"resourceVersion": str(self.version)}
            | ({"deletionTimestamp": "1970-01-01T00:00:00Z"} if self.deleting else {}),
            "spec": {"nodeName": self.node, "containers": [spec]},
            "status": {
                "phase": "Running",
                "qosClass": str(self.qos),
                "observedGeneration": self.observed,
                "containerStatuses": [state],
                "conditions": conditions,
            },
        }

    def pod(self) -> Pod:
        found = read_pod(self.raw(), ["kserve-container"])
        assert found is not None
        return found

    def write(self, step: Step) -> None:
        """The API server accepts a resize."""
        pod = self.pod()
        assert pod.qos_with(step.cpu) is self.qos, "the server refuses a change of the QoS class"
        assert step.cpu.limit is None or (step.cpu.request or 0) <= step.cpu.limit
        assert (step.cpu.limit is None) == (self.spec[1] is None), "limits are neither added nor removed"
        self.spec = (step.cpu.request, step.cpu.limit)
        self.generation += 1
        self.version += 1


def _resources(amounts: tuple[int | None, int | None], memory: tuple[str, str]) -> dict[str, Any]:
    request, limit = amounts
    return {
        "requests": {"memory": memory[0]} | ({"cpu": f"{request}m"} if request is not None else {}),
        "limits": {"memory": memory[1]} | ({"cpu": f"{limit}m"} if limit is not None else {}),
    }


@dataclass
class Nodes:
    """What kubelets do: admit what fits, put off what does not yet, refuse what never will; then put it in force."""

    allocatable: dict[str, int]
    pods: list[Virtual]
    others: dict[str, int] = field(default_factory=dict)
    """Millicores of pods that headgate does not manage."""
    stubborn: set[str] = field(default_factory=set)
    """Pods that the kubelet never resizes, as under a static CPU manager."""

    def free(self) -> dict[str, int]:
        return {
            name: max(0, amount - self.others.get(name, 0) - sum(p.taken for p in self.pods if p.node == name))
            for name, amount in self.allocatable.items()
        }

    def admit(self, pod: Virtual, now: float) -> None:
        wanted = pod.spec[0] or 0
        if pod.observed == pod.generation and pod.allocated == wanted and pod.condition is None:
            return
        rest = sum(p.allocated for p in self.pods if p.node == pod.node and p is not pod)
        pod.observed = pod.generation
        pod.version += 1
        if pod.spec == pod.actual and pod.allocated == wanted:
            pod.condition = None
        elif pod.name in self.stubborn or wanted > self.allocatable[pod.node]:
            pod.condition = ("PodResizePending", "Infeasible", now)
        elif wanted > pod.allocated and wanted + rest + self.others.get(pod.node, 0) > self.allocatable[pod.node]:
            if pod.condition is None or pod.condition[1] != "Deferred":
                pod.condition = ("PodResizePending", "Deferred", now)
        else:
            pod.allocated = wanted
            pod.condition = ("PodResizeInProgress", "", now)

    def put_in_force(self, pod: Virtual) -> None:
        if pod.condition is not None and pod.condition[0] == "PodResizeInProgress" and pod.observed == pod.generation:
            pod.actual = pod.spec
            pod.condition = None
            pod.version += 1
