"""Field paths of an object, down to the leaves: what managedFields and server-side apply reason about.

A path is a tuple of ("f", field), ("k", ((key, value), ...)) for an item of a keyed list and ("v", value) for an item
of a set. An atomic list or map is one leaf.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from .resources import Resource

Object = dict[str, Any]
Path = tuple[Any, ...]

_KEYED = {
    "containers": ("name",),
    "initContainers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "volumeMounts": ("mountPath",),
    "imagePullSecrets": ("name",),
    "ports": ("containerPort", "protocol"),
    "conditions": ("type",),
    "ownerReferences": ("uid",),
    "addresses": ("type",),
}
_ATOMIC_MAPS = {"selector", "nodeSelector"}
_DEFAULTS = {"protocol": "TCP"}
_SERVER = {
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "managedFields",
    "selfLink",
} | {
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generateName",
}


def list_kind(resource: Resource, path: Path) -> tuple[str, ...] | str:
    """How a list at a path is merged: by keys, as a "set", or "atomic"."""
    field = path[-1][1]
    if path[0] == ("f", "metadata"):
        return "set" if field == "finalizers" else _KEYED.get(field, "atomic")
    if resource.schema is None:
        return _KEYED.get(field, "atomic")
    node = resource.schema.at(path)
    kind = node.get("x-kubernetes-list-type", "atomic")
    return tuple(node["x-kubernetes-list-map-keys"]) if kind == "map" else str(kind)


def atomic_map(resource: Resource, path: Path) -> bool:
    if resource.schema is None:
        return path[-1][1] in _ATOMIC_MAPS
    return resource.schema.at(path).get("x-kubernetes-map-type") == "atomic"


def key_of(item: Mapping[str, Any], keys: tuple[str, ...]) -> Path:
    return ("k", tuple((key, item.get(key, _DEFAULTS.get(key))) for key in keys))


def leaves(resource: Resource, found: Mapping[str, Any]) -> dict[Path, Any]:
    """Every leaf and its value."""
    return dict(_of_object(resource, found))


def _of_object(resource: Resource, found: Mapping[str, Any]) -> Iterator[tuple[Path, Any]]:
    for field, value in found.items():
        if field in ("apiVersion", "kind"):
            continue
        if field == "metadata":
            for name, part in value.items():
                if name not in _SERVER:
                    yield from _of_value(resource, part, (("f", "metadata"), ("f", name)))
        else:
            yield from _of_value(resource, value, (("f", field),))


def _of_value(resource: Resource, value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, dict) and value and not (path[-1][0] == "f" and atomic_map(resource, path)):
        for field, item in value.items():
            yield from _of_value(resource, item, (*path, ("f", field)))
    elif isinstance(value, list) and value:
        kind = list_kind(resource, path)
        if kind == "set":
            for item in value:
                yield (*path, ("v", item)), item
        elif isinstance(kind, tuple):
            for item in value:
                at = (*path, key_of(item, kind))
                yield at, None
                for field, part in item.items():
                    yield from _of_value(resource, part, (*at, ("f", field)))
        else:
            yield path, value
    else:
        yield path, value


def encode(paths: set[Path]) -> Object:
    """As FieldsV1. Items of keyed lists that are owned themselves carry a "."."""
    root: Object = {}
    for path in sorted(paths, key=str):
        at = root
        for element in path:
            at = at.setdefault(_text(element), {})
        if path[-1][0] == "k":
            at["."] = {}
    return root


def decode(fields: Mapping[str, Any], path: Path = ()) -> Iterator[Path]:
    """The leaves of FieldsV1."""
    for text, below in fields.items():
        if text == ".":
            if path and path[-1][0] == "k":
                yield path
        elif below.keys() - {"."}:
            yield from decode(below, (*path, _element(text)))
        else:
            yield (*path, _element(text))


def _text(element: tuple[str, Any]) -> str:
    kind, value = element
    if kind == "f":
        return f"f:{value}"
    return f"{kind}:{json.dumps(dict(value) if kind == 'k' else value, separators=(',', ':'))}"


def _element(text: str) -> tuple[str, Any]:
    kind, _, rest = text.partition(":")
    if kind == "f":
        return kind, rest
    value = json.loads(rest)
    return kind, tuple(value.items()) if kind == "k" else value


def show(path: Path) -> str:
    """As conflicts name it: .spec.containers[name="a"].image."""
    text = ""
    for kind, value in path:
        if kind == "f":
            text += f".{value}"
        elif kind == "k":
            text += f"[{','.join(f'{key}={json.dumps(part)}' for key, part in value)}]"
        else:
            text += f"[={json.dumps(value)}]"
    return text
