"""Reads one source again and again in a thread of its own, and has its latest samples ready at any time."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from headgate.controller.guard import Trouble, brief
from headgate.core.extensions import SourceReport
from headgate.core.hookspecs import Source, SourceError
from headgate.core.model import Sample
from headgate.core.observation import Nonsense, Part, checked

log = logging.getLogger("headgate.sources")

OVERDUE = 3.0
"""A read is reported as hanging after this many times its period, and not before LEAST seconds."""
LEAST = 5.0
MOST_STRIKES = 4
"""A source that fails by its own fault is read half as often each time, down to a sixteenth."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a source last said, and how it does; replaced as a whole by its thread, read by anybody."""

    samples: tuple[Sample, ...] = ()
    answered: float | None = None
    """When it last answered without an error, monotonic."""
    begun: float | None = None
    """When the read began that has not returned yet, monotonic."""
    problem: str | None = None


def overdue_after(every: float) -> float:
    """Seconds after which a read, one every `every` seconds, is said to hang."""
    return max(LEAST, OVERDUE * every)


def most_samples(pipelines: Sequence[str]) -> int:
    """How many samples one read may yield."""
    return 10 * len(pipelines)


class Feed:
    """A source, read every `every` seconds. It is never called while an earlier call has not returned."""

    def __init__(
        self,
        name: str,
        open_source: Callable[[Sequence[str]], Source],
        pipelines: Sequence[str],
        *,
        every: float,
        stale: float,
    ) -> None:
        self.name = name
        self._open = open_source
        self._pipelines = tuple(pipelines)
        """Replaced as a whole when others are to be read; the thread then opens the source anew."""
        self._opened_for: tuple[str, ...] = ()
        self._every = every
        self._stale = stale
        self._reading = Reading()
        self._reads = 0
        self._failures: Counter[str] = Counter()
        self._overdue: float | None = None
        self._strikes = 0
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"headgate-source-{name}", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self) -> None:
        """Read no more; the thread closes the source when its last read has returned."""
        self._stop.set()
        self._wake.set()

    def follow(self, pipelines: Sequence[str]) -> None:
        """Read these pipelines from the next read on, which begins at once."""
        if tuple(pipelines) != self._pipelines:
            self._pipelines = tuple(pipelines)
            self._wake.set()

    def join(self, until: float) -> None:
        """Wait for that, until a monotonic time at the latest."""
        self._thread.join(max(0.0, until - time.monotonic()))

    def parts(self, pipeline: str, now: float) -> list[Part]:
        """Its latest samples of a pipeline with times on a clock that shows `now`: only their ages are carried over."""
        wall = time.time()
        return [
            Part(self.name, replace(sample, time=now - max(0.0, wall - sample.time)), self._stale)
            for sample in self._reading.samples
            if sample.pipeline == pipeline
        ]

    def watch(self) -> str | None:
        """What is wrong with it now; says so in the log, once, when a read hangs."""
        reading, now = self._reading, time.monotonic()
        if reading.begun is None or now - reading.begun <= overdue_after(self._every):
            return reading.problem
        if self._overdue != reading.begun:
            self._overdue = reading.begun
            self._failures["late"] += 1
            log.warning("source %s: a read hangs; it is not called again until that returns", self.name)
        return f"a read hangs for {now - reading.begun:.0f} s"

    def report(self) -> SourceReport:
        """How it does."""
        problem, answered = self.watch(), self._reading.answered
        age = None if answered is None else time.monotonic() - answered
        return SourceReport(age, self._reads, dict(self._failures), problem)

    def _run(self) -> None:
        source: Source | None = None
        while True:
            self._wake.clear()
            if self._stop.is_set():
                break
            began, pipelines = time.monotonic(), self._pipelines
            if source is not None and pipelines != self._opened_for:
                self._close(source)
                source = None
            if not pipelines:
                self._wake.wait()
                continue
            self._reading = replace(self._reading, begun=began)
            try:
                if source is None:
                    source, self._opened_for = self._open(pipelines), pipelines
                self._read(source, pipelines)
            except BaseException as error:  # noqa: BLE001 - also SystemExit and MemoryError of a plug-in
                self._failed(_reason(error), error)
            self._reading = replace(self._reading, begun=None)
            self._wake.wait(max(0.0, began + self._every * 2 ** min(self._strikes, MOST_STRIKES) - time.monotonic()))
        if source is not None:
            self._close(source)

    def _close(self, source: Source) -> None:
        try:
            source.close()
        except BaseException as error:  # noqa: BLE001
            self._failed("raised", error)

    def _read(self, source: Source, pipelines: tuple[str, ...]) -> None:
        now = time.time()
        most, known = most_samples(pipelines), frozenset(pipelines)
        kept: dict[str, list[Sample]] = {}
        wrong: Nonsense | None = None
        try:
            for index, item in enumerate(islice(source.read(now), most + 1)):
                if index == most:
                    raise Nonsense(f"yields more than {most} samples at once")
                try:
                    sample = checked(item, known)
                    if sample.time > time.time() + self._stale:
                        raise Nonsense(f"a sample of {sample.pipeline} is from the future: its clock is ahead")
                    kept.setdefault(sample.pipeline, []).append(sample)
                except Nonsense as error:
                    wrong = error
        finally:
            # A pipeline that it says nothing of this time keeps its samples, which grow old.
            rest = [s for s in self._reading.samples if s.pipeline not in kept and s.pipeline in known]
            self._reading = replace(self._reading, samples=(*rest, *(s for each in kept.values() for s in each)))
        if wrong is not None:
            raise wrong
        self._reads += 1
        if self._reading.problem is not None:
            log.info("source %s answers again", self.name)
        self._strikes = 0
        self._reading = replace(self._reading, answered=time.monotonic(), problem=None)

    def _failed(self, reason: str, error: BaseException) -> None:
        if self._stop.is_set():
            return  # its process was told to end
        if reason != "late" or self._overdue != self._reading.begun:
            self._failures[reason] += 1
        # What it is connected to may be back at any time; a fault of its own is not mended by asking again.
        self._strikes = 0 if isinstance(error, (SourceError, OSError)) else self._strikes + 1
        text = str(error) if isinstance(error, (SourceError, Nonsense, Trouble)) else brief(error)
        if text != self._reading.problem:
            log.warning("source %s: %s", self.name, text)
        self._reading = replace(self._reading, problem=text)


def _reason(error: BaseException) -> str:
    if isinstance(error, Trouble):
        return error.reason
    return "nonsense" if isinstance(error, Nonsense) else "raised"
