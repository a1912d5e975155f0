"""Small helpers on plain JSON objects."""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]


def clone(value: Any) -> Any:
    """A deep copy of JSON values; several times quicker than copy.deepcopy."""
    if isinstance(value, dict):
        return {key: clone(item) for key, item in value.items()}
    if isinstance(value, list):
        return [clone(item) for item in value]
    return value


def look(found: Any, path: str, default: Any = None) -> Any:
    """The value at a dotted path."""
    for part in path.split("."):
        if not isinstance(found, dict) or part not in found:
            return default
        found = found[part]
    return found


def place(found: Object, path: str, value: Any) -> None:
    """Set the value at a dotted path; None removes it."""
    *parents, last = path.split(".")
    for part in parents:
        found = found.setdefault(part, {})
    if value is None:
        found.pop(last, None)
    else:
        found[last] = value
