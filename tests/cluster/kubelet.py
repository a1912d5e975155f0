"""What kubelets do about pods bound to their nodes, through the API only, in a time that the test moves.

As measured on 1.36: a resize is accepted first (allocatedResources, observedGeneration) and in force later (resources);
one that the node has no room for now is Deferred and taken up when there is; one beyond the node is Infeasible.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from .client import Client, RequestError
from .double.objects import clone
from .double.pods import requested
from .double.quantities import milli, parse, same

Object = dict[str, Any]
_RUNNING = "2026-01-01T00:00:00Z"


@dataclass
class NodeRules:
    """How one node's kubelet behaves."""

    start: float = 0.0
    """Seconds until a bound pod is ready."""
    delay: float = 1.0
    """Seconds from the acceptance of a resize until it is in force."""
    static: bool = False
    """CPU manager policy static: Guaranteed pods with whole CPUs are not resized."""
    old: bool = False
    """From before in-place resize: it tells no resources, and ignores changes."""
    deaf: bool = False
    """It does nothing, as if it were down."""


@dataclass
class _Pod:
    """What the kubelet has in its checkpoint."""

    seen: float
    allocated: dict[str, Object] = field(default_factory=dict)
    actual: dict[str, Object] = field(default_factory=dict)
    accepted: float | None = None
    """When what is allocated now was accepted, until it is in force."""
    restarts: dict[str, int] = field(default_factory=dict)
    ready: bool = False


