"""Request traces: how many requests reached each pipeline in each minute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from headgate.controller.backtest.grid import Trace
from headgate.controller.backtest.prometheus import read_prometheus
from headgate.controller.backtest.table import read_table
from headgate.core.config import SettingsError


def read_trace(
    path: str,
    *,
    columns: Mapping[str, str] | None = None,
    days: Sequence[int] = (),
    fill: bool = False,
    label: str = "pipeline",
) -> Trace:
    """The trace in the file at `path`: CSV, or the JSON of a Prometheus range query, told apart by how they begin.

    Raises SettingsError that names the file and the line. A minute without a row is an error, or with `fill` a minute
    without requests. For CSV: `columns` maps minute, pipeline, requests and day to the file's own headings, and `days`
    chooses among the values of the column day. For Prometheus: `label` is the label that names the pipeline.
    """
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            start = file.read(1)
            file.seek(0)
            if start in ("{", "["):
                return read_prometheus(path, file, label=label, fill=fill)
            return read_table(path, file, columns=columns or {}, days=tuple(days), fill=fill)
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: is not UTF-8 text: {error.reason} at byte {error.start}") from None
