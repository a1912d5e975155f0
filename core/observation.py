"""What several sources say of one pipeline becomes one sample: which part is trusted, and how old it may be."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from headgate.core.model import Sample

AMOUNTS = ("arrivals", "completions", "dropped", "cpu_seconds")
"""Fields of a sample that add up over its window; they are carried to another window as rates."""
STATES = ("queue", "service_cv", "latency", "granted")
"""Fields that hold at the sample's time."""

_ALL = tuple(field.name for field in fields(Sample))


class Nonsense(ValueError):  # noqa: N818 - what it is, not an error of ours
    """What a source or a plug-in returned cannot be true; the message says which part of it."""


@dataclass(frozen=True, slots=True)
class Part:
    """A sample, where it is from, and the seconds after which it says nothing any more."""

    source: str
    sample: Sample
    stale: float


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a field of a merged sample is from, and how many seconds old it was."""

    source: str
    age: float


@dataclass(frozen=True, slots=True)
class Merged:
    """One pipeline's sample, and the origin of each of its known fields."""

    sample: Sample
    origins: Mapping[str, Origin]


def checked(sample: object, pipelines: Collection[str]) -> Sample:
    """`sample` when it can be true of one of `pipelines`. Raises Nonsense."""
    if not isinstance(sample, Sample):
        raise Nonsense(f"returned {type(sample).__name__} where a Sample belongs")
    if sample.pipeline not in pipelines:
        raise Nonsense(f"speaks of {sample.pipeline!r}, which is no pipeline of the settings")
    for name in _ALL[1:]:
        value: Any = getattr(sample, name)
        if name == "latency":
            _check_latency(sample.pipeline, value)
        elif value is not None and not (_is_number(value) and math.isfinite(value) and value >= 0):
            raise Nonsense(f"{name} of {sample.pipeline} is {value!r}: a finite number of 0 or more belongs there")
    if any(getattr(sample, name) is not None for name in AMOUNTS) and not sample.window > 0:
        raise Nonsense(f"window of {sample.pipeline} is 0 s, in which nothing can arrive")
    return sample


def merge(parts: Iterable[Part], now: float) -> Merged | None:
    """One sample of one pipeline, or None when every part is stale.

    Each field is taken from the first of `parts` that knows it and is not stale, so their order is their priority.
    Time and window are those of the freshest part used; amounts of the others are carried to that window as rates.
    A field that only stale parts know stays None: not known, which is not 0.
    """
    chosen: dict[str, Part] = {}
    for part in parts:
        if now - part.sample.time <= part.stale:
            for name in (*AMOUNTS, *STATES):
                if getattr(part.sample, name) is not None:
                    chosen.setdefault(name, part)
    if not chosen:
        return None
    freshest = max(chosen.values(), key=lambda part: part.sample.time).sample
    window = freshest.window or max(part.sample.window for part in chosen.values())
    values: dict[str, Any] = {}
    for name, part in chosen.items():
        value = getattr(part.sample, name)
        same = name in STATES or part.sample.window == window
        values[name] = value if same else value * window / part.sample.window
    sample = replace(Sample(freshest.pipeline, freshest.time, window), **values)
    return Merged(sample, {name: Origin(part.source, now - part.sample.time) for name, part in chosen.items()})


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_latency(pipeline: str, value: object) -> None:
    if value is None:
        return
    if not isinstance(value, Mapping) or len(value) > 100:
        raise Nonsense(f"latency of {pipeline} is no mapping of up to 100 percentiles to seconds")
    for percentile, seconds in value.items():
        numbers = _is_number(percentile) and _is_number(seconds)
        if not numbers or not 0 < percentile <= 100 or not math.isfinite(seconds) or seconds < 0:
            raise Nonsense(f"latency of {pipeline} at percentile {percentile!r} is {seconds!r}")
