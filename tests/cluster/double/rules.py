"""What a type demands of its objects beyond being JSON: defaults, validation, admission; generations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import limits, pods, resize
from .errors import bad_request, invalid
from .requests import Request
from .resources import Resource

if TYPE_CHECKING:
    from .machine import Machine

Object = dict[str, Any]


def admit(machine: Machine, resource: Resource, request: Request, new: Object, old: Object | None) -> None:
    """Complete and check an object about to be stored, in place. Raises StatusError."""
    if old is None:
        _first_status(resource, new)
    if resource.custom:
        _custom(resource, request, new)
    elif resource.key == ("", "pods"):
        if old is None:
            pods.complete(new)
            limits.defaults(machine, new)
            pods.check_new(new)
        elif request.sub == "resize":
            resize.change(new, old)
        else:
            pods.check_update(new, old)
    elif resource.key in (("apps", "deployments"), ("apps", "replicasets"), ("apps", "statefulsets")):
        pods.complete_template(new, old)
    if old is not None and resource.counted:
        _count(resource, new, old)
    if resource.key == ("", "pods"):
        if request.sub == "resize" and old is not None:
            resize.admit(machine, new, old)
        limits.admit(machine, new, old, request.sub)


def check_status(machine: Machine, resource: Resource, request: Request, new: Object, old: Object) -> None:
    """The same for a change of the status."""
    if resource.custom:
        _custom(resource, request, new)


def stored(machine: Machine, resource: Resource, new: Object) -> None:
    """What follows from an object that is there now."""
    if resource.plural == "customresourcedefinitions":
        machine.registry.define(new)


def _first_status(resource: Resource, new: Object) -> None:
    """Whoever creates an object does not decide its status; a kubelet that registers its node does."""
    if resource.status and resource.plural != "nodes":
        new.pop("status", None)
    if resource.plural == "namespaces":
        new["status"] = {"phase": "Active"}
    elif resource.plural == "customresourcedefinitions":
        met = (
            {"type": "NamesAccepted", "reason": "NoConflicts"},
            {"type": "Established", "reason": "InitialNamesAccepted"},
        )
        new["status"] = {"conditions": [{**one, "status": "True"} for one in met]}


def removed(machine: Machine, resource: Resource, last: Object) -> None:
    """What follows from an object that is gone."""
    if resource.plural == "customresourcedefinitions":
        machine.registry.drop(last["spec"]["group"], last["spec"]["names"]["plural"])
    elif resource.plural == "namespaces":
        machine.store.clear(last["metadata"]["name"])


def _custom(resource: Resource, request: Request, new: Object) -> None:
    assert resource.schema is not None
    dropped = resource.schema.prepare(new)
    if dropped and request.query.get("fieldValidation") == "Strict":
        told = ", ".join(f'unknown field "{path}"' for path in dropped)
        raise bad_request(
            f"{resource.kind} in version {resource.version!r} cannot be handled: strict decoding error: {told}"
        )
    errors = resource.schema.errors(new)
    if errors:
        raise invalid(resource.kind, resource.group, new["metadata"]["name"], errors)


def _count(resource: Resource, new: Object, old: Object) -> None:
    """metadata.generation grows with every change of what is asked for."""
    meta = new["metadata"]
    if resource.custom:
        asked = [{k: v for k, v in one.items() if k not in ("metadata", "status")} for one in (new, old)]
        if not resource.status:
            asked = [{k: v for k, v in one.items() if k != "metadata"} for one in (new, old)]
        changed = asked[0] != asked[1]
    else:
        changed = new.get("spec") != old.get("spec")
    if changed:
        meta["generation"] = old["metadata"].get("generation", 0) + 1
