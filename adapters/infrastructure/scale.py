"""Groups sized by an object's `scale` subresource: Cluster API MachineDeployments, Karpenter static NodePools.

Growing is a compare-and-set on `scale`. Deleting a machine by name and lowering the size are two requests on two
objects, so what has been lowered for is noted on the scaled object in the very patch that lowers it: repeating a
deletion after a crash lowers once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from pydantic import Field, model_validator

from headgate.adapters.infrastructure.settings import GroupLimits, check_groups
from headgate.adapters.kubernetes.api import Api, ApiError, Object, path
from headgate.core.config import FilePath, Model
from headgate.core.providers import (
    Conflict,
    Instance,
    InstanceState,
    NodeTemplate,
    ProviderError,
    ProviderGroup,
    Refused,
    Unavailable,
)
from headgate.core.units import parse_cpu

LEDGER = "headgate.dev/deleting"
"""Annotation on the scaled object: machines that are deleted, and whether the size was lowered for them."""
CAPI_DELETE = "cluster.x-k8s.io/delete-machine"
CAPI_OWNED = "cluster.x-k8s.io/cluster-api-autoscaler-node-group-"
"""Cluster Autoscaler manages the MachineDeployments that carry its min-size and max-size annotations."""
CAPACITY = "capacity.cluster-autoscaler.kubernetes.io/"
"""Annotations by which a MachineDeployment tells what its nodes offer when it has none."""

T = TypeVar("T")


class ScaleGroup(GroupLimits):
    """One scaled object."""

    kind: Literal["MachineDeployment", "NodePool"]
    object: str = Field(min_length=1)
    namespace: str = ""
    version: str = ""
    """Of the API; default v1beta2 for Cluster API, v1 for Karpenter."""

    @model_validator(mode="after")
    def _namespaced(self) -> ScaleGroup:
        if self.kind == "MachineDeployment" and not self.namespace:
            raise ValueError(f"group {self.name}: a MachineDeployment lives in a namespace: set it")
        return self


class ScaleSettings(Model):
    """Groups by their scaled objects."""

    groups: list[ScaleGroup]
    kubeconfig: FilePath | None = None
    context: str | None = None

    @model_validator(mode="after")
    def _names(self) -> ScaleSettings:
        check_groups(list(self.groups))
        return self


@dataclass(frozen=True)
class Flavour:
    """What differs between the kinds of scaled objects and their machines."""

    api: str
    resource: str
    machines: str
    selector: str
    """Label of a machine that names its group."""
    read: Callable[[Object], Instance]
    owner: Callable[[Object], str | None]

    def machine_of(self, group: ScaleGroup, name: str = "") -> str:
        """Path of the group's machines, or of one."""
        return path(self.api, self.machines, name, group.namespace)


def _capi_machine(machine: Object) -> Instance:
    meta, status = machine["metadata"], machine.get("status") or {}
    node = (status.get("nodeRef") or {}).get("name")
    detail = status.get("failureMessage") or ""
    state = InstanceState.RUNNING if node else InstanceState.PENDING
    if meta.get("deletionTimestamp"):
        state = InstanceState.DELETING
    elif status.get("phase") == "Failed":
        state = InstanceState.FAILED
    return Instance(meta["name"], state, node, detail)


def _capi_owner(deployment: Object) -> str | None:
    noted = deployment["metadata"].get("annotations") or {}
    return "Cluster Autoscaler" if any(key.startswith(CAPI_OWNED) for key in noted) else None


def _karpenter_claim(claim: Object) -> Instance:
    meta, status = claim["metadata"], claim.get("status") or {}
    node = status.get("nodeName")
    state = InstanceState.RUNNING if node else InstanceState.PENDING
    if meta.get("deletionTimestamp"):
        state = InstanceState.DELETING
    return Instance(meta["name"], state, node)


def _karpenter_owner(pool: Object) -> str | None:
    # Without `replicas` a NodePool is dynamic, and its size Karpenter's own business.
    return None if (pool.get("spec") or {}).get("replicas") is not None else "Karpenter (a NodePool without replicas)"


def flavour(group: ScaleGroup) -> Flavour:
    """The flavour of a group's scaled object."""
    if group.kind == "MachineDeployment":
        api = f"cluster.x-k8s.io/{group.version or 'v1beta2'}"
        label = "cluster.x-k8s.io/deployment-name"
        return Flavour(api, "machinedeployments", "machines", label, _capi_machine, _capi_owner)
    api = f"karpenter.sh/{group.version or 'v1'}"
    return Flavour(api, "nodepools", "nodeclaims", "karpenter.sh/nodepool", _karpenter_claim, _karpenter_owner)