class Kubelets:
    """The kubelets of some nodes, by default of all."""

    def __init__(self, client: Client, nodes: Iterable[str] | None = None, **rules: Any) -> None:
        self.client = client
        self.rules: dict[str, NodeRules] = {}
        self.default = NodeRules(**rules)
        self.broken: dict[str, str] = {}
        """Pods (by name) whose resize fails, and the runtime's error."""
        self.first: set[str] = set()
        """Pods (by name) that are looked at before all others."""
        self.needs: dict[str, int] = {}
        """Millicores by pod (by name) below which a probe fails and the kubelet starts its containers again."""
        self.now = 0.0
        self.epoch = time.time()
        """Unix time of `now` 0, for the times of conditions."""
        self.started = 0
        """Containers started or restarted so far."""
        self._nodes = None if nodes is None else set(nodes)
        self._pods: dict[str, _Pod] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def step(self, seconds: float = 1.0) -> None:
        """Time passes; then every kubelet looks at its pods once."""
        self.now += seconds
        capacity = {
            one["metadata"]["name"]: one["status"].get("allocatable") or {} for one in self.client.list("nodes")
        }
        by_node: dict[str, list[Object]] = {}
        for pod in self.client.list("pods"):
            name = pod["spec"].get("nodeName")
            if name in capacity and (self._nodes is None or name in self._nodes):
                by_node.setdefault(name, []).append(pod)
        for name, pods in by_node.items():
            if not self._of(name).deaf:
                pods.sort(
                    key=lambda pod: (pod["metadata"]["name"] not in self.first, pod["metadata"]["creationTimestamp"])
                )
                self._sync(name, capacity[name], pods)
        there = {pod["metadata"]["uid"] for pods in by_node.values() for pod in pods}
        self._pods = {uid: known for uid, known in self._pods.items() if uid in there}

    def start(self, interval: float = 0.05) -> None:
        """Step in a thread of its own, in real time, until `stop`."""

        def run() -> None:
            last = time.monotonic()
            while not self._stop.wait(interval):
                now = time.monotonic()
                try:
                    self.step(now - last)
                except (RequestError, OSError):
                    continue
                finally:
                    last = now

        self._thread = threading.Thread(target=run, name="kubelets", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def restart(self, pod: str) -> None:
        """The pod's containers crash and start again, with what is set aside for them, in force or not before."""
        for known in self.client.list("pods", fieldSelector=f"metadata.name={pod}"):
            state = self._pods[known["metadata"]["uid"]]
            for container in known["spec"]["containers"]:
                state.restarts[container["name"]] = state.restarts.get(container["name"], 0) + 1
            state.actual, state.accepted = clone(state.allocated), None

    def _time(self) -> str:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.epoch + self.now))

    def _of(self, node: str) -> NodeRules:
        return self.rules.get(node, self.default)

    def _sync(self, node: str, capacity: Object, pods: list[Object]) -> None:
        for pod in pods:
            meta, rules = pod["metadata"], self._of(node)
            known = self._pods.get(meta["uid"])
            if known is None:
                known = self._pods[meta["uid"]] = self._recalled(pod)
            if meta.get("deletionTimestamp"):
                self.client.delete("pods", meta["name"], meta["namespace"], grace=0)
                del self._pods[meta["uid"]]
                continue
            if pod["status"].get("phase") in ("Succeeded", "Failed") or self.now < known.seen + rules.start:
                continue
            conditions: list[Object] = []
            if not known.ready:
                self._begin(pod, known)
            elif not rules.old:
                used = self._used(pods, pod)
                conditions = self._resize(pod, known, rules, capacity, used)
                self._probe(pod, known)
            self._report(pod, known, rules, conditions)

    def _recalled(self, pod: Object) -> _Pod:
        """A pod that ran before this simulator began is taken over as its status tells it."""
        known = _Pod(seen=self.now)
        for status in pod["status"].get("containerStatuses") or []:
            if "running" not in status.get("state", {}):
                return known
            resources = clone(status.get("resources") or {})
            known.actual[status["name"]] = resources
            known.allocated[status["name"]] = resources
            known.restarts[status["name"]] = status["restartCount"]
            known.ready = True
        return known

    def _begin(self, pod: Object, known: _Pod) -> None:
        for container in pod["spec"]["containers"]:
            known.allocated[container["name"]] = clone(container.get("resources") or {})
            known.restarts[container["name"]] = 0
            self.started += 1
        known.actual = clone(known.allocated)
        known.ready = True

    def _probe(self, pod: Object, known: _Pod) -> None:
        least = self.needs.get(pod["metadata"]["name"], 0)
        for name, resources in known.actual.items():
            if _cpu(resources) < least:
                known.restarts[name] += 1
                self.started += 1

    def _used(self, pods: list[Object], but: Object) -> int:
        """Millicores that the node's other pods have been allocated."""
        total = 0
        for pod in pods:
            if pod is but or pod["status"].get("phase") in ("Succeeded", "Failed"):
                continue
            known = self._pods.get(pod["metadata"]["uid"])
            if known is not None and known.ready:
                total += sum(_cpu(resources) for resources in known.allocated.values())
            else:
                total += milli(str(requested(pod).get("cpu", 0)))
        return total

    def _resize(self, pod: Object, known: _Pod, rules: NodeRules, capacity: Object, used: int) -> list[Object]:
        """Take the resize further; the conditions that tell where it is."""
        wanted = {one["name"]: clone(one.get("resources") or {}) for one in pod["spec"]["containers"]}
        pending: list[Object] = []
        if not _equal(wanted, known.allocated):
            refusal = _refusal(pod, wanted, rules, capacity, used, known)
            if refusal is None:
                known.allocated, known.accepted = wanted, self.now
            else:
                pending = [_condition("PodResizePending", *refusal)]
        if _equal(known.allocated, known.actual):
            known.accepted = None
            return pending
        error = self.broken.get(pod["metadata"]["name"])
        if error is not None:
            return [*pending, _condition("PodResizeInProgress", "Error", error)]
        if known.accepted is None or self.now < known.accepted + rules.delay:
            return [*pending, _condition("PodResizeInProgress", "", "")]
        for container in pod["spec"]["containers"]:
            name = container["name"]
            if _restarts(container, known.actual.get(name) or {}, known.allocated[name]):
                known.restarts[name] += 1
                self.started += 1
        known.actual, known.accepted = clone(known.allocated), None
        return pending

    def _report(self, pod: Object, known: _Pod, rules: NodeRules, conditions: list[Object]) -> None:
        if not known.ready:
            return
        status = clone(pod["status"])
        shown = ("PodResizePending", "PodResizeInProgress", "Ready", "ContainersReady", "Initialized")
        kept = [one for one in status.get("conditions") or [] if one["type"] not in shown]
        ready = [{"type": kind, "status": "True"} for kind in ("Initialized", "Ready", "ContainersReady")]
        status |= {
            "phase": "Running",
            "startTime": status.get("startTime") or _RUNNING,
            "podIP": "10.0.0.1",
            "conditions": [*kept, *ready, *conditions],
            "containerStatuses": [self._container(one, known, rules) for one in pod["spec"]["containers"]],
        }
        if not rules.old:
            observed = pod["metadata"].get("generation", 1)
            status["observedGeneration"] = observed
            before = {one["type"]: one for one in pod["status"].get("conditions") or []}
            for condition in conditions:
                condition["observedGeneration"] = observed
                old = before.get(condition["type"], {})
                same_state = all(old.get(key) == condition.get(key) for key in ("status", "reason"))
                condition["lastTransitionTime"] = old["lastTransitionTime"] if same_state and old else self._time()
        if status != pod["status"]:
            try:
                self.client.replace("pods", {**pod, "status": status}, "status")
            except RequestError as error:
                if error.code not in (404, 409):  # changed meanwhile: the next step sees it
                    raise

    def _container(self, container: Object, known: _Pod, rules: NodeRules) -> Object:
        name = container["name"]
        found: Object = {
            "name": name,
            "image": container["image"],
            "imageID": "",
            "containerID": f"containerd://{name}",
            "ready": True,
            "started": True,
            "restartCount": known.restarts[name],
            "state": {"running": {"startedAt": _RUNNING}},
        }
        if not rules.old:
            found["resources"] = clone(known.actual[name])
            requests = known.allocated[name].get("requests")
            if requests:
                found["allocatedResources"] = clone(requests)
        return found


