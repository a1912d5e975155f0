from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from headgate.controller.sources.file import FileSettings, FileSource
from headgate.core.hookspecs import SourceError
from headgate.core.model import Sample


def read(path: Path, now: float = 1000.0) -> dict[str, Sample]:
    return {sample.pipeline: sample for sample in FileSource(FileSettings(path=str(path)), ["a", "b"]).read(now)}


def test_the_newest_row_that_is_not_in_the_future_counts(tmp_path: Path) -> None:
    path = tmp_path / "samples.csv"
    path.write_text(
        "pipeline,time,window,arrivals,queue,p95\na,900,10,5,,\na,990,10,7,2,0.05\na,1010,10,9,,\nb,800,10,,,\nc,999,1,1,,\n"
    )
    assert read(path) == {
        "a": Sample("a", 990, 10, arrivals=7, queue=2, latency={95: 0.05}),
        "b": Sample("b", 800, 10),
    }


def test_json_holds_the_same(tmp_path: Path) -> None:
    path = tmp_path / "samples.json"
    path.write_text(json.dumps([{"pipeline": "a", "time": 990, "window": 10, "arrivals": 7, "queue": None}]))
    assert read(path) == {"a": Sample("a", 990, 10, arrivals=7)}


def test_without_a_time_a_row_is_as_old_as_the_file(tmp_path: Path) -> None:
    path = tmp_path / "samples.csv"
    path.write_text("pipeline,queue\na,3\n")
    os.utime(path, (950, 950))
    assert read(path) == {"a": Sample("a", 950, 0, queue=3)}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("s.csv", "pipeline,arrivals\na,many\n", "row 1: ValueError"),
        ("s.csv", "queue\n3\n", "row 1: KeyError"),
        ("s.json", "[", "is not JSON"),
        ("s.json", '["a"]', "row 1"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(SourceError, match=message):
        read(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"gone\.csv: cannot be read"):
        read(tmp_path / "gone.csv")
