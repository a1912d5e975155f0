"""Kubernetes quantities: exact arithmetic and the canonical spelling that typed objects are stored in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Any

_FORM = re.compile(r"^([+-]?[0-9.]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?$")
_BINARY = {f"{letter}i": Decimal(1024) ** power for power, letter in enumerate("KMGTPE", 1)}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}


@lru_cache(maxsize=65536)
def parse(text: str | int | float) -> Decimal:
    """The number. Raises ValueError."""
    match = _FORM.match(str(text))
    if match is None:
        raise ValueError(f"{text!r} is no quantity")
    number, suffix = Decimal(match[1]), match[2] or ""
    if suffix in _BINARY:
        return number * _BINARY[suffix]
    return number.scaleb(_DECIMAL[suffix] if suffix in _DECIMAL else int(suffix[1:]))


@lru_cache(maxsize=65536)
def canonical(text: str | int | float) -> str:
    """The same quantity as the API server writes it: the largest suffix without a fraction."""
    value = parse(text)
    if str(text)[-1:] == "i" and abs(value) >= 1024:
        for suffix in reversed(_BINARY):
            if value % _BINARY[suffix] == 0:
                return f"{int(value / _BINARY[suffix])}{suffix}"
    return decimal(value)


def decimal(value: Decimal) -> str:
    """A number in decimal spelling."""
    if not value:
        return "0"
    for suffix, exponent in sorted(_DECIMAL.items(), key=lambda item: -item[1]):
        scaled = value.scaleb(-exponent)
        if scaled == scaled.to_integral_value():
            return f"{int(scaled)}{suffix}"
    raise ValueError(f"{value} is finer than a nano")


def milli(text: str | int | float) -> int:
    """Thousandths, rounded up as the API server rounds."""
    value = parse(text) * 1000
    return -int(-value // 1)


Resources = Mapping[str, Any]


def tidy(requirements: dict[str, Any]) -> None:
    """Rewrite requests and limits in canonical spelling, in place."""
    for part in ("requests", "limits"):
        values = requirements.get(part)
        if values is not None:
            for name, value in values.items():
                values[name] = canonical(value)
            if not values:
                del requirements[part]


def same(one: Resources | None, other: Resources | None) -> bool:
    """Whether two resource lists hold the same quantities."""
    a, b = one or {}, other or {}
    return a.keys() == b.keys() and all(parse(a[name]) == parse(b[name]) for name in a)
