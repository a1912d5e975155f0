"""A pod as headgate sees it: its containers' CPU as asked for, set aside and in force, and what changes it.

Three amounts of a container's CPU request are never mixed up: `request` (the pod's spec), `allocated` (what the kubelet
has admitted) and `actual` (what the container runtime has in force). What is taken from a budget or a node is the
largest of them, as the scheduler counts it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from headgate.adapters.kubernetes.quantities import amounts, cpu, number, seconds

Object = Mapping[str, Any]
Amounts = Mapping[str, str]


class Qos(StrEnum):
    """Quality of service class; it may not change during a pod's life."""

    GUARANTEED = "Guaranteed"
    BURSTABLE = "Burstable"
    BEST_EFFORT = "BestEffort"


@dataclass(frozen=True, slots=True)
class Cpu:
    """CPU of one container in millicores; None: not set."""

    request: int | None
    limit: int | None


@dataclass(frozen=True, slots=True)
class Container:
    """One container that runs beside the others (sidecars included)."""

    name: str
    spec: Cpu
    allocated: int | None = None
    """Request that the kubelet has admitted; None: it does not say."""
    actual: Cpu | None = None
    """In force; None: the node does not say, or it does not run."""
    running: bool = False
    restarts: bool = False
    """Its resize policy restarts it when its CPU changes."""

    @property
    def taken(self) -> int:
        """Millicores of request: the largest of asked for, set aside and in force."""
        return max(self.spec.request or 0, self.allocated or 0, (self.actual and self.actual.request) or 0)

    @property
    def kept(self) -> int:
        """Millicores of request that are set aside or in force, what the spec asks for left aside."""
        if self.allocated is None and self.actual is None:
            return self.spec.request or 0
        return max(self.allocated or 0, (self.actual and self.actual.request) or 0)


class Stage(StrEnum):
    """Where a resize of a pod is."""

    NONE = "none"
    DEFERRED = "Deferred"
    """The node has no room now."""
    INFEASIBLE = "Infeasible"
    """The node will never do it."""
    IN_PROGRESS = "InProgress"
    ERROR = "Error"
    """The node tried and failed; it tries again."""


@dataclass(frozen=True, slots=True)
class Resize:
    """What the kubelet says of a resize."""

    stage: Stage
    since: float
    """Seconds since 1970."""
    generation: int
    """Of the spec that it speaks of; 0: it does not say."""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod with a main container, whose CPU is what headgate changes."""

    namespace: str
    name: str
    uid: str
    version: str
    labels: Amounts
    owner: str
    """kind/name of the workload that made it, "Deployment/fraud-predictor"; its own without one."""
    node: str | None
    phase: str
    deleting: bool
    generation: int
    observed: int | None
    """Generation that the kubelet has seen; None: an older kubelet that does not say."""
    main: Container
    others: tuple[Container, ...]
    fixed: int
    """Millicores of overhead and what init containers need at the most beyond the containers."""
    quantities: tuple[tuple[str, Amounts, Amounts], ...]
    """(container, requests, limits) of all containers, init containers included."""
    overall: tuple[Amounts, Amounts] | None
    """Requests and limits of the pod as a whole, where it has them."""
    qos: Qos
    resize: Resize | None = None
    ready: bool = False
    created: float = 0.0

    @property
    def key(self) -> str:
        """namespace/name."""
        return f"{self.namespace}/{self.name}"

    @property
    def infeasible(self) -> bool:
        """Whether the spec is one that the node will never put in force: it takes nothing."""
        found = self.resize
        return found is not None and found.stage is Stage.INFEASIBLE and found.generation in (0, self.generation)

    @property
    def taken(self) -> int:
        """Millicores of the main container's request that the budget counts."""
        return self.main.kept if self.infeasible else self.main.taken

    @property
    def in_force(self) -> Cpu:
        """The main container's CPU that it has now; before it runs, what is asked for."""
        return self.main.actual or Cpu(
            self.main.allocated if self.main.allocated is not None else self.main.spec.request, self.main.spec.limit
        )

    @property
    def finished(self) -> bool:
        """Whether it will never run again."""
        return self.phase in ("Succeeded", "Failed")

    @property
    def settled(self) -> bool:
        """Whether the spec is in force: acceptance by the server is not."""
        if self.observed is not None and self.observed < self.generation:
            return False
        if self.resize is not None:
            return False
        if not self.main.running or self.main.actual is None:
            return self.main.allocated in (None, self.main.spec.request)
        return matches(self.main.actual, self.main.spec)

    def qos_with(self, changed: Cpu) -> Qos:
        """The class that it would have with other CPU in its main container."""
        if self.overall is not None:
            return qos_of([self.overall])
        rows = []
        for name, requests, limits in self.quantities:
            if name == self.main.name:
                requests = _with(requests, changed.request)  # noqa: PLW2901 - the one that changes
                limits = _with(limits, changed.limit)  # noqa: PLW2901
            rows.append((requests, limits))
        return qos_of(rows)


