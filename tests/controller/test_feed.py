from __future__ import annotations

import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import pytest

from headgate.controller.feed import Feed
from headgate.core.hookspecs import SourceError
from headgate.core.model import Sample


class Scripted:
    """A source that answers with the next of `answers`, the last one for ever, and lets the test follow."""

    def __init__(self, *answers: Callable[[float], Iterable[object]]) -> None:
        self.answers = list(answers)
        self.calls = 0
        self.closed = threading.Event()

    def read(self, now: float) -> Iterable[Sample]:
        self.calls += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return answer(now)  # type: ignore[return-value]

    def close(self) -> None:
        self.closed.set()


def says(**known: float) -> Callable[[float], Iterable[Sample]]:
    return lambda now: [Sample("a", now, 1, **known)]  # type: ignore[arg-type]


def raises(error: BaseException) -> Callable[[float], Iterable[Sample]]:
    def read(now: float) -> Iterable[Sample]:
        raise error

    return read


@pytest.fixture
def feed() -> Iterator[Callable[[Scripted], Feed]]:
    started: list[Feed] = []

    def start(source: Scripted, *, every: float = 0.005, stale: float = 60) -> Feed:
        made = Feed("s", lambda _: source, ["a", "b"], every=every, stale=stale)
        made.start()
        started.append(made)
        return made

    yield start  # type: ignore[misc]
    for each in started:
        each.stop()


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "never happened"
        time.sleep(0.002)


def test_the_latest_samples_are_at_hand_with_their_age_on_the_askers_clock(feed: Callable[[Scripted], Feed]) -> None:
    source = Scripted(lambda now: [Sample("a", now - 5, 1, arrivals=7)])
    made = feed(source)
    until(lambda: bool(made.parts("a", 0)))
    (part,) = made.parts("a", 1000.0)
    assert part.sample.arrivals == 7
    assert 1000 - 5 - 30 < part.sample.time <= 1000 - 5
    assert made.parts("b", 1000.0) == []


@pytest.mark.parametrize("error", [SourceError("no connection"), ValueError("x"), MemoryError(), SystemExit(2)])
def test_after_an_error_the_last_samples_stay_and_grow_old(
    feed: Callable[[Scripted], Feed], error: BaseException
) -> None:
    source = Scripted(says(arrivals=7), raises(error))
    made = feed(source)
    until(lambda: made.report().failures.get("raised", 0) >= 2)
    assert [part.sample.arrivals for part in made.parts("a", 0)] == [7]
    problem = made.report().problem
    assert problem is not None
    assert problem == (str(error) if isinstance(error, SourceError) else f"{type(error).__name__}: {error}".strip())


def test_what_was_yielded_before_an_error_counts(feed: Callable[[Scripted], Feed]) -> None:
    def partly(now: float) -> Iterator[Sample]:
        yield Sample("a", now, 1, arrivals=3)
        raise SourceError("the rest is missing")

    made = feed(Scripted(partly))
    until(lambda: made.report().problem is not None)
    assert [part.sample.arrivals for part in made.parts("a", 0)] == [3]


@pytest.mark.parametrize(
    "nonsense",
    [
        lambda now: [Sample("a", now, 1, arrivals=math.nan)],
        lambda now: [Sample("c", now, 1, arrivals=1)],
        lambda now: [Sample("a", now + 1e6, 1, arrivals=1)],
        lambda now: ["a"],
        lambda now: (Sample("a", now, 1, arrivals=1) for _ in iter(int, 1)),
    ],
)
def test_nonsense_is_refused_and_the_rest_is_kept(
    feed: Callable[[Scripted], Feed], nonsense: Callable[[float], Iterable[object]]
) -> None:
    def both(now: float) -> Iterator[object]:
        yield Sample("b", now, 1, arrivals=5)
        yield from nonsense(now)

    made = feed(Scripted(both))
    until(lambda: made.report().failures.get("nonsense", 0) >= 1)
    assert [part.sample.arrivals for part in made.parts("b", 0)] == [5]
    assert made.report().failures.get("raised") is None


def test_none_is_no_answer(feed: Callable[[Scripted], Feed]) -> None:
    made = feed(Scripted(lambda now: None))  # type: ignore[arg-type, return-value]
    until(lambda: made.report().failures.get("raised", 0) >= 1)


def test_a_source_that_hangs_is_not_called_again_and_keeps_nobody_waiting(feed: Callable[[Scripted], Feed]) -> None:
    release, inside = threading.Event(), threading.Event()

    def hang(now: float) -> Iterable[Sample]:
        inside.set()
        release.wait()
        return [Sample("a", now, 1, arrivals=9)]

    source = Scripted(says(arrivals=7), hang)
    made = feed(source)
    assert inside.wait(30)
    calls = source.calls
    assert [part.sample.arrivals for part in made.parts("a", 0)] == [7]
    made.report()
    assert source.calls == calls
    release.set()
    until(lambda: [part.sample.arrivals for part in made.parts("a", 0)] == [9])


def test_a_hanging_read_is_reported_once(feed: Callable[[Scripted], Feed], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headgate.controller.feed.LEAST", 0.0)
    release = threading.Event()

    def hang(now: float) -> Iterable[Sample]:
        release.wait()
        return []

    made = feed(Scripted(hang))
    until(lambda: "hangs" in (made.report().problem or ""))
    made.report()
    assert made.report().failures == {"late": 1}
    release.set()
    until(lambda: made.report().problem is None)


def test_opening_is_tried_again(feed: Callable[[Scripted], Feed]) -> None:
    source, attempts = Scripted(says(arrivals=1)), []

    def opening(_: Sequence[str]) -> Scripted:
        attempts.append(1)
        if len(attempts) < 3:
            raise ConnectionError("not yet")
        return source

    made = Feed("s", opening, ["a"], every=0.002, stale=60)
    made.start()
    until(lambda: bool(made.parts("a", 0)))
    assert len(attempts) == 3
    made.stop()
    assert source.closed.wait(30)


def test_other_pipelines_are_read_at_once_and_those_that_stay_keep_their_samples() -> None:
    opened: list[tuple[Sequence[str], Scripted]] = []

    def opening(pipelines: Sequence[str]) -> Scripted:
        source = Scripted(lambda now: [Sample(name, now, 1, arrivals=len(opened)) for name in pipelines if name != "b"])
        opened.append((pipelines, source))
        return source

    made = Feed("s", opening, [], every=60, stale=60)
    made.start()
    made.follow(["a", "b"])
    until(lambda: bool(made.parts("a", 0)))
    made.follow(["b", "c"])
    until(lambda: bool(made.parts("c", 0)))
    assert [pipelines for pipelines, _ in opened] == [("a", "b"), ("b", "c")]
    assert opened[0][1].closed.is_set()
    assert made.parts("a", 0) == []
    made.stop()
    assert opened[1][1].closed.wait(30)


def test_a_source_that_sleeps_for_ever_does_not_keep_the_process_from_ending() -> None:
    script = """
import threading
from headgate.controller.feed import Feed

class Sleeps:
    def read(self, now):
        reading.set()
        threading.Event().wait()
    def close(self): ...

reading = threading.Event()
feed = Feed("s", lambda _: Sleeps(), ["a"], every=1, stale=1)
feed.start()
reading.wait()
feed.stop()
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
