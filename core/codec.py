"""Frozen values to JSON and back, so that what was learned survives a restart.

A type is written by its name with its values in order, beside a table of the fields of each type. A reader whose types
have other fields refuses the whole, so a newer version never misreads what an older one wrote.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from headgate.core.config import Model

FORMAT = 1
_FLOAT, _SET, _PAIRS, _LIST = "$float", "$set", "$pairs", "$list"


class Unstorable(ValueError):  # noqa: N818 - a state of a value, named as its cause
    """A value holds something that is not one of the known types."""


class Broken(ValueError):  # noqa: N818
    """What was read is not what this version writes."""


class Codec:
    """Knows some frozen dataclasses and named tuples by their names.

    Numbers, texts, None, tuples, lists, frozen sets and mappings of these need no registration. Floats keep seven
    digits, and thousandths where they are a million and more: times in seconds since 1970 do.
    """

    def __init__(self, types: Iterable[type[Any]]) -> None:
        """Raises ValueError on two types of one name."""
        self._fields: dict[str, tuple[str, ...]] = {}
        self._types: dict[str, type[Any]] = {}
        for kind in types:
            if kind.__name__ in self._types:
                raise ValueError(f"two types are called {kind.__name__}")
            self._types[kind.__name__] = kind
            self._fields[kind.__name__] = _names(kind)

    def pack(self, value: Any) -> dict[str, Any]:
        """Plain JSON values. Raises Unstorable."""
        used: set[str] = set()
        packed = self._encode(value, used)
        return {"format": FORMAT, "types": {name: list(self._fields[name]) for name in sorted(used)}, "value": packed}

    def unpack(self, data: Any) -> Any:
        """The value that `pack` wrote. Raises Broken."""
        if not isinstance(data, Mapping) or data.get("format") != FORMAT:
            raise Broken(f"is not of format {FORMAT}")
        try:
            for name, known in data["types"].items():
                if self._fields.get(name) != tuple(known):
                    raise Broken(f"{name} has other fields in this version")
            return self._decode(data["value"])
        except (KeyError, TypeError, AttributeError, IndexError, ValueError, RecursionError) as error:
            if isinstance(error, Broken):
                raise
            raise Broken(f"is damaged: {type(error).__name__}: {error}") from error

    def _encode(self, value: Any, used: set[str]) -> Any:
        if value is None or isinstance(value, bool | str):
            return value
        kind = type(value)
        if kind is int:
            return value
        if kind is float:
            return _short(value) if math.isfinite(value) else {_FLOAT: repr(value)}
        if kind is tuple:
            return [self._encode(item, used) for item in value]
        if kind is list:
            return {_LIST: [self._encode(item, used) for item in value]}
        if self._types.get(kind.__name__) is kind:
            used.add(kind.__name__)
            parts = [self._encode(getattr(value, name), used) for name in self._fields[kind.__name__]]
            return {f"${kind.__name__}": parts}
        if isinstance(value, frozenset):
            return {_SET: [self._encode(item, used) for item in sorted(value)]}
        if isinstance(value, Mapping) and not isinstance(value, Model):
            return self._mapping(value, used)
        raise Unstorable(f"{kind.__module__}.{kind.__qualname__} is not known to the codec")

    def _mapping(self, value: Mapping[Any, Any], used: set[str]) -> Any:
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return {key: self._encode(item, used) for key, item in value.items()}
        return {_PAIRS: [[self._encode(key, used), self._encode(item, used)] for key, item in value.items()]}

    def _decode(self, data: Any) -> Any:
        if isinstance(data, list):
            return tuple([self._decode(item) for item in data])
        if not isinstance(data, dict):
            return data
        if len(data) != 1 or not (mark := next(iter(data))).startswith("$"):
            return {key: self._decode(item) for key, item in data.items()}
        content = data[mark]
        if mark == _FLOAT:
            return float(content)
        if mark == _LIST:
            return [self._decode(item) for item in content]
        if mark == _SET:
            return frozenset(self._decode(item) for item in content)
        if mark == _PAIRS:
            return {self._decode(key): self._decode(item) for key, item in content}
        name = mark[1:]
        if len(content) != len(self._fields[name]):
            raise Broken(f"{name} has {len(content)} values")
        return self._types[name](**dict(zip(self._fields[name], map(self._decode, content), strict=True)))


def _names(kind: type[Any]) -> tuple[str, ...]:
    if is_dataclass(kind):
        return tuple(field.name for field in fields(kind))
    names: tuple[str, ...] = kind._fields  # a named tuple
    return names


def _short(value: float) -> float:
    return float(f"{value:.7g}") if abs(value) < 1e6 else round(value, 3)