def matches(actual: Cpu, wanted: Cpu) -> bool:
    """Whether what a runtime reports is what was asked for: systemd rounds a quota up to 10 ms a second."""
    if (wanted.limit is None) != (actual.limit is None):
        return False
    if wanted.limit is not None and actual.limit is not None and not 0 <= actual.limit - wanted.limit <= 10:
        return False
    return wanted.request is None or actual.request == wanted.request


def qos_of(rows: Iterable[tuple[Amounts, Amounts]]) -> Qos:
    """The class by (requests, limits) of all containers, as the kubelet and the API server compute it."""
    requested: dict[str, Any] = {}
    limited: dict[str, Any] = {}
    complete = True
    for requests, limits in rows:
        for name in ("cpu", "memory"):
            if name in requests and number(requests[name]) > 0:
                requested[name] = requested.get(name, 0) + number(requests[name])
            if name in limits and number(limits[name]) > 0:
                limited[name] = limited.get(name, 0) + number(limits[name])
            else:
                complete = False
    if not requested and not limited:
        return Qos.BEST_EFFORT
    # What is limited and not requested is requested at its limit: the server fills that in.
    if complete and all(requested.get(name, limited[name]) == limited[name] for name in limited):
        return Qos.GUARANTEED
    return Qos.BURSTABLE


def read_pod(pod: Object, main: Sequence[str]) -> Pod | None:
    """A pod of the API; None when none of the names in `main` is one of its containers."""
    spec, status, meta = pod["spec"], pod.get("status") or {}, pod["metadata"]
    by_name = {container["name"]: container for container in spec["containers"]}
    chosen = next((name for name in main if name in by_name), None)
    if chosen is None:
        return None
    containers = _containers(spec, status)
    quantities = [
        (c["name"], amounts(c.get("resources"), "requests"), amounts(c.get("resources"), "limits"))
        for c in (*spec["containers"], *(spec.get("initContainers") or ()))
    ]
    whole = spec.get("resources") or {}
    overall = (amounts(whole, "requests"), amounts(whole, "limits")) if whole else None
    rows = [(requests, limits) for _, requests, limits in quantities]
    return Pod(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta.get("uid", ""),
        version=meta.get("resourceVersion", ""),
        labels=meta.get("labels") or {},
        owner=_owner(meta),
        node=spec.get("nodeName") or None,
        phase=status.get("phase", "Pending"),
        deleting=bool(meta.get("deletionTimestamp")),
        generation=meta.get("generation") or 0,
        observed=status.get("observedGeneration"),
        main=next(c for c in containers if c.name == chosen),
        others=tuple(c for c in containers if c.name != chosen),
        fixed=_fixed(spec),
        quantities=tuple(quantities),
        overall=overall,
        qos=Qos(status["qosClass"]) if status.get("qosClass") else qos_of([overall] if overall else rows),
        resize=_resize(status),
        ready=any(c.get("type") == "Ready" and c.get("status") == "True" for c in status.get("conditions") or ()),
        created=seconds(meta.get("creationTimestamp")),
    )


def reserved(pod: Object) -> tuple[str, int] | None:
    """The node of any pod and the millicores that it takes there; None: it takes none.

    Counted as the scheduler counts: per container the largest of spec (unless Infeasible), allocated and actual.
    """
    spec, status = pod["spec"], pod.get("status") or {}
    node = spec.get("nodeName")
    if not node or status.get("phase") in ("Succeeded", "Failed"):
        return None
    found = _resize(status)
    generation = pod["metadata"].get("generation") or 0
    infeasible = found is not None and found.stage is Stage.INFEASIBLE and found.generation in (0, generation)
    containers = _containers(spec, status)
    needed = sum(c.kept if infeasible else c.taken for c in containers) + _fixed(spec)
    return node, max(needed, cpu(amounts(spec.get("resources"), "requests")) or 0)


