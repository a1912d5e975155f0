"""The three client-side patch formats: JSON merge (RFC 7386), JSON (RFC 6902), and strategic merge."""

from __future__ import annotations

import copy
from typing import Any

from .errors import StatusError, bad_request

Object = dict[str, Any]
APPLY_TYPE = "application/apply-patch+yaml"

# Merge keys of the built-in types' lists, by the last field of the path; other lists are replaced.
MERGE_KEYS = {
    "containers": ("name",),
    "initContainers": ("name",),
    "ephemeralContainers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "volumeMounts": ("mountPath",),
    "imagePullSecrets": ("name",),
    "ports": ("containerPort",),
    "conditions": ("type",),
    "ownerReferences": ("uid",),
    "hostAliases": ("ip",),
    "addresses": ("type",),
    "resizePolicy": None,
    "taints": None,
}
_SETS = {"finalizers"}


def merged(old: Any, patch: Any) -> Any:
    """RFC 7386: null removes, lists are replaced."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def strategic(old: Any, patch: Any, field: str = "") -> Any:
    """Strategic merge: lists with a merge key are merged by it; `$patch: delete` and `$patch: replace` are known."""
    if isinstance(patch, list):
        return _strategic_list(old if isinstance(old, list) else [], patch, field)
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    if patch.get("$patch") == "replace":
        return {key: copy.deepcopy(value) for key, value in patch.items() if key != "$patch"}
    if patch.get("$patch") == "delete":
        return {}
    result = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if key.startswith("$"):
            continue
        if value is None:
            result.pop(key, None)
        else:
            result[key] = strategic(result.get(key), value, key)
    return result


def _strategic_list(old: list[Any], patch: list[Any], field: str) -> list[Any]:
    if field in _SETS:
        return [*old, *(value for value in patch if value not in old)]
    keys = MERGE_KEYS.get(field)
    if keys is None or not all(isinstance(item, dict) for item in patch):
        return copy.deepcopy(patch)
    if any(item.get("$patch") == "replace" for item in patch):
        return [copy.deepcopy(item) for item in patch if item.get("$patch") != "replace"]
    (key,) = keys
    result = list(old)
    for item in patch:
        if key not in item:
            raise bad_request(f"map: {item} does not contain declared merge key: {key}")
        at = next((index for index, have in enumerate(result) if have.get(key) == item[key]), None)
        if item.get("$patch") == "delete":
            if at is not None:
                del result[at]
        elif at is None:
            result.append(strategic({}, item))
        else:
            result[at] = strategic(result[at], item)
    return result


def json_patch(old: Object, operations: Any) -> Object:
    """RFC 6902. Raises StatusError 422 where a path or a test does not hold, 400 where it is no patch."""
    if not isinstance(operations, list):
        raise bad_request("json: cannot unmarshal object into Go value of type jsonpatch.Patch")
    result: Any = copy.deepcopy(old)
    for operation in operations:
        try:
            result = _operate(result, operation)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise StatusError(
                422, "Invalid", f"the server rejected our request due to an error in our request: {error}"
            ) from None
    if not isinstance(result, dict):
        raise bad_request("the patch leaves no object")
    return result


def _operate(root: Any, operation: Object) -> Any:
    verb, path = operation["op"], _pointer(operation["path"])
    if verb == "test":
        if _at(root, path) != operation["value"]:
            raise ValueError(f"testing path {operation['path']} value failed")
        return root
    if verb in ("move", "copy"):
        value = copy.deepcopy(_at(root, _pointer(operation["from"])))
        if verb == "move":
            root = _operate(root, {"op": "remove", "path": operation["from"]})
        return _operate(root, {"op": "add", "path": operation["path"], "value": value})
    if not path:
        return copy.deepcopy(operation["value"])
    parent, last = _at(root, path[:-1]), path[-1]
    if isinstance(parent, list):
        index = len(parent) if last == "-" else int(last)
        if verb == "add":
            if not 0 <= index <= len(parent):
                raise IndexError(f"add operation does not apply: index out of bounds: {last}")
            parent.insert(index, copy.deepcopy(operation["value"]))
        elif verb == "replace":
            parent[index] = copy.deepcopy(operation["value"])
        else:
            del parent[index]
    elif verb in ("remove", "replace") and last not in parent:
        raise KeyError(f"{verb} operation does not apply: doc is missing key: {operation['path']}")
    elif verb == "remove":
        del parent[last]
    else:
        parent[last] = copy.deepcopy(operation["value"])
    return root


def _pointer(text: str) -> list[str]:
    return [part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:]]


def _at(root: Any, path: list[str]) -> Any:
    for part in path:
        root = root[int(part)] if isinstance(root, list) else root[part]
    return root
