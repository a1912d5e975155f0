from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.core.model import Sample
from headgate.core.observation import AMOUNTS, STATES, Nonsense, Origin, Part, checked, merge

NOW = 1000.0


def part(source: str, age: float, *, window: float = 10, stale: float = 60, **known: object) -> Part:
    return Part(source, replace(Sample("a", NOW - age, window), **known), stale)  # type: ignore[arg-type]


def test_each_field_is_from_the_first_source_that_knows_it() -> None:
    merged = merge([part("first", 2, arrivals=50.0), part("second", 2, arrivals=70.0, queue=3.0)], NOW)
    assert merged is not None
    assert (merged.sample.arrivals, merged.sample.queue) == (50, 3)
    assert merged.origins == {"arrivals": Origin("first", 2), "queue": Origin("second", 2)}


def test_a_stale_part_gives_way_to_the_next() -> None:
    merged = merge([part("first", 61, arrivals=50.0), part("second", 59, arrivals=70.0)], NOW)
    assert merged is not None
    assert merged.sample.arrivals == 70


def test_what_only_stale_parts_know_is_unknown_not_zero() -> None:
    merged = merge([part("rates", 61, arrivals=50.0), part("usage", 1, cpu_seconds=4.0)], NOW)
    assert merged is not None
    assert merged.sample.arrivals is None
    assert merge([part("rates", 61, arrivals=50.0)], NOW) is None
    assert merge([], NOW) is None


def test_amounts_of_older_parts_are_carried_to_the_freshest_window_as_rates() -> None:
    merged = merge([part("slow", 20, window=30, arrivals=60.0), part("fast", 1, window=1, completions=2.0)], NOW)
    assert merged is not None
    assert (merged.sample.time, merged.sample.window) == (NOW - 1, 1)
    assert merged.sample.arrivals == pytest.approx(60 / 30 * 1)


def test_a_moment_without_a_window_takes_the_longest_there_is() -> None:
    merged = merge([part("queue", 0, window=0, queue=9.0), part("rates", 5, window=30, arrivals=60.0)], NOW)
    assert merged is not None
    assert (merged.sample.time, merged.sample.window, merged.sample.arrivals) == (NOW, 30, 60)


known = st.dictionaries(
    st.sampled_from([*AMOUNTS, "queue", "service_cv"]), st.floats(0, 1e6, allow_subnormal=False), min_size=1
)


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0.1, 100), known), max_size=5))
def test_the_merged_rates_are_always_those_of_the_part_they_are_from(
    read: list[tuple[float, float, dict[str, float]]],
) -> None:
    parts = [part(str(i), age, window=window, **values) for i, (age, window, values) in enumerate(read)]
    merged = merge(parts, NOW)
    fresh = [p for p in parts if NOW - p.sample.time <= p.stale]
    assert (merged is None) == (not fresh)
    if merged is None:
        return
    checked(merged.sample, {"a"})
    for name in (*AMOUNTS, *STATES):
        first = next((p for p in fresh if getattr(p.sample, name) is not None), None)
        value = getattr(merged.sample, name)
        assert (value is None) == (first is None)
        if first is not None and name in AMOUNTS:
            assert value / merged.sample.window == pytest.approx(getattr(first.sample, name) / first.sample.window)


@pytest.mark.parametrize(
    "nonsense",
    [
        None,
        {"pipeline": "a"},
        Sample("b", NOW, 1),
        Sample("a", math.nan, 1),
        Sample("a", NOW, -1),
        Sample("a", NOW, 0, arrivals=1),
        Sample("a", NOW, 1, arrivals=math.inf),
        Sample("a", NOW, 1, queue=-1),
        Sample("a", NOW, 1, cpu_seconds="3"),  # type: ignore[arg-type]
        Sample("a", NOW, 1, completions=True),
        Sample("a", NOW, 1, latency={95: math.nan}),
        Sample("a", NOW, 1, latency={101: 0.1}),
        Sample("a", NOW, 1, latency=[0.1]),  # type: ignore[arg-type]
    ],
)
def test_nonsense_is_refused(nonsense: object) -> None:
    with pytest.raises(Nonsense):
        checked(nonsense, {"a"})
