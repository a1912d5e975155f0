"""The loop: what it starts with, what it observes, and that it fails static."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.engine.test_lifecycle import body

from headgate.core.config import Document, validate
from headgate.engine import control as module
from headgate.engine.control import Control
from headgate.engine.engine import Engine, load_engine
from headgate.engine.metrics import Metrics
from headgate.engine.settings import EngineSettings
from headgate.engine.status import status


def engine(models: Path, **settings: Any) -> Engine:
    pipelines = [{"name": name, "steps": [{"model": "heavy.onnx"}]} for name in ("busy", "idle")]
    document = Document(str(models / "engine.yaml"), {"pipelines": pipelines, "budget": "2", **settings})
    return load_engine(validate(document, EngineSettings), document)


def ask(served: Engine, pipeline: str, count: int) -> None:
    answered = threading.Semaphore(0)
    request, header = body(np.ones((4, 256), np.float32))
    for _ in range(count):
        served.submit(pipeline, request, header, lambda _: answered.release())
    for _ in range(count):
        assert answered.acquire(timeout=30)


def test_before_anything_is_known_the_shares_are_equal(models: Path) -> None:
    served = engine(models)
    Control(served)
    assert served.standing.allocation.grants == {"busy": 1000, "idle": 1000}
    served.close()


def test_a_pipeline_that_wakes_up_without_cpus_does_not_wait_for_the_interval(models: Path) -> None:
    served = engine(models, interval="1h", lend=False)
    control = Control(served)
    ask(served, "idle", 1)
    served.apply({"busy": 2000, "idle": 0})
    control.start()
    # On credit, until that is used up; from then on it would wait for an hour.
    while served.standing.decisions == 0:
        ask(served, "idle", 1)
    assert served.standing.allocation.grants["idle"] > 0
    control.stop()
    served.close()


def test_a_decision_follows_what_was_observed(models: Path) -> None:
    served = engine(models)
    control = Control(served)
    ask(served, "idle", 1)
    ask(served, "busy", 200)
    control.step()
    found: Any = status(served)
    busy, idle = found["pipelines"]["busy"], found["pipelines"]["idle"]
    assert found["decisions"] == 1
    assert busy["granted"] + idle["granted"] == 2000
    assert busy["granted"] > idle["granted"]
    assert busy["arrival_rate"] == pytest.approx(200 * idle["arrival_rate"])
    totals = served.tallies["busy"].totals()
    assert busy["cpu_seconds_per_request"] == pytest.approx(totals.cpu_seconds / 200)
    assert busy["offered_load"] == pytest.approx(1000 * busy["arrival_rate"] * totals.cpu_seconds / 200, abs=1)
    served.close()


def test_when_no_decision_can_be_made_the_last_one_stays(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served = engine(models)
    control = Control(served)
    before = served.standing.allocation

    def broken(*_: object) -> None:
        raise RuntimeError("a policy with a mistake")

    monkeypatch.setattr(module, "decide", broken)
    control.step()
    control.step()
    assert served.standing.allocation is before
    assert served.standing.problem == "RuntimeError: a policy with a mistake"
    assert b"headgate_decisions_failed_total 2.0" in Metrics(served, control).text()
    monkeypatch.undo()
    ask(served, "busy", 20)
    control.step()
    assert served.standing.problem is None
    assert served.standing.decisions == 1
    served.close()


def test_grants_that_do_not_fit_change_nothing(models: Path) -> None:
    served = engine(models)
    served.apply({"busy": 500, "idle": 1500})
    for wrong in ({"busy": 2001, "idle": 0}, {"busy": 1000}, {"busy": -1, "idle": 0}, {"busy": 1500, "idle": 501}):
        with pytest.raises(ValueError, match=r"grant|budget|ceiling"):
            served.apply(wrong)
        assert served.standing.allocation.grants == {"busy": 500, "idle": 1500}
    served.close()


def test_without_control_nothing_is_decided(models: Path) -> None:
    served = engine(models, control="none")
    control = Control(served)
    ask(served, "busy", 20)
    control.step()
    assert served.standing.decisions == 0
    assert served.standing.arrival_rates["busy"] > 0
    served.close()


def test_a_budget_that_is_the_machine_s_follows_it(models: Path) -> None:
    pipelines = [{"name": name, "steps": [{"model": "heavy.onnx"}], "floor": "300m"} for name in ("busy", "idle")]
    document = Document(str(models / "engine.yaml"), {"pipelines": pipelines})
    served = load_engine(validate(document, EngineSettings), document)
    usable = [2000]
    control = Control(served, usable=lambda: usable[0])
    ask(served, "idle", 1)
    for usable[0] in (2000, 1200, 5000, 600):
        ask(served, "busy", 50)
        control.step()
        assert sum(served.standing.allocation.grants.values()) == usable[0]
        found: Any = status(served)
        assert found["budget"] == usable[0]
        assert f"headgate_budget_cores {usable[0] / 1000}" in Metrics(served, control).text().decode()
    # Without room for the floors there is no decision to make; what is in force stays.
    usable[0] = 599
    control.step()
    assert "the budget, 599m, cannot hold" in (served.standing.problem or "")
    assert served.standing.budget == sum(served.standing.allocation.grants.values()) == 600
    served.close()


def test_a_budget_that_was_set_stays(models: Path) -> None:
    served = engine(models, budget="1500m")
    control = Control(served, usable=lambda: 700)
    control.step()
    assert served.standing.budget == sum(served.standing.allocation.grants.values()) == 1500
    served.close()
