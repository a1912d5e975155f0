"""Time is never asserted here but as an order of events: a call that hangs waits for an event that the test sets."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from headgate.controller.guard import Guard, HookFailed
from headgate.core.observation import Nonsense


def anything(value: Any) -> Any:
    return value


@pytest.fixture
def guard() -> Iterator[Guard]:
    made = Guard(allowance=0.05)
    yield made
    made.close()


def failing(error: BaseException) -> Any:
    def call() -> None:
        raise error

    return call


def test_an_answer_comes_through(guard: Guard) -> None:
    guard.begin()
    assert guard.call("p", "hook", lambda: 3, anything) == 3
    assert guard.failures() == {}


@pytest.mark.parametrize(
    "error", [ValueError("broken"), MemoryError(), SystemExit(1), KeyboardInterrupt(), TimeoutError(), RecursionError()]
)
def test_whatever_is_raised_is_named_and_counted(guard: Guard, error: BaseException) -> None:
    guard.begin()
    with pytest.raises(HookFailed, match=rf"plug-in p, hook: {type(error).__name__}"):
        guard.call("p", "hook", failing(error), anything)
    assert guard.failures() == {("p", "hook", "raised"): 1}


def test_nonsense_is_named_and_counted(guard: Guard) -> None:
    def refuse(value: object) -> None:
        raise Nonsense(f"returned {value}")

    guard.begin()
    with pytest.raises(HookFailed, match="returned nan"):
        guard.call("p", "hook", lambda: float("nan"), refuse)
    assert guard.failures() == {("p", "hook", "nonsense"): 1}


def test_one_that_hangs_is_left_alone_until_it_returns(guard: Guard) -> None:
    release, returned = threading.Event(), threading.Event()

    def hang() -> None:
        release.wait()
        returned.set()

    guard.begin()
    with pytest.raises(HookFailed, match="no answer within"):
        guard.call("p", "hook", hang, anything)
    for _ in range(3):
        guard.begin()
        with pytest.raises(HookFailed, match="earlier call has not returned"):
            guard.call("p", "hook", hang, anything)
        assert guard.call("q", "hook", lambda: 1, anything) == 1, "others go on"
    assert guard.failures() == {("p", "hook", "late"): 1, ("p", "hook", "busy"): 3}
    release.set()
    returned.wait()
    while guard._workers["p", "hook"].busy:
        pass
    guard._late("p", "hook", strikes=7)  # the eighth time in a row
    guard.begin()
    with pytest.raises(HookFailed, match="left out for a while"):
        guard.call("p", "hook", lambda: 2, anything)
    guard._rests.clear()
    guard.begin()
    assert guard.call("p", "hook", lambda: 2, anything) == 2


def test_one_that_held_up_everybody_is_late_although_it_answered(guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    guard.begin()

    def stall() -> int:
        monkeypatch.setattr(guard, "_until", guard._until - 3600)  # an hour went by and nobody could run
        return 1

    with pytest.raises(HookFailed, match="no answer within"):
        guard.call("p", "hook", stall, anything)
    assert guard.failures() == {("p", "hook", "late"): 1}


def test_all_hooks_of_a_turn_share_its_time(guard: Guard) -> None:
    release = threading.Event()
    guard.begin()
    with pytest.raises(HookFailed):
        guard.call("p", "hook", release.wait, anything)
    with pytest.raises(HookFailed, match="no time was left"):
        guard.call("q", "hook", lambda: 1, anything)
    guard.begin()
    assert guard.call("q", "hook", lambda: 1, anything) == 1
    release.set()


def test_threads_are_as_few_as_hooks_however_often_they_are_called(guard: Guard) -> None:
    release = threading.Event()
    for _ in range(20):
        guard.begin()
        with pytest.raises(HookFailed):
            guard.call("hangs", "hook", release.wait, anything)
        guard.begin()
        guard.call("works", "hook", lambda: 1, anything)
    names = [thread.name for thread in threading.enumerate()]
    assert sorted(name for name in names if name in ("headgate-hangs", "headgate-works")) == [
        "headgate-hangs",
        "headgate-works",
    ]
    release.set()


def test_nobody_waits_for_an_observer_and_its_trouble_is_counted(guard: Guard) -> None:
    done = threading.Event()
    guard.tell("p", "seen", done.set)
    assert done.wait(10)
    while guard._workers["p", "seen"].busy:
        pass
    guard.tell("p", "seen", failing(ValueError("broken")))
    while not guard.failures():
        pass
    assert guard.failures() == {("p", "seen", "raised"): 1}


def test_the_same_trouble_is_logged_once(guard: Guard, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            guard.begin()
            with pytest.raises(HookFailed):
                guard.call("p", "hook", failing(ValueError("broken")), anything)
    assert [record.getMessage() for record in caplog.records] == ["plug-in p, hook: ValueError: broken"]
    assert guard.failures() == {("p", "hook", "raised"): 5}


def test_a_call_that_never_returns_does_not_keep_the_process_from_ending() -> None:
    script = """
import threading
from headgate.controller.guard import Guard, HookFailed
guard = Guard(0.01)
guard.begin()
try:
    guard.call("p", "hook", threading.Event().wait, lambda value: value)
except HookFailed:
    pass
guard.close()
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
