"""CPU, time and memory at the edges: Kubernetes quantities, durations and sizes, as millicores, seconds and bytes."""

from __future__ import annotations

import math
import re
from decimal import ROUND_CEILING, Decimal, InvalidOperation

MILLI = 1000
"""Millicores of one CPU."""

_QUANTITY = re.compile(r"(?P<number>[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)(?P<suffix>[numkMGTPE]?)", re.ASCII)
_SUFFIX = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_DURATION = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<unit>ms|us|s|m|h|d)", re.ASCII)
_UNIT = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_MOST_MILLICORES = 10**15
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMG]?i?)B?", re.ASCII)
_FACTOR = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


def parse_cpu(value: object) -> int:
    """Millicores of a Kubernetes CPU quantity: "1500m", "2", 0.5.

    Fractions of a millicore round up, as Kubernetes does. Raises ValueError on anything else,
    negative amounts, NaN and infinities included.
    """
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError(f"{value!r} is not a CPU quantity: write it like 250m, 2 or 1.5")
    found = _QUANTITY.fullmatch(str(value).strip())
    if found is None:
        raise ValueError(f"{value!r} is not a CPU quantity: write it like 250m, 2 or 1.5")
    try:
        number = Decimal(found["number"]).normalize()
    except InvalidOperation:  # an exponent of twenty digits is beyond decimals themselves
        raise ValueError(f"{value!r} is not a CPU quantity: its exponent is out of range") from None
    exponent = _SUFFIX[found["suffix"]]
    if number < 0:
        raise ValueError(f"{value!r} is negative: CPUs are 0 or more")
    # Checked on the exponent first: 1e999999 must not become a number of a million digits.
    if number and number.adjusted() + exponent + 3 > 15:
        raise ValueError(f"{value!r} is more CPUs than headgate counts ({_MOST_MILLICORES // MILLI} at most)")
    if number and number.adjusted() + exponent + 3 < -9:
        return 1
    return int(number.scaleb(exponent + 3).to_integral_value(ROUND_CEILING))


def format_cpu(millicores: int) -> str:
    """The Kubernetes quantity of `millicores`, in its canonical form: 1500 -> "1500m", 2000 -> "2"."""
    return str(millicores // MILLI) if millicores % MILLI == 0 else f"{millicores}m"


def parse_duration(value: object) -> float:
    """Seconds of a duration: "250ms", "1m30s", "2h"; a plain number is in seconds.

    Raises ValueError on anything else, negative durations, NaN and infinities included.
    """
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError(f"{value!r} is not a duration: write it like 250ms, 30s or 1m30s")
    if isinstance(value, (int, float)):
        seconds = float(value)
    else:
        text = value.strip().replace(" ", "")
        parts = list(_DURATION.finditer(text))
        if parts and "".join(part[0] for part in parts) == text:
            seconds = sum(float(part["number"]) * _UNIT[part["unit"]] for part in parts)
        else:
            try:
                seconds = float(text)
            except ValueError:
                raise ValueError(f"{value!r} is not a duration: write it like 250ms, 30s or 1m30s") from None
    if not math.isfinite(seconds) or seconds < 0:
        raise ValueError(f"{value!r} is not a duration of 0 seconds or more")
    return seconds


def format_duration(seconds: float) -> str:
    """A short duration for people: 0.25 -> "250ms", 90 -> "1m30s"."""
    if seconds < 1:
        return f"{seconds * 1000:.3g}ms"
    if seconds < 60:
        return f"{seconds:.3g}s"
    hours, rest = divmod(round(seconds), 3600)
    minutes, left = divmod(rest, 60)
    return "".join(f"{amount}{unit}" for amount, unit in ((hours, "h"), (minutes, "m"), (left, "s")) if amount)


def parse_size(value: object) -> int:
    """Bytes of "64MiB", "10M" or 4096. Raises ValueError on anything else, and on less than one byte."""
    found = (
        _SIZE.fullmatch(str(value).strip()) if isinstance(value, (str, int)) and not isinstance(value, bool) else None
    )
    size = float(found[1]) * _FACTOR.get(found[2], 0) if found else 0
    if not 1 <= size < math.inf:
        raise ValueError(f"{value!r} is not a size: write it like 64MiB, 512KiB or 4096")
    return int(size)