class ScaleProvider:
    """A NodeProvider over scaled objects. Needs get and patch on them and their `scale`, list and patch on Machines
    (Cluster API), list and delete on NodeClaims (Karpenter).

    A Karpenter NodePool has no mark for the machine that is to go: its NodeClaim is deleted first and the size lowered
    next. A replacement that Karpenter starts in between is empty, and static pools give up empty nodes first.
    """

    def __init__(self, api: Api, groups: Sequence[ScaleGroup]) -> None:
        self._api = api
        self._groups = {group.name: group for group in groups}

    def groups(self) -> Sequence[ProviderGroup]:
        """As NodeProvider: one read for each group."""
        found = []
        for group in self._groups.values():
            scaled = self._scaled(group)
            target = (scaled.get("spec") or {}).get("replicas") or 0
            owner = flavour(group).owner(scaled)
            found.append(ProviderGroup(group.name, target, group.minimum, group.maximum, owner))
        return found

    def instances(self, group: str) -> Sequence[Instance]:
        """As NodeProvider."""
        own = self._group(group)
        read = flavour(own).read
        deleting = {name for name, done in _ledger(self._scaled(own)).items() if done}
        found = []
        for machine in self._machines(own):
            instance = read(machine)
            if instance.name in deleting:
                instance = Instance(instance.name, InstanceState.DELETING, instance.node, instance.detail)
            found.append(instance)
        return found

    def increase(self, group: str, count: int, *, seen: int) -> None:
        """As NodeProvider: a compare-and-set on the `scale` subresource."""
        own = self._managed(group)
        scale = self._try(lambda: self._api.get(self._path(own, "scale")))
        size = (scale.get("spec") or {}).get("replicas") or 0
        if size == seen + count:
            return
        if size != seen:
            raise Conflict(f"{group} has {size} machines, the decision was made on {seen}")
        if size + count > own.maximum:
            raise Refused(f"{group} has a maximum of {own.maximum} machines, {size + count} were asked for")
        version = scale["metadata"].get("resourceVersion")
        self._try(lambda: self._api.patch(self._path(own, "scale"), _sized(version, size + count)))

    def delete(self, group: str, instances: Sequence[str]) -> None:
        """As NodeProvider. One machine after the other: mark or delete it, then lower the size for it."""
        own = self._managed(group)
        scaled = self._scaled(own)
        here = {machine["metadata"]["name"]: machine for machine in self._machines(own)}
        ledger = _ledger(scaled)
        going = []
        for name in dict.fromkeys(instances):
            deleting = name in here and here[name]["metadata"].get("deletionTimestamp")
            if ledger.get(name) is False or (name in here and name not in ledger and not deleting):
                going.append(name)
        size = (scaled.get("spec") or {}).get("replicas") or 0
        if size - len(going) < own.minimum:
            raise Refused(f"{group} has a minimum of {own.minimum} machines, {size - len(going)} would be left")
        failed: list[tuple[str, ProviderError]] = []
        for name in going:
            try:
                self._delete_one(own, name)
            except ProviderError as error:
                failed.append((name, error))
        if failed:
            names = ", ".join(name for name, _ in failed)
            raise type(failed[0][1])(f"{names} could not be deleted: {failed[0][1]}")

    def cancel_pending(self, group: str, count: int, *, seen: int) -> int:
        """As NodeProvider: first those without a machine object, then those without a node.

        A machine that gets its node between the look and the request is deleted all the same; it serves nothing yet.
        """
        own = self._managed(group)
        scaled = self._scaled(own)
        size = (scaled.get("spec") or {}).get("replicas") or 0
        if size == seen - count:
            return 0
        if size != seen:
            raise Conflict(f"{group} has {size} machines, the decision was made on {seen}")
        machines = [i for i in self.instances(group) if i.state is not InstanceState.DELETING]
        pending = [i.name for i in machines if i.state is InstanceState.PENDING]
        nameless = max(0, size - len(machines))
        room = min(count, size - own.minimum)
        named = pending[: max(0, room - nameless)]
        taken = min(room, nameless)
        if taken:
            version = scaled["metadata"].get("resourceVersion")
            self._try(lambda: self._api.patch(self._path(own, "scale"), _sized(version, size - taken)))
        for name in named:
            self._delete_one(own, name)
        return taken + len(named)

    def template(self, group: str) -> NodeTemplate | None:
        """As NodeProvider: the settings', or what a MachineDeployment's capacity annotations say."""
        own = self._group(group)
        if own.template is not None:
            return own.template.value()
        noted = self._scaled(own)["metadata"].get("annotations") or {}
        cpu = noted.get(f"{CAPACITY}cpu")
        if cpu is None:
            return None
        labels = dict(pair.partition("=")[::2] for pair in noted.get(f"{CAPACITY}labels", "").split(",") if pair)
        return NodeTemplate(parse_cpu(cpu), pods=int(noted.get(f"{CAPACITY}maxPods", 110)), labels=labels)

    def requests(self) -> Mapping[tuple[str, str], int]:
        """See Counted."""
        return self._api.requests()

    def _delete_one(self, own: ScaleGroup, name: str) -> None:
        scaled = self._scaled(own)
        ledger = _ledger(scaled)
        if ledger.get(name):
            return
        here = {machine["metadata"]["name"] for machine in self._machines(own)}
        if name not in ledger:
            scaled = self._note(own, scaled, _kept(ledger, here) | {name: False})
        if own.kind == "MachineDeployment":
            # Not "false" and not empty: Cluster API reads those as no mark.
            mark = {"metadata": {"annotations": {CAPI_DELETE: "headgate"}}}
            self._try(lambda: self._api.patch(flavour(own).machine_of(own, name), mark), missing=Object())
        else:
            self._try(lambda: self._api.delete(flavour(own).machine_of(own, name)), missing=Object())
        size = (scaled.get("spec") or {}).get("replicas") or 0
        self._note(own, scaled, _kept(_ledger(scaled), here) | {name: True}, size - 1)

    def _note(self, own: ScaleGroup, scaled: Object, ledger: Mapping[str, bool], size: int | None = None) -> Object:
        body = _sized(scaled["metadata"].get("resourceVersion"), size)
        body["metadata"]["annotations"] = {LEDGER: json.dumps(ledger, sort_keys=True)}
        return self._try(lambda: self._api.patch(self._path(own), body))

    def _group(self, group: str) -> ScaleGroup:
        if group not in self._groups:
            raise Refused(f"there is no group {group} in the settings")
        return self._groups[group]

    def _managed(self, group: str) -> ScaleGroup:
        own = self._group(group)
        if (owner := flavour(own).owner(self._scaled(own))) is not None:
            raise Refused(f"{owner} manages {own.kind} {own.object}: one owner per group")
        return own

    def _path(self, own: ScaleGroup, subresource: str = "") -> str:
        kind = flavour(own)
        return path(kind.api, kind.resource, own.object, own.namespace, subresource)

    def _scaled(self, own: ScaleGroup) -> Object:
        return self._try(lambda: self._api.get(self._path(own)))

    def _machines(self, own: ScaleGroup) -> list[Object]:
        selector = f"{flavour(own).selector}={own.object}"
        return self._try(lambda: self._api.list(flavour(own).machine_of(own), labelSelector=selector))

    def _try(self, call: Callable[[], T], missing: T | None = None) -> T:
        return translated(call, missing)


