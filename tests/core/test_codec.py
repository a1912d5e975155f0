from __future__ import annotations

import json
import math
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.core.codec import Broken, Codec, Unstorable


class Point(NamedTuple):
    x: float
    y: Any = None


@dataclass(frozen=True, slots=True)
class Box:
    name: str
    corners: tuple[Point, ...] = ()


CODEC = Codec((Point, Box))


def through_json(value: Any) -> Any:
    return CODEC.unpack(json.loads(json.dumps(CODEC.pack(value), allow_nan=False)))


# Floats keep seven digits, so these are what is kept of any float.
kept = (
    st.floats(allow_nan=False)
    .map(lambda x: float(f"{x:.7g}") if abs(x) < 1e6 else x)
    .filter(lambda x: math.isinf(x) or abs(x) < 1e6)
)
plain = st.none() | st.booleans() | st.integers() | kept | st.text()
values = st.recursive(
    plain,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(tuple),
        st.lists(inner, max_size=3),
        st.dictionaries(st.text(max_size=5), inner, max_size=3),
        st.dictionaries(st.integers() | kept, inner, max_size=3),
        st.frozensets(st.text(max_size=3), max_size=3),
        st.builds(Point, kept, inner),
        st.builds(Box, st.text(max_size=3), st.lists(st.builds(Point, kept, inner), max_size=2).map(tuple)),
    ),
    max_leaves=12,
)


@given(values)
def test_what_is_packed_is_unpacked(value: Any) -> None:
    found = through_json(value)
    assert found == value
    assert type(found) is type(value)


def test_floats_keep_seven_digits_and_times_their_milliseconds() -> None:
    assert through_json((1 / 3, 1_795_479_876.123456)) == (0.3333333, 1_795_479_876.123)
    assert through_json((math.inf, -math.inf)) == (math.inf, -math.inf)
    assert math.isnan(through_json(math.nan))


def test_what_is_not_known_is_not_stored() -> None:
    class Other(NamedTuple):
        x: int

    for value in (Other(1), object(), (1, {2j})):
        with pytest.raises(Unstorable, match="not known"):
            CODEC.pack(value)


def test_another_version_of_a_type_is_refused() -> None:
    packed = CODEC.pack(Point(1.0))
    packed["types"]["Point"] = ["x", "y", "z"]
    with pytest.raises(Broken, match="Point has other fields"):
        CODEC.unpack(packed)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=4),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["$Point", "$Box", "$float", "$set", "$pairs", "$list", "$", "a"]), inner)
        ),
        max_leaves=8,
    )
)
def test_nonsense_is_broken_and_nothing_else(value: Any) -> None:
    for data in (value, {"format": 1, "types": {}, "value": value}, {"format": 1, "types": value, "value": 1}):
        with suppress(Broken):
            CODEC.unpack(data)
