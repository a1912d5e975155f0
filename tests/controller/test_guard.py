"""Time is never asserted here but as an order of events."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from headgate.controller.guard import Guard, HookFailed, Trouble
from headgate.core.observation import Nonsense


def anything(value: Any) -> Any:
    return value


@pytest.fixture
def guard() -> Guard:
    return Guard(allowance=60)


def failing(error: BaseException) -> Any:
    def call(until: float) -> None:
        raise error

    return call


def test_an_answer_comes_through(guard: Guard) -> None:
    guard.begin()
    assert guard.call("p", "hook", lambda _: 3, anything) == 3
    assert guard.failures() == {}


@pytest.mark.parametrize(
    "error", [ValueError("broken"), MemoryError(), SystemExit(1), TimeoutError(), RecursionError()]
)
def test_whatever_is_raised_is_named_and_counted(guard: Guard, error: BaseException) -> None:
    with pytest.raises(HookFailed, match=rf"plug-in p, hook: {type(error).__name__}"):
        guard.call("p", "hook", failing(error), anything)
    assert guard.failures() == {("p", "hook", "raised"): 1}


def test_whoever_presses_ctrl_c_means_headgate(guard: Guard) -> None:
    with pytest.raises(KeyboardInterrupt):
        guard.call("p", "hook", failing(KeyboardInterrupt()), anything)


def test_nonsense_is_named_and_counted(guard: Guard) -> None:
    def refuse(value: object) -> None:
        raise Nonsense(f"returned {value}")

    with pytest.raises(HookFailed, match="returned nan"):
        guard.call("p", "hook", lambda _: float("nan"), refuse)
    assert guard.failures() == {("p", "hook", "nonsense"): 1}


def test_trouble_with_a_process_is_counted_by_its_reason(guard: Guard) -> None:
    with pytest.raises(HookFailed, match="plug-in p, hook: its process ended"):
        guard.call("p", "hook", failing(Trouble("crashed", "its process ended")), anything)
    assert guard.failures() == {("p", "hook", "crashed"): 1}


def test_all_hooks_of_a_turn_share_its_time(guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("headgate.controller.guard.time.monotonic", lambda: now)
    guard.begin()
    assert guard.call("p", "hook", anything, anything) == 60, "it is told until when it is waited for"
    now = 59.0
    assert guard.call("q", "hook", lambda _: 1, anything) == 1
    now = 60.0
    with pytest.raises(HookFailed, match="no time was left"):
        guard.call("r", "hook", lambda _: 1, anything)
    guard.begin()
    assert guard.call("r", "hook", lambda _: 1, anything) == 1


def test_the_same_trouble_is_logged_once(guard: Guard, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            for error in (ValueError("broken"), Trouble("busy", "still busy")):
                with pytest.raises(HookFailed):
                    guard.call("p", "hook", failing(error), anything)
    expected = ["plug-in p, hook: ValueError: broken", "plug-in p, hook: still busy"]
    assert [record.getMessage() for record in caplog.records] == expected
    assert guard.failures() == {("p", "hook", "raised"): 5, ("p", "hook", "busy"): 5}