@dataclass(frozen=True, slots=True)
class Footprint:
    """CPU of a whole pod in millicores, overhead and init containers included."""

    asked: int
    kept: int | None
    """Set aside or in force; None: no kubelet has said so yet."""
    stage: Stage
    """Of a resize of the present spec."""


def footprint(pod: Object) -> Footprint:
    """What a pod asks for and has, whatever its containers."""
    spec, status = pod["spec"], pod.get("status") or {}
    containers, fixed = _containers(spec, status), _fixed(spec)
    asked = sum(c.spec.request or 0 for c in containers) + fixed
    known = any(c.allocated is not None or c.actual is not None for c in containers)
    found = _resize(status)
    current = found is not None and found.generation in (0, pod["metadata"].get("generation") or 0)
    return Footprint(
        asked=max(asked, cpu(amounts(spec.get("resources"), "requests")) or 0),
        kept=sum(c.kept for c in containers) + fixed if known else None,
        stage=found.stage if found is not None and current else Stage.NONE,
    )


def _containers(spec: Object, status: Object) -> list[Container]:
    states = {
        state["name"]: state
        for part in ("containerStatuses", "initContainerStatuses")
        for state in status.get(part) or ()
    }
    sidecars = [c for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"]
    return [_container(c, states.get(c["name"]) or {}) for c in (*spec["containers"], *sidecars)]


def _container(container: Object, state: Object) -> Container:
    resources = container.get("resources") or {}
    reported = state.get("resources")
    return Container(
        name=container["name"],
        spec=Cpu(cpu(resources.get("requests")), cpu(resources.get("limits"))),
        allocated=cpu(state.get("allocatedResources")),
        actual=None if reported is None else Cpu(cpu(reported.get("requests")), cpu(reported.get("limits"))),
        running="running" in (state.get("state") or {}),
        restarts=any(
            policy.get("resourceName") == "cpu" and policy.get("restartPolicy") == "RestartContainer"
            for policy in container.get("resizePolicy") or ()
        ),
    )


def _fixed(spec: Object) -> int:
    """Overhead, and what plain init containers need beyond what runs after them."""
    containers = sum(cpu((c.get("resources") or {}).get("requests")) or 0 for c in spec["containers"])
    sidecars, most = 0, 0
    for container in spec.get("initContainers") or ():
        asked = cpu((container.get("resources") or {}).get("requests")) or 0
        if container.get("restartPolicy") == "Always":
            sidecars += asked
        most = max(most, sidecars + (0 if container.get("restartPolicy") == "Always" else asked))
    return (cpu(spec.get("overhead")) or 0) + max(0, most - containers - sidecars)


def _resize(status: Object) -> Resize | None:
    found = None
    for condition in status.get("conditions") or ():
        if condition.get("status") != "True":
            continue
        reason = condition.get("reason") or ""
        if condition.get("type") == "PodResizePending":
            stage = Stage.INFEASIBLE if reason == "Infeasible" else Stage.DEFERRED
        elif condition.get("type") == "PodResizeInProgress":
            stage = Stage.ERROR if reason == "Error" else Stage.IN_PROGRESS
        else:
            continue
        # One that waits says more than an earlier one that is still being put in force.
        if found is None or condition["type"] == "PodResizePending":
            since = seconds(condition.get("lastTransitionTime") or condition.get("lastProbeTime"))
            found = Resize(stage, since, condition.get("observedGeneration") or 0, condition.get("message") or "")
    return found


def _owner(meta: Object) -> str:
    """The workload behind a pod. A ReplicaSet's name is its Deployment's and the hash that the pods' label tells."""
    for reference in meta.get("ownerReferences") or ():
        if not reference.get("controller"):
            continue
        kind, name = str(reference["kind"]), str(reference["name"])
        suffix = (meta.get("labels") or {}).get("pod-template-hash")
        if kind == "ReplicaSet" and suffix and name.endswith(f"-{suffix}"):
            return f"Deployment/{name.removesuffix(f'-{suffix}')}"
        return f"{kind}/{name}"
    return f"Pod/{meta['name']}"


def _with(quantities: Amounts, millicores: int | None) -> Amounts:
    if millicores is None:
        return quantities
    return {**quantities, "cpu": f"{millicores}m"}
