"""Plays the demo: prepare, calibrate, three runs. Yields what happens as events; who shows them is not known here."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any

import numpy as np

from headgate.core.units import MILLI
from headgate.engine.demo import calibration, loadgen
from headgate.engine.demo.calibration import Cost
from headgate.engine.demo.figures import Plan, Run
from headgate.engine.demo.interrupts import held
from headgate.engine.demo.loadgen import Burst, Progress, Records, Target
from headgate.engine.demo.machine import Layout, Watch, process_seconds
from headgate.engine.demo.models import VARIANTS, Model
from headgate.engine.demo.problem import ProblemError
from headgate.engine.demo.server import CONTROLS, Control, Look, Server, Watcher, serving, settings
from headgate.engine.demo.traffic import compressed_day, draw

TIMEOUT = 5.0
"""Seconds after which the client gives up."""
QUEUE_SECONDS = 0.25
"""The queue of a pipeline holds what the whole budget serves in this many seconds; more wait is no use."""
MOST_PER_SECOND = 2500.0
"""What one load generator can send without being late."""
_CALIBRATION_QUEUE = 256


@dataclass(frozen=True, slots=True)
class Options:
    """What the user may choose."""

    seconds: float = 40.0
    """Length of the day that each run plays."""
    level: float = 0.8
    """Offered load of the day, as a share of the calibrated capacity."""
    flood: float = 3.0
    """Offered load of the flooding region, in budgets."""
    seed: int = 1
    calibration: float = 1.5
    """Seconds of each saturating closed loop."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage begins."""

    title: str


@dataclass(frozen=True, slots=True)
class Tick:
    """A run goes on."""

    control: Control
    progress: Progress
    look: Look | None


Event = Stage | Tick
Listener = Callable[[Event], None]


def calibrate(models: Sequence[Model], layout: Layout, options: Options, folder: Path, tell: Listener) -> list[Cost]:
    """Each pipeline's cost on this machine, measured through a headgate server that has nothing else to do."""
    tell(Stage("calibrating: what a request costs on this machine"))
    direct = [calibration.time_direct(model) for model in models]
    content = settings(CONTROLS[-1], models, {}, layout.budget, _CALIBRATION_QUEUE)
    callers = (1, 2 * -(-layout.budget // MILLI))
    bursts: list[Burst] = []
    with serving(content, folder / "calibration", layout.server) as server:
        target = _target(server, layout)
        # One caller needs only a few requests; a first round warms caches, threads and the grants up.
        with _process(loadgen.measure, target, models, callers, options.calibration) as (pipe, _):
            while len(bursts) < 2 * len(models):
                bursts.append(_receive(pipe))
    return calibration.costs(models, direct, bursts, layout.budget)


def plan(models: Sequence[Model], costs: Sequence[Cost], layout: Layout, options: Options) -> Plan:
    """The traffic and the SLOs that follow from the calibration."""
    each = tuple(cost.cpu_seconds for cost in costs)
    cpus = layout.budget / MILLI
    flood = options.flood
    region = compressed_day(options.seconds, each, cpus, level=options.level, flood=flood).flood.region
    flood = max(1.0, min(flood, MOST_PER_SECOND * each[region] / cpus))
    day = compressed_day(options.seconds, each, cpus, level=options.level, flood=flood)
    return Plan(models, np.array([cost.slo for cost in costs]), day, draw(day, VARIANTS, options.seed), layout.budget)


def play(plan: Plan, control: Control, layout: Layout, folder: Path, tell: Listener) -> Run:
    """One run: a fresh server under `control`, the whole schedule, the records."""
    tell(Stage(f"run: {control.title}"))
    slos = {model.name: float(slo) for model, slo in zip(plan.models, plan.slos, strict=True)}
    queue = max(1, round(QUEUE_SECONDS * plan.budget / MILLI / float(np.mean(plan.day.costs))))
    content = settings(control, plan.models, slos, plan.budget, queue)
    with (
        serving(content, folder / control.name, layout.server) as server,
        _process(loadgen.play, _target(server, layout), plan.models, plan.schedule) as (pipe, generator),
        Watcher(server) as watcher,
    ):
        watch = Watch((os.getpid(), server.pid, generator))
        while not isinstance(message := _receive(pipe), Records):
            tell(Tick(control, message, watcher.looks[-1] if watcher.looks else None))
        disturbance, used = watch.read(), process_seconds(server.pid)
    return Run(control, message, watcher.looks, disturbance, used)


def _target(server: Server, layout: Layout) -> Target:
    return Target(server.host, server.port, TIMEOUT, None if not layout.separate else layout.others)


@contextmanager
def _process(entry: Callable[..., None], *arguments: Any) -> Iterator[tuple[Pipe, int]]:
    """A process that runs `entry(pipe, *arguments)`: our end of the pipe, and its id; it is ended at the end."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=entry, args=(theirs, *arguments), daemon=True)
    try:
        with held():
            process.start()
        theirs.close()
        yield ours, process.pid or 0
    finally:
        if process.pid is not None:
            process.terminate()
            process.join()
        ours.close()


class GeneratorError(ProblemError):
    """The load generator ended without its results."""


def _receive(pipe: Pipe) -> Any:
    try:
        return pipe.recv()
    except EOFError:
        raise GeneratorError("the load generator ended before it had sent its results") from None
