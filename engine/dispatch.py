"""Runs the scheduler with threads and the clock: accepted work goes in, each piece runs once, on the right thread.

`session.run` releases the GIL, so threads of one process use all CPUs. Borrowed jobs run on threads of their own that
stay at a low priority: any process may lower a thread's priority, only a privileged one may raise it again.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Protocol

from headgate.engine.scheduler import Job, Limits, QueueFull, Scheduler

BORROWED_NICE = 15
"""Niceness of borrowed jobs, about 1/28 of an owner's weight. Measured on two cores, 1.4 ms inferences beside a flood
of 40 ms ones: their p99 was 6 to 8 ms at 15, as when alone; 10 to 12 ms at 10; 19 and SCHED_IDLE gained nothing more.
A borrower that holds the interpreter's lock must still get some CPU to let go of it."""

UNMANAGED_THREADS = 40
"""As many as the thread pools of common Python web frameworks have."""


class Work(Protocol):
    """One accepted request."""

    def run(self) -> None:
        """Do it, in a worker's thread. Must not raise."""
        ...

    def done(self, cpu_seconds: float) -> None:
        """It ran and used `cpu_seconds` of the worker's thread. Must not raise."""
        ...


class Dispatch(Protocol):
    """What the engine needs of whoever runs its work."""

    def submit(self, pipeline: str, work: Work) -> None:
        """Accept `work`. Raises QueueFull."""
        ...

    def apply(self, grants: Mapping[str, int], budget: int) -> None:
        """Divide `budget` millicores anew: those of every pipeline. Raises ValueError when they exceed it."""
        ...

    def load(self, pipeline: str) -> tuple[int, int]:
        """How many requests of `pipeline` wait, and how many run."""
        ...

    def close(self) -> None:
        """End the threads; what was accepted has been answered before."""
        ...


class Dispatcher:
    """Headgate's: slots and CPU time by grant, idle CPU lent."""

    def __init__(self, pipelines: list[Limits], budget: int, *, lend: bool, exhausted: threading.Event) -> None:
        """`exhausted`: set when a pipeline woke up and has used up what it may before the next division."""
        self._lock = threading.Lock()
        self._scheduler = Scheduler(pipelines, budget, lend=lend, now=time.monotonic())
        self._own = _Pool("own", nice=0, owner=self)
        self._borrowed = _Pool("borrowed", nice=BORROWED_NICE, owner=self)
        self._timer_changed = threading.Condition(self._lock)
        self._exhausted = exhausted
        self._timer: threading.Thread | None = None
        self._deadline: float | None = None
        self._closed = False

    def submit(self, pipeline: str, work: Work) -> None:
        """See Dispatch."""
        with self._lock:
            self._launch(self._scheduler.submit(Job(pipeline, work), time.monotonic()))

    def apply(self, grants: Mapping[str, int], budget: int) -> None:
        """See Dispatch. Takes effect with the next job that starts."""
        with self._lock:
            self._launch(self._scheduler.apply(grants, time.monotonic(), budget))

    def load(self, pipeline: str) -> tuple[int, int]:
        """See Dispatch."""
        with self._lock:
            return self._scheduler.waiting(pipeline), self._scheduler.running(pipeline)

    def close(self) -> None:
        """See Dispatch."""
        with self._lock:
            self._closed = True
            self._timer_changed.notify_all()
        self._own.close()
        self._borrowed.close()
        if self._timer is not None:
            self._timer.join()

    def finished(self, job: Job, cpu_seconds: float) -> Job | None:
        """A worker ended `job`: the one that it is to go on with, None when it is to wait for one."""
        with self._lock:
            starts = self._scheduler.finished(job, cpu_seconds, time.monotonic())
            # The worker goes on itself, which saves a change of threads.
            mine = next((start for start in starts if start.borrowed == job.borrowed), None)
            self._launch([start for start in starts if start is not mine])
            if mine is None:
                (self._borrowed if job.borrowed else self._own).idle += 1
            return mine

    def _launch(self, jobs: list[Job]) -> None:
        for job in jobs:
            (self._borrowed if job.borrowed else self._own).give(job)
        if self._scheduler.exhausted:
            self._scheduler.exhausted = False
            self._exhausted.set()
        deadline = self._scheduler.next_wake()
        if deadline is None or (self._deadline is not None and self._deadline <= deadline):
            return
        self._deadline = deadline
        if self._timer is None:
            self._timer = threading.Thread(target=self._tick, name="headgate-timer", daemon=True)
            self._timer.start()
        else:
            self._timer_changed.notify_all()

    def _tick(self) -> None:
        with self._lock:
            while not self._closed:
                now = time.monotonic()
                if self._deadline is not None and self._deadline <= now:
                    self._deadline = None
                    self._launch(self._scheduler.wake(now))
                else:
                    self._timer_changed.wait(None if self._deadline is None else self._deadline - now)


class _Pool:
    """Threads of one priority, started when there is work for one more. Its fields are guarded by the owner's lock."""

    def __init__(self, name: str, nice: int, owner: Dispatcher) -> None:
        self.idle = 0
        self._name = name
        self._nice = nice
        self._owner = owner
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []

    def give(self, job: Job) -> None:
        self._jobs.put(job)
        if self.idle:
            self.idle -= 1
            return
        name = f"headgate-{self._name}-{len(self._threads)}"
        thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def close(self) -> None:
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        if self._nice:
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), self._nice)
        # From mark to mark, so that waiting for the job and handing on its answer are charged too.
        mark = time.thread_time()
        while (job := self._jobs.get()) is not None:
            following: Job | None = job
            while following is not None:
                job = following
                job.payload.run()
                used = time.thread_time() - mark
                mark += used
                job.payload.done(used)
                following = self._owner.finished(job, used)


class Unmanaged:
    """No control: one large pool for all pipelines, in order of arrival. What a server without headgate does."""

    def __init__(self, pipelines: list[Limits]) -> None:
        self._limits = {limits.name: limits.queue for limits in pipelines}
        self._lock = threading.Lock()
        self._waiting = dict.fromkeys(self._limits, 0)
        self._running = dict.fromkeys(self._limits, 0)
        self._pool = ThreadPoolExecutor(UNMANAGED_THREADS, thread_name_prefix="headgate-unmanaged")

    def submit(self, pipeline: str, work: Work) -> None:
        """See Dispatch."""
        with self._lock:
            if self._waiting[pipeline] >= self._limits[pipeline]:
                raise QueueFull(pipeline)
            self._waiting[pipeline] += 1
        self._pool.submit(self._run, pipeline, work)

    def apply(self, grants: Mapping[str, int], budget: int) -> None:
        """Nothing is divided."""

    def load(self, pipeline: str) -> tuple[int, int]:
        """See Dispatch."""
        with self._lock:
            return self._waiting[pipeline], self._running[pipeline]

    def close(self) -> None:
        """See Dispatch."""
        self._pool.shutdown()

    def _run(self, pipeline: str, work: Work) -> None:
        with self._lock:
            self._waiting[pipeline] -= 1
            self._running[pipeline] += 1
        began = time.thread_time()
        work.run()
        work.done(time.thread_time() - began)
        with self._lock:
            self._running[pipeline] -= 1
