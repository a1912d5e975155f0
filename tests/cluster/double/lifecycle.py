"""What happens to one object: create, read, update, patch, apply, delete."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import apply, patches, pods, rules, scale
from .errors import (
    FieldError,
    StatusError,
    already_exists,
    bad_request,
    conflict,
    invalid,
    not_found,
)
from .objects import clone
from .requests import Answer, Request, answer
from .resources import Resource
from .selectors import by_labels

if TYPE_CHECKING:
    from .machine import Machine

Object = dict[str, Any]
Change = Callable[[Object], Object]

_KEPT = (
    "uid",
    "creationTimestamp",
    "namespace",
    "name",
    "generation",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
)


def serve(machine: Machine, resource: Resource, request: Request) -> Answer:
    """Everything but list and watch."""
    method = request.method
    if method == "DELETE":
        return _delete_all(machine, resource, request) if not request.name else _delete(machine, resource, request)
    if method == "POST":
        if request.sub:
            return pods.post(machine, request)
        return answer(_create(machine, resource, request, _object(request.body)), 201)
    if method == "GET":
        found = _existing(machine, resource, request)
        return answer(scale.read(resource, found) if request.sub == "scale" else shown(resource, found))
    if method == "PUT":
        body = _object(request.body)
        return answer(update(machine, resource, request, lambda old: _replacement(resource, request, old, body)))
    if method == "PATCH":
        return _patch(machine, resource, request)
    raise StatusError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")


def seed(machine: Machine, resource: Resource, found: Object) -> Object:
    """Create something that was always there."""
    return _create(machine, resource, Request("POST", "", agent="kube-apiserver"), found)


def shown(resource: Resource, found: Object, revision: int | None = None) -> Object:
    """As this version of the type shows an object; at a later revision where it was removed then."""
    if found.get("apiVersion") != resource.api_version or found.get("kind") != resource.kind:
        found = {**found, "apiVersion": resource.api_version, "kind": resource.kind}
    if revision is not None and found["metadata"]["resourceVersion"] != str(revision):
        found = {**found, "metadata": {**found["metadata"], "resourceVersion": str(revision)}}
    return found


def _object(body: Any) -> Object:
    if not isinstance(body, dict):
        raise bad_request("the object provided is unrecognized (must be of type object)")
    return body


def _existing(machine: Machine, resource: Resource, request: Request) -> Object:
    found = machine.store.get(resource.key, request.namespace, request.name)
    if found is None:
        raise not_found(resource.plural, resource.group, request.name)
    return found


def _create(machine: Machine, resource: Resource, request: Request, body: Object) -> Object:
    new = clone(body)
    meta = new.setdefault("metadata", {})
    if not meta.get("name"):
        if not meta.get("generateName"):
            error = FieldError("Required", "metadata.name", None, "name or generateName is required")
            raise invalid(resource.kind, resource.group, "", [error])
        meta["name"] = meta["generateName"] + "".join(random.choices("bcdfghjklmnpqrstvwxz2456789", k=5))
    if resource.namespaced:
        if meta.get("namespace", request.namespace) != request.namespace:
            raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
        meta["namespace"] = request.namespace
        space = machine.store.get(("", "namespaces"), "", request.namespace)
        if space is None:
            raise not_found("namespaces", "", request.namespace)
    else:
        meta.pop("namespace", None)
    if machine.store.get(resource.key, meta.get("namespace", ""), meta["name"]) is not None:
        raise already_exists(resource.plural, resource.group, meta["name"])
    meta |= {"uid": str(uuid.uuid4()), "creationTimestamp": machine.now()}
    for key in ("deletionTimestamp", "resourceVersion", "selfLink", "managedFields", "generation"):
        meta.pop(key, None)
    if resource.counted:
        meta["generation"] = 1
    new |= {"apiVersion": resource.api_version, "kind": resource.kind}
    rules.admit(machine, resource, request, new, None)
    if request.content_type == patches.APPLY_TYPE:
        apply.own(resource, new, body, request.manager, machine.now())
    else:
        apply.track(resource, None, new, request.manager, machine.now(), "")
    return _store(machine, resource, request, new)


def _store(machine: Machine, resource: Resource, request: Request, new: Object) -> Object:
    if request.dry_run:
        return new
    machine.store.put(resource.key, new)
    rules.stored(machine, resource, new)
    return new


def update(machine: Machine, resource: Resource, request: Request, change: Change) -> Object:
    """Change an object or what a subresource shows of it; what the server answers."""
    found = _existing(machine, resource, request)
    view = scale.read(resource, found) if request.sub == "scale" else found
    wanted = change(clone(view))
    meta = wanted.setdefault("metadata", {})
    _preconditions(resource, request, found, meta)
    if request.sub == "scale":
        new = scale.write(resource, clone(found), wanted)
    else:
        new = _limited(resource, request.sub, clone(found), wanted)
    _settled(resource, found, new)
    if request.sub != "status":
        rules.admit(machine, resource, request, new, found)
    else:
        rules.check_status(machine, resource, request, new, found)
    if request.content_type != patches.APPLY_TYPE:
        apply.track(
            resource, found, new, request.manager, machine.now(), "" if request.sub == "resize" else request.sub
        )
    if _plain(new) != _plain(found):
        new = _store(machine, resource, request, new)
        new = _finished(machine, resource, request, new)
    else:
        new = found
    return scale.read(resource, new) if request.sub == "scale" else new


def _preconditions(resource: Resource, request: Request, found: Object, meta: Object) -> None:
    name = found["metadata"]["name"]
    version, uid = meta.get("resourceVersion"), meta.get("uid")
    if request.method == "PUT" and not version and resource.custom and not request.sub:
        error = FieldError("Invalid", "metadata.resourceVersion", 0, "must be specified for an update")
        raise invalid(resource.kind, resource.group, name, [error])
    if uid and uid != found["metadata"]["uid"]:
        told = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {found['metadata']['uid']}"
        raise conflict(resource.plural, resource.group, name, told)
    if version and version != found["metadata"]["resourceVersion"]:
        raise conflict(resource.plural, resource.group, name)


def _limited(resource: Resource, sub: str, old: Object, wanted: Object) -> Object:
    """What may change through this subresource, and nothing else of the object."""
    meta = {**old["metadata"], "managedFields": wanted["metadata"].get("managedFields")}
    if sub == "status":
        return {**old, "status": wanted.get("status"), "metadata": meta}
    if sub == "resize":
        return {**old, "spec": wanted.get("spec") or {}, "metadata": meta}
    return {**wanted, "status": old.get("status")} if resource.status else wanted


def _settled(resource: Resource, old: Object, new: Object) -> None:
    """Restore what nobody may change; count the generation."""
    meta = new["metadata"]
    for key in _KEPT:
        if key in old["metadata"]:
            meta[key] = old["metadata"][key]
        else:
            meta.pop(key, None)
    meta["resourceVersion"] = old["metadata"]["resourceVersion"]
    for key in ("labels", "annotations", "finalizers", "ownerReferences", "managedFields"):
        if not meta.get(key):
            meta.pop(key, None)
    if new.get("status") is None:
        new.pop("status", None)
    new |= {"apiVersion": resource.api_version, "kind": resource.kind}


def _plain(found: Object) -> Object:
    """Without what a write changes even if it changes nothing."""
    fields = [{k: v for k, v in one.items() if k != "time"} for one in found["metadata"].get("managedFields") or []]
    return {**found, "metadata": {**found["metadata"], "managedFields": fields}}


def _finished(machine: Machine, resource: Resource, request: Request, new: Object) -> Object:
    """Gone, if it was only waiting for its finalizers."""
    meta = new["metadata"]
    waiting = meta.get("finalizers") or meta.get("deletionGracePeriodSeconds")
    if meta.get("deletionTimestamp") and not waiting and not request.dry_run:
        return machine.store.remove(resource.key, meta.get("namespace", ""), meta["name"])
    return new


def _replacement(resource: Resource, request: Request, old: Object, body: Object) -> Object:
    if body.get("metadata", {}).get("name", request.name) != request.name:
        raise bad_request("the name of the object does not match the name on the URL")
    body = clone(body)
    if resource.custom and request.sub == "status":
        return {**old, "status": body.get("status"), "metadata": body["metadata"]}
    return body  # type: ignore[no-any-return]


def _patch(machine: Machine, resource: Resource, request: Request) -> Answer:
    kind, body = request.content_type, request.body
    if kind == patches.APPLY_TYPE:
        return _apply(machine, resource, request, _object(body))
    if kind == "application/strategic-merge-patch+json" and resource.custom and request.sub != "scale":
        message = "the body of the request was in an unknown format - accepted media types include: "
        raise StatusError(
            415,
            "UnsupportedMediaType",
            f"{message}application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
        )
    changes: dict[str, Change] = {
        "application/json-patch+json": lambda old: patches.json_patch(old, body),
        "application/merge-patch+json": lambda old: patches.merged(old, _object(body)),
        "application/strategic-merge-patch+json": lambda old: patches.strategic(old, _object(body)),
    }
    if kind not in changes:
        raise StatusError(415, "UnsupportedMediaType", f"the body of the request was in an unknown format: {kind}")
    return answer(update(machine, resource, request, changes[kind]))


def _apply(machine: Machine, resource: Resource, request: Request, body: Object) -> Answer:
    if not request.query.get("fieldManager"):
        error = FieldError("Required", "fieldManager", None, "is required for apply patch")
        raise invalid("PatchOptions", "meta.k8s.io", "", [error])
    if body.get("apiVersion") is None or body.get("kind") is None:
        raise bad_request("invalid object type: apiVersion and kind must be set in an apply patch")
    if (body.get("metadata") or {}).get("managedFields"):
        raise bad_request("metadata.managedFields must be nil")
    force = request.query.get("force") == "true"
    if machine.store.get(resource.key, request.namespace, request.name) is None:
        if request.sub:
            raise not_found(resource.plural, resource.group, request.name)
        body = {**body, "metadata": {**(body.get("metadata") or {}), "name": request.name}}
        return answer(_create(machine, resource, request, body), 201)
    wanted = body if request.sub != "scale" else {**body, "apiVersion": "autoscaling/v1"}

    def change(old: Object) -> Object:
        return apply.merged(resource, old, wanted, request.manager, force, machine.now(), request.sub)

    return answer(update(machine, resource, request, change))


def _delete(machine: Machine, resource: Resource, request: Request) -> Answer:
    found = _existing(machine, resource, request)
    options = request.body if isinstance(request.body, dict) else {}
    wanted = options.get("preconditions") or {}
    _preconditions(resource, request, found, wanted)
    grace = request.query.get("gracePeriodSeconds", options.get("gracePeriodSeconds"))
    return answer(remove(machine, resource, request, found, None if grace is None else int(grace)))


def remove(machine: Machine, resource: Resource, request: Request, found: Object, grace: int | None) -> Object:
    """Take an object away, or mark it where something has to be done first."""
    meta = found["metadata"]
    if resource.key == ("", "pods") and pods.waits(found):
        grace = found["spec"].get("terminationGracePeriodSeconds", 30) if grace is None else grace
    else:
        grace = 0
    if request.dry_run:
        return found
    if not meta.get("finalizers") and not grace:
        last = machine.store.remove(resource.key, meta.get("namespace", ""), meta["name"])
        rules.removed(machine, resource, last)
        return last
    new = clone(found)
    new["metadata"].setdefault("deletionTimestamp", machine.now())
    new["metadata"]["deletionGracePeriodSeconds"] = grace
    if resource.counted and "deletionTimestamp" not in meta:
        new["metadata"]["generation"] = meta["generation"] + 1
    return machine.store.put(resource.key, new)


def _delete_all(machine: Machine, resource: Resource, request: Request) -> Answer:
    test = by_labels(request.query.get("labelSelector", ""))
    for found in list(machine.store.all(resource.key, request.namespace)):
        if test is None or test(found):
            remove(machine, resource, request, found, None)
    return answer({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"})