def translated(call: Callable[[], T], missing: T | None = None) -> T:
    """The answer, or the provider's error for the API server's; a 404 is `missing` when that is given."""
    try:
        return call()
    except ApiError as error:
        if error.status == 404 and missing is not None:
            return missing
        if error.status == 409:
            raise Conflict(str(error)) from None
        if error.retry:
            raise Unavailable(str(error)) from None
        raise Refused(str(error)) from None


def _sized(version: str | None, size: int | None) -> dict[str, Any]:
    body: dict[str, Any] = {"metadata": {"resourceVersion": version}}
    if size is not None:
        body["spec"] = {"replicas": size}
    return body


def _ledger(scaled: Object) -> dict[str, bool]:
    noted = (scaled["metadata"].get("annotations") or {}).get(LEDGER)
    try:
        found = json.loads(noted) if noted else {}
    except ValueError:
        raise Refused(f"annotation {LEDGER} of {scaled['metadata'].get('name')} is not JSON: remove it") from None
    return {str(name): bool(done) for name, done in found.items()}


def _kept(ledger: Mapping[str, bool], here: set[str]) -> dict[str, bool]:
    """Entries that still matter: a machine that is gone and was lowered for is forgotten."""
    return {name: done for name, done in ledger.items() if name in here or not done}
