"""Kubernetes quantities of any resource as numbers: what comparing requests with limits takes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any

from headgate.core.units import parse_cpu

_SUFFIX = {
    **{
        suffix: Decimal(10) ** power
        for suffix, power in zip("numkMGTPE", (-9, -6, -3, 3, 6, 9, 12, 15, 18), strict=True)
    },
    **{f"{suffix}i": Decimal(1024) ** power for power, suffix in enumerate("KMGTPE", 1)},
}


@lru_cache(maxsize=4096)
def number(quantity: str) -> Decimal:
    """A quantity in its base unit: "1Gi" -> 1073741824. Raises ValueError."""
    text = quantity.strip()
    for length in (2, 1):
        factor = _SUFFIX.get(text[-length:])
        if factor is not None:
            text = text[:-length]
            break
    else:
        factor = Decimal(1)
    try:
        return Decimal(text) * factor
    except InvalidOperation:
        raise ValueError(f"{quantity!r} is not a Kubernetes quantity") from None


def amounts(resources: Mapping[str, Any] | None, what: str) -> Mapping[str, str]:
    """The quantities of `what` ("requests", "limits") in a `resources`, by resource."""
    return {name: str(value) for name, value in ((resources or {}).get(what) or {}).items()}


def cpu(quantities: Mapping[str, Any] | None) -> int | None:
    """Millicores of the "cpu" in quantities by resource; None: there is none."""
    found = (quantities or {}).get("cpu")
    return None if found is None else _cpu(str(found))


@lru_cache(maxsize=4096)
def _cpu(quantity: str) -> int:
    return parse_cpu(quantity)


def seconds(timestamp: str | None) -> float:
    """Seconds since 1970 of an RFC 3339 time; 0 where there is none or it cannot be read."""
    try:
        return datetime.fromisoformat(timestamp or "").timestamp()
    except ValueError:
        return 0.0
