from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.core.units import format_cpu, format_duration, parse_cpu, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "millicores"), [("1500m", 1500), ("2", 2000), (0.5, 500), ("0.1m", 1), ("1k", 1_000_000), ("1e1", 10_000)]
)
def test_a_quantity_is_read_as_kubernetes_reads_it(text: object, millicores: int) -> None:
    assert parse_cpu(text) == millicores


@pytest.mark.parametrize(
    "bad", ["", "x", "-1", "nan", "1.5x", True, None, "1e999999", float("inf"), "1Gi", f"1e{'9' * 20}", "\uff18"]
)
def test_what_is_not_a_quantity_is_an_error_that_quotes_it(bad: object) -> None:
    with pytest.raises(ValueError, match=r"CPU"):
        parse_cpu(bad)


@given(st.integers(0, 10**12))
def test_a_quantity_survives_being_written_and_read(millicores: int) -> None:
    assert parse_cpu(format_cpu(millicores)) == millicores


@pytest.mark.parametrize(("text", "seconds"), [("250ms", 0.25), ("1m30s", 90), (2, 2), ("2h", 7200), ("0.5", 0.5)])
def test_a_duration_is_in_seconds(text: object, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("bad", ["", "x", "-1s", -1, "nan", float("inf"), "1 parsec", None])
def test_what_is_not_a_duration_is_an_error(bad: object) -> None:
    with pytest.raises(ValueError, match=r"duration"):
        parse_duration(bad)


@pytest.mark.parametrize(("seconds", "text"), [(0.25, "250ms"), (90, "1m30s"), (1.5, "1.5s"), (3600, "1h")])
def test_a_duration_is_written_for_people(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize("bad", ["", "0", "1X", -1, True, "9" * 400])
def test_what_is_not_a_size_is_an_error(bad: object) -> None:
    with pytest.raises(ValueError, match=r"size"):
        parse_size(bad)
