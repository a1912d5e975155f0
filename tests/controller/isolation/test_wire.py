"""What a plug-in sends is made of plain values or is nonsense; frames come whole or not at all."""

from __future__ import annotations

import pickle
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.controller.isolation import wire
from headgate.controller.isolation.wire import Channel, packed, unpacked
from headgate.core.hookspecs import Adjustment, Veto
from headgate.core.model import Demand, Sample, Unknown
from headgate.core.observation import Nonsense


@pytest.mark.parametrize(
    "value",
    [
        None,
        ("ok", [1, 2.5, "x", b"y", True, {"a": (1,)}]),
        Sample("a", 1.0, 2.0, arrivals=3, latency={95: 0.1}),
        Demand((1.0, 2.0), 0.1, queue=3),
        Unknown("why"),
        Veto("no"),
        Adjustment({"a": 1}, "so"),
    ],
)
def test_our_own_values_cross_as_they_are(value: object) -> None:
    assert unpacked(packed(value)) == value


def test_what_means_the_same_becomes_plain() -> None:
    sample = Sample("a", np.float64(1), np.int64(2), arrivals=np.float32(0.5), latency=MappingProxyType({95: 1.0}))  # type: ignore[arg-type]
    found = unpacked(packed(sample))
    assert found == Sample("a", 1.0, 2, arrivals=0.5, latency={95: 1.0})
    assert [type(part) for part in (found.time, found.window, found.arrivals)] == [float, int, float]
    assert unpacked(packed(Demand(np.array([1.0, 2.0]), 0.1))).arrival_rates == (1.0, 2.0)  # type: ignore[arg-type]
    assert unpacked(packed(Counter(a=2))) == {"a": 2}


class Foreign:
    def __reduce__(self) -> Any:
        return print, ("executed",)


@pytest.mark.parametrize("value", [Foreign(), print, [Foreign], Sample, {1}, 2 + 1j, ValueError("x")])
def test_nothing_else_crosses_and_nothing_is_run(value: object, capsys: pytest.CaptureFixture[str]) -> None:
    if isinstance(value, set):
        assert unpacked(packed(value)) == value
        return
    if value is Sample:
        assert unpacked(pickle.dumps(value)) is Sample
        return
    with pytest.raises(Nonsense, match="no plain value"):
        unpacked(pickle.dumps(value))
    assert capsys.readouterr().out == ""


@given(st.binary(max_size=200))
def test_broken_bytes_are_nonsense(data: bytes) -> None:
    with suppress(Nonsense):
        unpacked(data)


@pytest.fixture
def channels() -> Iterator[tuple[Channel, socket.socket]]:
    ours, theirs = socket.socketpair()
    yield Channel(ours), theirs
    ours.close()
    theirs.close()


def test_a_frame_is_waited_for_again_until_it_is_whole(channels: tuple[Channel, socket.socket]) -> None:
    channel, other = channels
    frame = (5).to_bytes(8) + b"hello"
    for byte in frame[:-1]:
        other.send(bytes([byte]))
        with pytest.raises(TimeoutError):
            channel.receive(0.0)
    other.send(frame[-1:] + frame)
    assert channel.receive() == channel.receive() == b"hello"


def test_who_does_not_read_is_not_waited_for(channels: tuple[Channel, socket.socket]) -> None:
    channel, _ = channels
    with pytest.raises(TimeoutError):
        channel.send(bytes(2**24), time.monotonic())


def test_a_frame_without_end_is_nonsense(channels: tuple[Channel, socket.socket]) -> None:
    channel, other = channels
    other.send((wire.MOST + 1).to_bytes(8))
    with pytest.raises(Nonsense, match="more than 64 MiB"):
        channel.receive()


def test_the_end_of_the_other_side_is_seen(channels: tuple[Channel, socket.socket]) -> None:
    channel, other = channels
    other.close()
    with pytest.raises(EOFError):
        channel.receive()
    with pytest.raises(BrokenPipeError):
        channel.send(b"x")
