"""Capacity requests, for clusters that scale themselves: headgate asks for room, the cluster's autoscaler brings nodes.

A request is a CapacityBuffer (autoscaling.x-k8s.io) where the cluster has that API, else a Deployment of placeholder
pods whose priority is so low that any pod takes their place. Each unit is as large as a node, so that it needs one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar

from pydantic import Field, model_validator

from headgate.adapters.infrastructure.scale import translated
from headgate.adapters.infrastructure.settings import GroupLimits, TemplateSettings, check_groups
from headgate.adapters.kubernetes.api import Api, Object, path
from headgate.core.config import FilePath, Model
from headgate.core.providers import Conflict, Instance, InstanceState, NodeTemplate, ProviderGroup, Refused
from headgate.core.units import format_cpu

BUFFER_API = "autoscaling.x-k8s.io/v1beta1"
PRIORITY = -10
"""The lowest that Cluster Autoscaler still adds nodes for (its expendable-pods-priority-cutoff)."""
TARGET = "headgate.dev/target"
"""Annotation on a request: the nodes that it is to lead to. Without it no request is open."""
RELEASED = "headgate.dev/released"
"""Annotation on a drained node that the cluster's autoscaler may remove."""
CLASS = "headgate-placeholder"
IMAGE = "registry.k8s.io/pause:3.10"

T = TypeVar("T")


class CapacityGroup(GroupLimits):
    """Nodes that share a label, and the namespace in which room is asked for."""

    template: TemplateSettings
    node_label: str = Field(pattern=r"^[^=]+=[^=]*$")
    """`key=value` of the group's nodes; the request selects it."""
    namespace: str = "headgate"
    request: Literal["auto", "buffer", "placeholder"] = "auto"
    share: float = Field(default=0.9, gt=0.5, le=1)
    """Of a node's CPUs that a unit asks for: above a half, so that no two fit, below 1, for the daemon sets."""


class CapacitySettings(Model):
    """Groups that somebody else's autoscaler sizes."""

    groups: list[CapacityGroup]
    kubeconfig: FilePath | None = None
    context: str | None = None

    @model_validator(mode="after")
    def _names(self) -> CapacitySettings:
        check_groups(list(self.groups))
        return self


