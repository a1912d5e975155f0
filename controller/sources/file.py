"""Samples from a CSV or JSON file, for tests and for what another program writes."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from headgate.core.config import FilePath, Model
from headgate.core.hookspecs import SourceError
from headgate.core.model import Sample
from headgate.core.observation import AMOUNTS

_NUMBERS = (*AMOUNTS, "queue", "service_cv")
_PERCENTILE = re.compile(r"p(\d+(?:\.\d+)?)")
_MOST_BYTES = 32 * 2**20


class FileSettings(Model):
    """A file of samples: CSV with a header line, or a JSON list of objects (by the suffix .json).

    Columns: pipeline, and any of time, window (seconds), arrivals, completions, dropped, cpu_seconds, queue, service_cv
    and percentiles of the latency in seconds as p50, p95. An empty cell is not known. Without a time, a row is as old
    as the file.
    """

    path: FilePath


class FileSource:
    """Reads the whole file each time and yields the newest row of each pipeline that is not in the future."""

    def __init__(self, settings: FileSettings, pipelines: Sequence[str]) -> None:
        self._path = Path(settings.path)
        self._pipelines = frozenset(pipelines)

    def read(self, now: float) -> Iterator[Sample]:
        """The newest row of each pipeline. Raises SourceError that names the row that cannot be read."""
        try:
            if self._path.stat().st_size > _MOST_BYTES:
                raise SourceError(f"{self._path}: is longer than {_MOST_BYTES // 2**20} MiB")
            written, text = self._path.stat().st_mtime, self._path.read_text(encoding="utf-8")
        except OSError as error:
            raise SourceError(f"{self._path}: cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise SourceError(f"{self._path}: is not UTF-8 text") from None
        newest: dict[str, Sample] = {}
        for sample in self._samples(text, written):
            known = newest.get(sample.pipeline)
            if sample.pipeline in self._pipelines and sample.time <= now and not (known and known.time > sample.time):
                newest[sample.pipeline] = sample
        yield from newest.values()

    def close(self) -> None:
        """Nothing is kept open."""

    def _samples(self, text: str, written: float) -> Iterator[Sample]:
        try:
            rows: Any = json.loads(text) if self._path.suffix == ".json" else csv.DictReader(text.splitlines())
        except ValueError as error:
            raise SourceError(f"{self._path}: is not JSON: {error}") from None
        for number, row in enumerate(rows, start=1):
            try:
                yield _sample(row, written)
            except (TypeError, ValueError, KeyError, AttributeError) as error:
                raise SourceError(f"{self._path}: row {number}: {type(error).__name__} {error}") from None


def _sample(row: Mapping[str, Any], written: float) -> Sample:
    given = {name: value for name, value in row.items() if value not in (None, "")}
    known: dict[str, Any] = {name: float(given[name]) for name in _NUMBERS if name in given}
    latency = {float(found[1]): float(given[name]) for name in given if (found := _PERCENTILE.fullmatch(name))}
    if latency:
        known["latency"] = latency
    return Sample(str(given["pipeline"]), float(given.get("time", written)), float(given.get("window", 0)), **known)
