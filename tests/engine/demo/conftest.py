"""A small plan and runs made by hand, whose figures can be worked out on paper."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from headgate.engine.demo.calibration import Cost, Timing
from headgate.engine.demo.figures import Plan, Run
from headgate.engine.demo.loadgen import Records
from headgate.engine.demo.machine import Disturbance
from headgate.engine.demo.models import Model
from headgate.engine.demo.server import CONTROLS, Look
from headgate.engine.demo.traffic import Schedule, compressed_day

STARTED = 1000.0
NAMES = ("a", "b", "c")
SLO = 0.1


@pytest.fixture
def plan() -> Plan:
    """A day of 14 s on 2 CPUs: b floods from second 11/3 to 17/3. Ten requests a second, regions in turn."""
    rows = np.zeros((2, 4, 3), dtype=np.float32)
    labels = np.zeros((2, 4), dtype=np.int64)
    models = [Model(name, f"model {name}", (Path("m.onnx"),), rows, labels, labels, 0.9) for name in NAMES]
    day = compressed_day(14.0, (0.01, 0.01, 0.01), 2.0, level=0.8, flood=3.0)
    times = np.arange(140) / 10
    schedule = Schedule(times, np.arange(140) % 3, np.zeros(140, dtype=np.int64))
    return Plan(models, np.full(3, SLO), day, schedule, 2000)


@pytest.fixture
def costs() -> list[Cost]:
    """10 ms a request, 200 a second on two CPUs."""
    return [Cost(Timing(0.009, 0.0095), 0.011, 200.0, 0.01)] * 3


@pytest.fixture
def make_run(plan: Plan) -> Callable[..., Run]:
    """A run in which request i took `latency[i]` seconds and ended with `status[i]`."""

    def make(name: str, latency: np.ndarray, status: np.ndarray) -> Run:
        times = plan.schedule.times
        records = Records(
            started=STARTED,
            sent=times + 0.001,
            done=times + latency,
            status=status.astype(np.int64),
            right=np.where(status == 200, 3, 0),
            same=status == 200,
            cpu_seconds=0.5,
        )
        looks = [
            Look(
                STARTED + second,
                {"pipelines": {p: {"granted": g, "used": 400} for p, g in zip(NAMES, (667, 667, 666), strict=True)}},
            )
            for second in np.arange(0, 14, 0.25)
        ]
        control = next(control for control in CONTROLS if control.name == name)
        return Run(control, records, looks, Disturbance(0.01, 0.0), 12.0)

    return make
