"""Traces as CSV: `minute,pipeline,requests`, one row for each minute of each pipeline, in any order.

Read in batches: a file of gigabytes needs memory for its counts, not for its rows.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from headgate.controller.backtest.grid import LONGEST, MOST, Grid, Trace
from headgate.core.config import SettingsError

COLUMNS = ("minute", "pipeline", "requests", "day")
_BATCH = 50_000


@dataclass(frozen=True, eq=False, slots=True)
class _Batch:
    """Rows of the file as columns."""

    lines: NDArray[np.int64]
    days: NDArray[np.int64]
    minutes: NDArray[np.int64]
    names: Sequence[str]
    requests: NDArray[np.float64]


def read_table(path: str, file: TextIO, *, columns: Mapping[str, str], days: tuple[int, ...], fill: bool) -> Trace:
    """The trace in `file`. Raises SettingsError that names the line.

    With a column day, minutes count from the start of their day, and the `days` (none given: all, in order) follow one
    another without a pause.
    """
    grids: dict[int, Grid] = {}
    names: dict[str, int] = {}
    try:
        for batch in _batches(path, file, columns, days):
            who = np.fromiter((names.setdefault(name, len(names)) for name in batch.names), np.int64, len(batch.names))
            for day in dict.fromkeys(batch.days.tolist()):
                chosen = np.flatnonzero(batch.days == day)
                grid = grids.setdefault(day, Grid())
                clash = grid.put(batch.minutes[chosen], who[chosen], batch.requests[chosen])
                if clash is not None:
                    at = int(chosen[clash])
                    raise SettingsError(
                        f"{path}:{batch.lines[at]}: a second row for minute {batch.minutes[at]} of pipeline "
                        f"{batch.names[at]}: keep one"
                    )
    except csv.Error as error:
        raise SettingsError(f"{path}: is not CSV: {error}") from None
    for day in days or [0] * (not grids):
        if day not in grids:
            raise SettingsError(f"{path}: no row of day {day}" if days else f"{path}: no row below the header")
    pipelines = tuple(names)
    parts = []
    for day in dict.fromkeys(days or sorted(grids)):
        grid = grids.pop(day)
        if not fill and (gap := grid.gap(len(pipelines))) is not None:
            _explain_gap(path, columns, days, (day, gap[0], pipelines[gap[1]]))
        if grid.minutes > LONGEST:
            raise SettingsError(f"{path}: {grid.minutes} minutes from the first to the last: {LONGEST} at most")
        parts.append(grid.counts(len(pipelines)))
    return Trace(pipelines, np.concatenate(parts) if len(parts) > 1 else parts[0])


def _batches(path: str, file: TextIO, columns: Mapping[str, str], days: tuple[int, ...]) -> Iterator[_Batch]:
    rows = csv.reader(file)
    header = [name.strip() for name in next(rows, [])]
    at = {name: _column(path, header, name, columns.get(name)) for name in COLUMNS}
    if days and at["day"] is None:
        raise SettingsError(f"{path}:1: days were chosen, but the header has no column day: {', '.join(header)}")
    line = 2
    while chunk := list(islice(rows, _BATCH)):
        yield _batch(path, line, chunk, len(header), at, days)
        line += len(chunk)


def _column(path: str, header: list[str], name: str, heading: str | None) -> int | None:
    known = (heading,) if heading else ("pipeline", "job") if name == "pipeline" else (name,)
    found = [index for index, column in enumerate(header) if column in known]
    if len(found) > 1:
        raise SettingsError(f"{path}:1: the header has {len(found)} columns for {name}: keep one")
    if not found and (heading or name != "day"):
        raise SettingsError(
            f"{path}:1: the header has no column {known[0]}: it is {', '.join(header) or 'empty'}; "
            "needed are minute, pipeline and requests, or name them with --columns"
        )
    return found[0] if found else None


def _batch(
    path: str, line: int, rows: list[list[str]], width: int, at: Mapping[str, int | None], days: tuple[int, ...]
) -> _Batch:
    for index, row in enumerate(rows):
        if len(row) != width:
            what = f"has {len(row)} fields, the header has {width}" if row else "is blank: remove it"
            raise SettingsError(f"{path}:{line + index}: {what}")
    columns = list(zip(*rows, strict=True))

    def numbers(name: str, what: str, most: float) -> NDArray[np.float64]:
        index = at[name]
        if index is None:
            return np.zeros(len(rows))
        values = _numbers(columns[index])
        wrong = ~(np.isfinite(values) & (values >= 0) & (values <= most))
        if name != "requests":
            wrong |= values != np.floor(values)
        for first in np.flatnonzero(wrong)[:1]:
            raise SettingsError(f"{path}:{line + first}: {name} {columns[index][first]!r} is not {what}")
        return values

    whole = f"a whole number from 0 to {2**40}"
    all_days = numbers("day", whole, 2**40).astype(np.int64)
    minutes = numbers("minute", whole, 2**40).astype(np.int64)
    requests = numbers("requests", f"a number of 0 or more (at most {MOST:g} a minute)", MOST)
    names = [name.strip() for name in columns[at["pipeline"] or 0]]
    if "" in names:
        raise SettingsError(f"{path}:{line + names.index('')}: the pipeline has no name")
    lines = np.arange(line, line + len(rows))
    if not days:
        return _Batch(lines, all_days, minutes, names, requests)
    keep = np.flatnonzero(np.isin(all_days, days))
    return _Batch(lines[keep], all_days[keep], minutes[keep], [names[i] for i in keep], requests[keep])


def _numbers(texts: Sequence[str]) -> NDArray[np.float64]:
    """The numbers that `texts` are; NaN for one that is none."""
    try:
        return np.array(texts).astype(np.float64)
    except ValueError:
        return np.array([_number(text) for text in texts])


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _explain_gap(path: str, columns: Mapping[str, str], days: tuple[int, ...], gap: tuple[int, int, str]) -> None:
    """Raise SettingsError for a missing (day, minute, pipeline), at the line on which its next row stands."""
    day, minute, pipeline = gap
    after: tuple[int, int] | None = None
    before: tuple[int, int] | None = None
    with Path(path).open(encoding="utf-8-sig", newline="") as file:
        for batch in _batches(path, file, columns, days):
            for index in np.flatnonzero(batch.days == day).tolist():
                if batch.names[index] != pipeline:
                    continue
                found = (int(batch.minutes[index]), int(batch.lines[index]))
                if found[0] > minute:
                    after = min(after or found, found)
                else:
                    before = max(before or found, found)
    nearest = after or before or (minute, 1)
    raise SettingsError(
        f"{path}:{nearest[1]}: pipeline {pipeline} has no row for minute {minute} "
        f"(its nearest is minute {nearest[0]}): no row is not known to be no requests; "
        "add it, or pass --fill if it means 0"
    )
