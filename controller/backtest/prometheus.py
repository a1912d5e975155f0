"""Traces exported from Prometheus: the JSON answer of /api/v1/query_range with a step of one minute.

Each series is a pipeline, each value the requests of the minute that ends at its time, as
`sum by (pipeline) (increase(headgate_requests_total[1m]))` gives them.
"""

from __future__ import annotations

import json
import math
from typing import Any, TextIO

import numpy as np

from headgate.controller.backtest.grid import LONGEST, MOST, Grid, Trace
from headgate.core.config import SettingsError

_STEP = 60.0
_ORIGIN = 2**30


def read_prometheus(path: str, file: TextIO, *, label: str, fill: bool) -> Trace:
    """The trace in `file`, whose series name their pipeline in `label`. Raises SettingsError that names the series."""
    try:
        answer = json.load(file)
    except ValueError as error:
        raise SettingsError(f"{path}: is not JSON: {error}") from None
    except RecursionError:
        raise SettingsError(f"{path}: is not the answer of a Prometheus range query: it is nested too deeply") from None
    names: dict[str, int] = {}
    grid = Grid()
    origin: float | None = None
    for series in _series(path, answer):
        name = _name(path, series, label)
        if name in names:
            raise SettingsError(f"{path}: two series have {label}={name!r}: sum them in the query, by ({label})")
        names[name] = len(names)
        times, counts = _values(path, name, series)
        origin = times[0] if origin is None else origin
        minutes = (times - origin) / _STEP
        if np.abs(minutes - np.round(minutes)).max() > 0.01:
            raise SettingsError(f"{path}: {label}={name!r}: the samples are not one minute apart: query with step=60s")
        # Counted from a minute far before the first, because a later series may begin earlier.
        clash = grid.put(np.round(minutes).astype(np.int64) + _ORIGIN, np.full(len(times), names[name]), counts)
        if clash is not None:
            raise SettingsError(f"{path}: {label}={name!r}: two samples of one minute (at {times[clash]:.0f})")
    if origin is None:
        raise SettingsError(f"{path}: the answer has no series: is the query right, and the time range?")
    pipelines = tuple(names)
    if not fill and (gap := grid.gap(len(pipelines))) is not None:
        time = origin + (gap[0] - _ORIGIN) * _STEP
        raise SettingsError(
            f"{path}: {label}={pipelines[gap[1]]!r} has no sample at {time:.0f}: "
            "no sample is not known to be no requests; pass --fill if it means 0"
        )
    if grid.minutes > LONGEST:
        raise SettingsError(f"{path}: {grid.minutes} minutes from the first to the last: {LONGEST} at most")
    return Trace(pipelines, grid.counts(len(pipelines)))


def _series(path: str, answer: Any) -> list[Any]:
    if isinstance(answer, dict):
        if answer.get("status") == "error":
            raise SettingsError(f"{path}: Prometheus answered with an error: {answer.get('error')}")
        data = answer.get("data", answer)
        if isinstance(data, dict) and data.get("resultType", "matrix") == "matrix":
            result = data.get("result")
            if isinstance(result, list):
                return result
    raise SettingsError(f"{path}: is not the answer of a Prometheus range query: it has no data.result of type matrix")


def _name(path: str, series: Any, label: str) -> str:
    labels = series.get("metric") if isinstance(series, dict) else None
    if not isinstance(labels, dict) or not isinstance(labels.get(label), str):
        found = f"it has {', '.join(sorted(labels))}" if isinstance(labels, dict) and labels else "it has none"
        raise SettingsError(f"{path}: a series has no label {label} ({found}): name the right one with --label")
    return str(labels[label])


def _values(path: str, name: str, series: Any) -> tuple[np.ndarray[Any, np.dtype[np.float64]], ...]:
    values = series.get("values")
    if not isinstance(values, list) or not values:
        raise SettingsError(f"{path}: series {name!r} has no values: export a range, not an instant")
    times, counts = [], []
    for index, pair in enumerate(values):
        try:
            time, count = float(pair[0]), float(pair[1])
        except (TypeError, ValueError, LookupError):
            time = count = math.nan
        if not (math.isfinite(time) and 0 <= count <= MOST):
            raise SettingsError(f"{path}: series {name!r}, values[{index}]: {pair!r} is not [time, requests]")
        times.append(time)
        counts.append(count)
    return np.array(times), np.array(counts)
