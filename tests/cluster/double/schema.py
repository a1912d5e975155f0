"""Structural schemas of custom resources: pruning, defaults, validation, and how lists and maps are merged.

Of what the API server evaluates, CEL rules (x-kubernetes-validations) are not; the real server tests them.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from .errors import FieldError
from .quantities import parse

Node = Mapping[str, Any]
_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
}
_EMBEDDED = ("apiVersion", "kind", "metadata")


class Schema:
    """One version's schema; an empty one keeps everything."""

    def __init__(self, root: Node) -> None:
        self.root = root

    def prepare(self, found: dict[str, Any]) -> list[str]:
        """Prune what the schema does not know and fill in defaults, in place; the paths that were dropped."""
        dropped: list[str] = []
        if self.root:
            properties = self.root.get("properties") or {}
            for key in [key for key in found if key not in properties and key not in _EMBEDDED]:
                if not self.root.get("x-kubernetes-preserve-unknown-fields"):
                    del found[key]
                    dropped.append(key)
            for key, node in properties.items():
                if key not in _EMBEDDED:
                    _prepare_property(found, key, node, key, dropped)
        return dropped

    def errors(self, found: Mapping[str, Any]) -> list[FieldError]:
        """What is wrong with an object."""
        if not self.root:
            return []
        shown = {**self.root, "properties": {k: v for k, v in _properties(self.root).items() if k not in _EMBEDDED}}
        return list(_errors({k: v for k, v in found.items() if k not in _EMBEDDED}, shown, ""))

    def at(self, path: tuple[Any, ...]) -> Node:
        """The node of a field path of `fieldpaths`; empty: unknown."""
        node: Node = self.root
        for element in path:
            if not node:
                return {}
            if element[0] == "f":
                node = _properties(node).get(element[1]) or _additional(node)
            else:
                node = node.get("items") or {}
        return node


def _properties(node: Node) -> Mapping[str, Any]:
    return node.get("properties") or {}


def _additional(node: Node) -> Node:
    more = node.get("additionalProperties")
    return more if isinstance(more, dict) else {}


def _prepare_property(owner: dict[str, Any], key: str, node: Node, path: str, dropped: list[str]) -> None:
    if key not in owner and "default" in node:
        owner[key] = copy.deepcopy(node["default"])
    if owner.get(key) is None and key in owner and not node.get("nullable"):
        # A null for a field that cannot be null is taken as absent.
        del owner[key]
        if "default" in node:
            owner[key] = copy.deepcopy(node["default"])
    if key in owner:
        _prepare(owner[key], node, path, dropped)


def _prepare(value: Any, node: Node, path: str, dropped: list[str]) -> None:
    if isinstance(value, dict):
        properties, additional = _properties(node), node.get("additionalProperties")
        for key in [key for key in value if key not in properties]:
            if isinstance(additional, dict):
                _prepare(value[key], additional, f"{path}.{key}", dropped)
            elif additional or node.get("x-kubernetes-preserve-unknown-fields"):
                continue
            elif not (node.get("x-kubernetes-embedded-resource") and key in _EMBEDDED):
                del value[key]
                dropped.append(f"{path}.{key}")
        for key, child in properties.items():
            if key in value or "default" in child:
                _prepare_property(value, key, child, f"{path}.{key}", dropped)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _prepare(item, node.get("items") or {}, f"{path}[{index}]", dropped)


def _errors(value: Any, node: Node, path: str) -> Iterator[FieldError]:
    if value is None and node.get("nullable"):
        return
    if node.get("x-kubernetes-int-or-string"):
        if isinstance(value, bool) or not isinstance(value, int | str):
            yield _typed(value, "integer,string", path)
        else:
            yield from _text_errors(str(value), node, path)
        return
    kind = node.get("type")
    if kind and (not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind != "boolean")):
        yield _typed(value, kind, path)
        return
    yield from _value_errors(value, node, path)
    if isinstance(value, dict):
        yield from _object_errors(value, node, path)
    elif isinstance(value, list):
        yield from _list_errors(value, node, path)


def _typed(value: Any, kind: str, path: str) -> FieldError:
    names = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number"}
    shown = names.get(type(value), "null")
    return FieldError("TypeInvalid", path, shown, f'{path} in body must be of type {kind}: "{shown}"')


def _object_errors(value: Mapping[str, Any], node: Node, path: str) -> Iterator[FieldError]:
    prefix = f"{path}." if path else ""
    for key in node.get("required") or []:
        if key not in value:
            yield FieldError("Required", f"{prefix}{key}")
    if len(value) > node.get("maxProperties", len(value)):
        yield FieldError("Invalid", path, len(value), f"must have at most {node['maxProperties']} items")
    properties, additional = _properties(node), _additional(node)
    for key, item in value.items():
        child = properties.get(key)
        if child is not None:
            yield from _errors(item, child, f"{prefix}{key}")
        elif additional:
            yield from _errors(item, additional, f"{prefix}{key}")


def _list_errors(value: list[Any], node: Node, path: str) -> Iterator[FieldError]:
    if len(value) < node.get("minItems", 0):
        told = f"{path} in body should have at least {node['minItems']} items"
        yield FieldError("Invalid", path, len(value), told)
    if len(value) > node.get("maxItems", len(value)):
        yield FieldError("Invalid", path, len(value), f"must have at most {node['maxItems']} items")
    for index, item in enumerate(value):
        yield from _errors(item, node.get("items") or {}, f"{path}[{index}]")
    if node.get("x-kubernetes-list-type") == "map":
        seen = []
        for index, item in enumerate(value):
            key = {name: item.get(name) for name in node["x-kubernetes-list-map-keys"]}
            if key in seen:
                yield FieldError("Invalid", f"{path}[{index}]", key, "duplicate entries for key")
            seen.append(key)


def _value_errors(value: Any, node: Node, path: str) -> Iterator[FieldError]:
    if "enum" in node and value not in node["enum"]:
        allowed = ", ".join(json.dumps(one) for one in node["enum"])
        yield FieldError("NotSupported", path, value, f"supported values: {allowed}")
    if isinstance(value, str):
        yield from _text_errors(value, node, path)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        low, high = node.get("minimum"), node.get("maximum")
        open_low, open_high = node.get("exclusiveMinimum"), node.get("exclusiveMaximum")
        if low is not None and (value < low or (open_low and value == low)):
            told = "greater than" if open_low else "greater than or equal to"
            yield FieldError("Invalid", path, value, f"{path} in body should be {told} {low}")
        if high is not None and (value > high or (open_high and value == high)):
            told = "less than" if open_high else "less than or equal to"
            yield FieldError("Invalid", path, value, f"{path} in body should be {told} {high}")


def _text_errors(value: str, node: Node, path: str) -> Iterator[FieldError]:
    pattern = node.get("pattern")
    if pattern and not re.search(pattern, value):
        yield FieldError("Invalid", path, value, f"{path} in body should match '{pattern}'")
    if len(value) < node.get("minLength", 0):
        told = f"{path} in body should be at least {node['minLength']} chars long"
        yield FieldError("Invalid", path, value, told)
    if len(value) > node.get("maxLength", len(value)):
        yield FieldError("Invalid", path, value, f"may not be longer than {node['maxLength']}")
    if node.get("format") == "quantity":
        try:
            parse(value)
        except ValueError:
            yield FieldError("Invalid", path, value, f"{path} in body must be of type quantity")
