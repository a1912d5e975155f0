"""The scale subresource: the number of replicas as an object of its own."""

from __future__ import annotations

from typing import Any

from .errors import FieldError, invalid
from .objects import look, place
from .resources import Resource

Object = dict[str, Any]


def read(resource: Resource, found: Object) -> Object:
    assert resource.scale is not None
    meta = {
        key: found["metadata"][key]
        for key in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
        if key in found["metadata"]
    }
    status: Object = {"replicas": look(found, resource.scale.status) or 0}
    selector = look(found, resource.scale.selector) if resource.scale.selector else None
    if isinstance(selector, dict):
        selector = ",".join(f"{key}={value}" for key, value in sorted((selector.get("matchLabels") or {}).items()))
    if selector:
        status["selector"] = selector
    replicas = look(found, resource.scale.spec)
    spec = {} if not replicas else {"replicas": replicas}
    return {"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": meta, "spec": spec, "status": status}


def write(resource: Resource, found: Object, scale: Object) -> Object:
    """The object with the scale's number of replicas."""
    assert resource.scale is not None
    replicas = look(scale, "spec.replicas", 0)
    if not isinstance(replicas, int) or replicas < 0:
        error = FieldError("Invalid", "spec.replicas", replicas, "must be greater than or equal to 0")
        raise invalid("Scale", "autoscaling", found["metadata"]["name"], [error])
    place(found, resource.scale.spec, replicas)
    return found