def _cpu(resources: Object) -> int:
    return milli((resources.get("requests") or {}).get("cpu", "0"))


def _equal(one: dict[str, Object], other: dict[str, Object]) -> bool:
    return one.keys() == other.keys() and all(
        same(one[name].get(part), other[name].get(part)) for name in one for part in ("requests", "limits")
    )


def _refusal(
    pod: Object, wanted: dict[str, Object], rules: NodeRules, capacity: Object, used: int, known: _Pod
) -> tuple[str, str] | None:
    """Why not, or not now."""
    asked, most = sum(_cpu(resources) for resources in wanted.values()), milli(capacity.get("cpu", "0"))
    guaranteed = pod["status"].get("qosClass") == "Guaranteed"
    if rules.static and guaranteed:
        return "Infeasible", "Resize is infeasible for Guaranteed Pods alongside CPU Manager static policy"
    if asked > most:
        return "Infeasible", f"Node didn't have enough capacity: cpu, requested: {asked}, capacity: {most}"
    grows = asked > sum(_cpu(resources) for resources in known.allocated.values())
    if grows and asked + used > most:
        told = f"cpu, requested: {asked}, used: {used}, capacity: {most}"
        return "Deferred", f"Node didn't have enough resource: {told}"
    return None


def _restarts(container: Object, before: Object, after: Object) -> bool:
    """Whether the container's policy wants a restart for what changes."""
    for policy in container.get("resizePolicy") or []:
        if policy["restartPolicy"] == "RestartContainer":
            values = [
                [parse((one.get(part) or {}).get(policy["resourceName"], "0")) for part in ("requests", "limits")]
                for one in (before, after)
            ]
            if values[0] != values[1]:
                return True
    return False


def _condition(kind: str, reason: str, message: str) -> Object:
    found = {"type": kind, "status": "True", "reason": reason, "message": message}
    return {key: value for key, value in found.items() if value}
