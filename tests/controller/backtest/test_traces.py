from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from headgate.controller.backtest import table
from headgate.controller.backtest.grid import Trace
from headgate.controller.backtest.traces import read_trace
from headgate.core.config import SettingsError

HEADER = "minute,pipeline,requests\n"


def read(tmp_path: Path, text: str, **options: object) -> Trace:
    path = tmp_path / "trace.csv"
    path.write_text(text)
    return read_trace(str(path), **options)  # type: ignore[arg-type]


def problem(tmp_path: Path, text: str, **options: object) -> str:
    with pytest.raises(SettingsError) as error:
        read(tmp_path, text, **options)
    return str(error.value).removeprefix(str(tmp_path / "trace.csv"))


def test_rows_in_any_order(tmp_path: Path) -> None:
    trace = read(tmp_path, HEADER + "8,b,4\n7,a,1\n8,a,2.5\n7,b,3\n")
    assert trace.pipelines == ("b", "a")
    np.testing.assert_array_equal(trace.requests, [[3, 1], [4, 2.5]])


def test_one_minute_of_one_pipeline(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read(tmp_path, HEADER + "1000000,a,5\n").requests, [[5]])


def test_days_follow_one_another(tmp_path: Path) -> None:
    text = "day,minute,job,requests\n2,0,a,20\n1,0,a,10\n1,1,a,11\n3,5,a,30\n"
    np.testing.assert_array_equal(read(tmp_path, text).requests[:, 0], [10, 11, 20, 30])
    np.testing.assert_array_equal(read(tmp_path, text, days=[3, 1]).requests[:, 0], [30, 10, 11])
    assert problem(tmp_path, text, days=[4]) == ": no row of day 4"


def test_own_headings(tmp_path: Path) -> None:
    columns = {"pipeline": "service", "requests": "n"}
    trace = read(tmp_path, "n,service,minute,other\n3,a,0,x\n", columns=columns)
    np.testing.assert_array_equal(trace.requests, [[3]])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("0,a,1\n1,a,-2\n", ":3: requests '-2' is not a number of 0 or more"),
        ("0,a,1\n1,a,many\n", ":3: requests 'many' is not a number of 0 or more"),
        ("0,a,1\n1,a,nan\n", ":3: requests 'nan' is not"),
        ("0,a,1\n1,a,inf\n", ":3: requests 'inf' is not"),
        ("0,a,1\n1,a,2e7\n", ":3: requests '2e7' is not a number of 0 or more (at most 1e+07 a minute)"),
        ("0,a,1\n1.5,a,2\n", ":3: minute '1.5' is not a whole number"),
        ("0,a,1\n-1,a,2\n", ":3: minute '-1' is not a whole number"),
        ("0,a,1\n1,a\n", ":3: has 2 fields, the header has 3"),
        ("0,a,1\n\n1,a,2\n", ":3: is blank"),
        ("0,a,1\n1,,2\n", ":3: the pipeline has no name"),
        ("0,a,1\n1,a,2\n0,a,3\n", ":4: a second row for minute 0 of pipeline a"),
        ("0,a,1\n0,b,1\n1,b,1\n1,a,1\n2,b,1\n3,a,1\n3,b,1\n", ":7: pipeline a has no row for minute 2"),
        ("0,a,1\n1,a,1\n1,b,1\n", ":4: pipeline b has no row for minute 0"),
        ("0,a,1\n1000000000000,a,1\n", ":3: pipeline a has no row for minute 1"),
        ("", ": no row below the header"),
    ],
)
def test_mistakes_are_named_with_their_line(tmp_path: Path, rows: str, message: str) -> None:
    assert problem(tmp_path, HEADER + rows).startswith(message)


def test_a_header_without_a_column(tmp_path: Path) -> None:
    assert problem(tmp_path, "minute,pipeline,count\n").startswith(":1: the header has no column requests")
    assert problem(tmp_path, "").startswith(":1: the header has no column minute")


def test_gaps_may_mean_zero(tmp_path: Path) -> None:
    trace = read(tmp_path, HEADER + "0,a,1\n600,b,2\n", fill=True)
    assert trace.requests.shape == (601, 2)
    assert trace.requests.sum() == 3
    assert "minutes from the first to the last" in problem(tmp_path, HEADER + "0,a,1\n1000000000000,a,2\n", fill=True)


def test_mistakes_beyond_the_first_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "_BATCH", 4)
    rows = [f"{minute},{name},{minute}\n" for minute in range(300) for name in "ab"]
    np.testing.assert_array_equal(read(tmp_path, HEADER + "".join(rows)).requests[:, 1], range(300))
    rows[401] = "1,b,7\n"
    assert problem(tmp_path, HEADER + "".join(rows)).startswith(":403: a second row for minute 1 of pipeline b")


def test_binary_and_missing_files(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    with pytest.raises(SettingsError, match="cannot be read"):
        read_trace(str(path))
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="not UTF-8"):
        read_trace(str(path))


def answer(*series: tuple[dict[str, str], list[tuple[float, str]]]) -> str:
    result = [{"metric": metric, "values": values} for metric, values in series]
    return json.dumps({"status": "success", "data": {"resultType": "matrix", "result": result}})


def test_prometheus_range_export(tmp_path: Path) -> None:
    text = answer(
        ({"pipeline": "a"}, [(1700000060, "1"), (1700000120, "2.5")]),
        ({"pipeline": "b"}, [(1700000000, "7"), (1700000060, "3"), (1700000120, "4")]),
    )
    assert problem(tmp_path, text).startswith(": pipeline='a' has no sample at 1700000000")
    np.testing.assert_array_equal(read(tmp_path, text, fill=True).requests, [[0, 7], [1, 3], [2.5, 4]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", ": is not JSON"),
        ("[]", ": is not the answer of a Prometheus range query"),
        ('{"status": "error", "error": "timeout"}', ": Prometheus answered with an error: timeout"),
        (answer(), ": the answer has no series"),
        (answer(({"job": "a"}, [(0, "1")])), ": a series has no label pipeline (it has job)"),
        (answer(({"pipeline": "a"}, [(0, "1"), (60, "NaN")])), ": series 'a', values[1]:"),
        (answer(({"pipeline": "a"}, [(0, "1"), (60, "-1")])), ": series 'a', values[1]:"),
        (answer(({"pipeline": "a"}, [(0, "1"), (15, "1")])), ": pipeline='a': the samples are not one minute apart"),
        (answer(({"pipeline": "a"}, [])), ": series 'a' has no values"),
    ],
)
def test_mistakes_in_an_export(tmp_path: Path, text: str, message: str) -> None:
    assert problem(tmp_path, text).startswith(message)