class CapacityProvider:
    """A NodeProvider that asks. Its groups belong to the cluster's autoscaler, which has the last word on machines.

    `delete` cannot delete: it releases a drained node, by name, and the cluster's autoscaler removes it as it is empty.
    Needs list and patch on nodes, get, create and patch on CapacityBuffers and create on PodTemplates, or get, create
    and patch on Deployments and create on PriorityClasses.
    """

    def __init__(self, api: Api, groups: Sequence[CapacityGroup]) -> None:
        self._api = api
        self._groups = {group.name: group for group in groups}
        self._buffers: bool | None = None

    def groups(self) -> Sequence[ProviderGroup]:
        """As NodeProvider."""
        return [ProviderGroup(own.name, self._size(own), own.minimum, own.maximum) for own in self._groups.values()]

    def tidy(self) -> None:
        """See Tidying: a request that is left open keeps as much room again free."""
        for own in self._groups.values():
            request, live = self._request(own), len(self._live(own))
            wanted = _wanted(request)
            if wanted is not None and live >= wanted:
                self._write(own, request, None, 0)
            elif wanted is not None and wanted - live != _units(request):
                self._write(own, request, wanted, wanted - live)

    def instances(self, group: str) -> Sequence[Instance]:
        """As NodeProvider: the nodes; those that are asked for have no name before they come."""
        return [_node(node) for node in self._nodes(self._group(group))]

    def increase(self, group: str, count: int, *, seen: int) -> None:
        """As NodeProvider."""
        own = self._group(group)
        request, live = self._request(own), len(self._live(own))
        size = max(live, _wanted(request) or 0)
        if size == seen + count:
            return
        self._compare(own, size, seen)
        if size + count > own.maximum:
            raise Refused(f"{group} has a maximum of {own.maximum} machines, {size + count} were asked for")
        self._write(own, request, size + count, size + count - live)

    def delete(self, group: str, instances: Sequence[str]) -> None:
        """As NodeProvider, with the cluster's autoscaler as the executor; see the class."""
        own = self._group(group)
        live = set(self._live(own))
        going = [name for name in dict.fromkeys(instances) if name in live]
        if len(live) - len(going) < own.minimum:
            raise Refused(f"{group} has a minimum of {own.minimum} machines, {len(live) - len(going)} would be left")
        request = self._request(own)
        if (wanted := _wanted(request)) is not None and going:
            self._write(own, request, wanted - len(going), max(0, wanted - len(live)))
        for name in going:
            self._release(name)

    def cancel_pending(self, group: str, count: int, *, seen: int) -> int:
        """As NodeProvider."""
        own = self._group(group)
        request, live = self._request(own), len(self._live(own))
        size = max(live, _wanted(request) or 0)
        if size == seen - count:
            return 0
        self._compare(own, size, seen)
        taken = max(0, min(count, size - live, size - own.minimum))
        if taken:
            left = size - taken
            self._write(own, request, left if left > live else None, left - live)
        return taken

    def template(self, group: str) -> NodeTemplate | None:
        """As NodeProvider: the settings'."""
        own = self._group(group)
        key, _, value = own.node_label.partition("=")
        known = own.template.value()
        return NodeTemplate(known.cpu, known.memory, known.pods, {**known.labels, key: value}, known.taints)

    def requests(self) -> Mapping[tuple[str, str], int]:
        """See Counted."""
        return self._api.requests()

    def _size(self, own: CapacityGroup) -> int:
        return max(len(self._live(own)), _wanted(self._request(own)) or 0)

    def _release(self, node: str) -> None:
        mark = {"metadata": {"annotations": {RELEASED: "true"}}}
        self._try(lambda: self._api.patch(path("v1", "nodes", node), mark), Object())

    def _compare(self, own: CapacityGroup, size: int, seen: int) -> None:
        if size != seen:
            raise Conflict(f"{own.name} has {size} machines, the decision was made on {seen}")

    def _group(self, group: str) -> CapacityGroup:
        if group not in self._groups:
            raise Refused(f"there is no group {group} in the settings")
        return self._groups[group]

    def _nodes(self, own: CapacityGroup) -> list[Object]:
        return self._try(lambda: self._api.list(path("v1", "nodes"), labelSelector=own.node_label))

    def _live(self, own: CapacityGroup) -> list[str]:
        return [i.name for i in map(_node, self._nodes(own)) if i.state is not InstanceState.DELETING]

    def _try(self, call: Callable[[], T], missing: T | None = None) -> T:
        return translated(call, missing)

    def _is_buffer(self, own: CapacityGroup) -> bool:
        if own.request != "auto":
            return own.request == "buffer"
        if self._buffers is None:
            self._buffers = bool(self._try(lambda: self._api.get(f"/apis/{BUFFER_API}"), Object()))
        return self._buffers

    def _where(self, own: CapacityGroup, name: str = "") -> str:
        if self._is_buffer(own):
            return path(BUFFER_API, "capacitybuffers", name, own.namespace)
        return path("apps/v1", "deployments", name, own.namespace)

    def _request(self, own: CapacityGroup) -> Object:
        return self._try(lambda: self._api.get(self._where(own, _name(own))), Object())

    def _write(self, own: CapacityGroup, request: Object, target: int | None, units: int) -> None:
        noted = {TARGET: None if target is None else str(target)}
        if request:
            body: Mapping[str, Any] = {
                "metadata": {"resourceVersion": request["metadata"].get("resourceVersion"), "annotations": noted},
                "spec": {"replicas": units},
            }
            self._try(lambda: self._api.patch(self._where(own, _name(own)), body))
            return
        self._prepare(own)
        created = self._new(own, units)
        created["metadata"]["annotations"] = {k: v for k, v in noted.items() if v is not None}
        self._try(lambda: self._api.create(self._where(own), created))

    def _prepare(self, own: CapacityGroup) -> None:
        """What a first request refers to; it may be there from an attempt before."""
        if self._is_buffer(own):
            where = path("v1", "podtemplates", namespace=own.namespace)
            what: Object = {"metadata": {"name": _name(own)}, "template": _pod(own)}
        else:
            where = path("scheduling.k8s.io/v1", "priorityclasses")
            what = {"metadata": {"name": CLASS}, "value": PRIORITY, "preemptionPolicy": "Never"}
        with contextlib.suppress(Conflict):
            self._try(lambda: self._api.create(where, what))

    def _new(self, own: CapacityGroup, units: int) -> Object:
        meta = {"name": _name(own), "namespace": own.namespace}
        if self._is_buffer(own):
            spec: Object = {"podTemplateRef": {"name": _name(own)}, "replicas": units}
            return {"apiVersion": BUFFER_API, "kind": "CapacityBuffer", "metadata": meta, "spec": spec}
        labels = {"headgate.dev/placeholder": own.name}
        template = _pod(own)
        template["metadata"] = {"labels": labels}
        template["spec"]["priorityClassName"] = CLASS
        spec = {"replicas": units, "selector": {"matchLabels": labels}, "template": template}
        return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec}


def _name(own: CapacityGroup) -> str:
    return f"headgate-{own.name}"


def _pod(own: CapacityGroup) -> Object:
    key, _, value = own.node_label.partition("=")
    cpu = format_cpu(int(own.template.cpu * own.share))
    container = {"name": "room", "image": IMAGE, "resources": {"requests": {"cpu": cpu}}}
    return {"spec": {"containers": [container], "nodeSelector": {key: value}, "terminationGracePeriodSeconds": 0}}


def _node(node: Object) -> Instance:
    meta = node["metadata"]
    released = RELEASED in (meta.get("annotations") or {}) or meta.get("deletionTimestamp")
    return Instance(meta["name"], InstanceState.DELETING if released else InstanceState.RUNNING, meta["name"])


def _wanted(request: Object) -> int | None:
    noted = (request.get("metadata", {}).get("annotations") or {}).get(TARGET)
    return None if noted is None else int(noted)


def _units(request: Object) -> int:
    return (request.get("spec") or {}).get("replicas") or 0
