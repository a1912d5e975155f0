"""The load generator: a process of its own that plays a schedule against a server and times every answer.

Open loop: requests leave when the schedule says so, whatever became of the ones before, and latency counts
from the scheduled moment. A slow server (or a late generator) therefore shows in every latency that it caused.
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from time import perf_counter, time
from typing import Any

import numpy as np
import numpy.typing as npt
import uvloop

from headgate.engine.demo.client import UNSENT, Client, infer_request
from headgate.engine.demo.models import Model
from headgate.engine.demo.traffic import Array, Schedule

REPORT = 0.25
"""Seconds between two messages on progress."""
_LEAD = 0.3
_CONNECTIONS = 32


@dataclass(frozen=True, slots=True)
class Records:
    """What became of each request of a schedule; one entry each, times in seconds since the start of the run."""

    started: float
    """The start of the run on the wall clock (Unix time)."""
    sent: Array
    done: Array
    """NaN: it never ended."""
    status: npt.NDArray[np.int64]
    """HTTP status, or an outcome of the client module."""
    right: npt.NDArray[np.int64]
    """Rows whose label is the true one, of those answered."""
    same: npt.NDArray[np.bool_]
    """Whether the whole answer equals a direct run's."""
    cpu_seconds: float
    """CPU time that the load generator itself used."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What ended since the last message."""

    time: float
    """Seconds since the start of the run."""
    sent: tuple[int, ...]
    """Requests sent since the last message, for each region."""
    regions: npt.NDArray[np.int64]
    latencies: Array
    """Seconds since the scheduled moment."""
    status: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Target:
    """Where to send, and how long to wait for an answer (seconds)."""

    host: str
    port: int
    timeout: float
    cpus: frozenset[int] | None = None
    """CPUs that the generator keeps to; None: any."""


@dataclass(frozen=True, slots=True)
class Burst:
    """What a closed loop measured: `callers` that each send the next request when the last is answered."""

    callers: int
    latencies: Array
    per_second: float
    failed: int


def play(pipe: Pipe, target: Target, models: Sequence[Model], schedule: Schedule) -> None:
    """Process entry: play `schedule`; sends Progress now and then, finally Records."""
    _process(target, _Play(pipe, target, models, schedule).run)


def measure(pipe: Pipe, target: Target, models: Sequence[Model], callers: Sequence[int], seconds: float) -> None:
    """Process entry: for each model and number of callers a closed loop of `seconds`; sends a Burst for each."""

    async def bursts() -> None:
        for model in models:
            for count in callers:
                pipe.send(await _closed_loop(target, model, count, seconds))

    _process(target, bursts)


def _process(target: Target, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    if target.cpus:
        os.sched_setaffinity(0, target.cpus)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    uvloop.run(main())


def _payloads(model: Model) -> list[bytes]:
    return [infer_request(model.name, model.input_name, rows) for rows in model.inputs]


class _Play:
    def __init__(self, pipe: Pipe, target: Target, models: Sequence[Model], schedule: Schedule) -> None:
        count = len(schedule.times)
        self.pipe, self.models, self.schedule = pipe, models, schedule
        self.payloads = [_payloads(model) for model in models]
        self.sent, self.done = np.full(count, np.nan), np.full(count, np.nan)
        self.status = np.full(count, UNSENT)
        self.bodies: list[bytes] = [b""] * count
        self.client = Client(target.host, target.port, target.timeout, self.ended)
        self.fresh: list[int] = []
        self.next = 0
        self.start = 0.0

    def ended(self, token: int, status: int, body: bytes, now: float) -> None:
        self.done[token], self.status[token], self.bodies[token] = now - self.start, status, body
        self.fresh.append(token)

    async def run(self) -> None:
        await self.client.warm(_CONNECTIONS)
        gc.collect()
        gc.disable()
        before = resource.getrusage(resource.RUSAGE_SELF)
        self.start = perf_counter() + _LEAD
        started = time() + _LEAD
        reporter = asyncio.create_task(self.report())
        await self.send_all()
        await self.client.idle()
        reporter.cancel()
        await self.client.close()
        after = resource.getrusage(resource.RUSAGE_SELF)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        right, same = self.check()
        self.pipe.send(Records(started, self.sent, self.done, self.status, right, same, used))

    async def send_all(self) -> None:
        times, regions, variants = (
            values.tolist() for values in (self.schedule.times, self.schedule.regions, self.schedule.variants)
        )
        send, payloads, start = self.client.send, self.payloads, self.start
        for index, when in enumerate(times):
            if (wait := start + when - perf_counter()) > 0:
                await asyncio.sleep(wait)
            elif not index % 16:
                await asyncio.sleep(0)  # late: answers that have come in the meantime must not wait for it
            self.sent[index] = perf_counter() - start
            self.next = index + 1
            send(index, payloads[regions[index]][variants[index]], start + when)

    async def report(self) -> None:
        reported = 0
        while True:
            await asyncio.sleep(REPORT)
            self.client.sweep()
            tokens, self.fresh = np.array(self.fresh, dtype=np.int64), []
            counts = np.bincount(self.schedule.regions[reported : self.next], minlength=len(self.models))
            reported = self.next
            self.pipe.send(
                Progress(
                    perf_counter() - self.start,
                    tuple(counts.tolist()),
                    self.schedule.regions[tokens],
                    self.done[tokens] - self.schedule.times[tokens],
                    self.status[tokens],
                )
            )

    def check(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        right = np.zeros(len(self.bodies), dtype=np.int64)
        same = np.zeros(len(self.bodies), dtype=np.bool_)
        for index, body in enumerate(self.bodies):
            if self.status[index] != 200:
                continue
            model, variant = self.models[self.schedule.regions[index]], self.schedule.variants[index]
            size = 8 * model.inputs.shape[1]
            if len(body) > size:
                answer = np.frombuffer(body[-size:], dtype="<i8")
                right[index] = np.count_nonzero(answer == model.labels[variant])
                same[index] = np.array_equal(answer, model.expected[variant])
        return right, same


async def _closed_loop(target: Target, model: Model, callers: int, seconds: float) -> Burst:
    payloads = _payloads(model)
    latencies: list[float] = []
    sent: dict[int, float] = {}
    failed = 0
    sequence = 0

    def again() -> None:
        nonlocal sequence
        sequence += 1
        sent[sequence] = perf_counter()
        client.send(sequence, payloads[sequence % len(payloads)], sent[sequence])

    def ended(token: int, status: int, _: bytes, now: float) -> None:
        nonlocal failed
        failed += status != 200
        latencies.append(now - sent.pop(token))
        if now < end:
            again()

    client = Client(target.host, target.port, target.timeout, ended)
    await client.warm(callers)
    start = perf_counter()
    end = start + seconds
    for _ in range(callers):
        again()
    await client.idle()
    took = perf_counter() - start
    await client.close()
    return Burst(callers, np.array(latencies), len(latencies) / took, failed)
