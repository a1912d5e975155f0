"""What size the machine should have, by what the engine knows of its load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.cluster.process import until
from tests.engine.conftest import Running

from headgate.core.allocation import Allocation
from headgate.core.config import Document, SettingsError, validate
from headgate.core.model import Demand, Pipeline, Unknown
from headgate.core.nodes.settings import GroupSettings
from headgate.engine.engine import Standing
from headgate.engine.settings import EngineSettings
from headgate.engine.sizing import EVERY, Sizing

PIPELINES = (Pipeline("busy", floor=100), Pipeline("idle", floor=200))
UP_AFTER, DOWN_AFTER = 20.0, 40.0


def standing(load: float | None, idle_rate: float = 0.0, budget: int = 4000) -> Standing:
    """`load` CPUs of demand for "busy"; no SLO, so that the demand is the offered load."""
    demand = Unknown("no sample") if load is None else Demand((load,), cpu_seconds_per_request=1.0)
    used = min(budget, round((load or 0.0) * 1000))
    return Standing(
        budget,
        Allocation({"busy": budget - 200, "idle": 200}, {}, {}),
        demands={"busy": demand, "idle": Unknown("no request yet")},
        used={"busy": used, "idle": 0},
        arrival_rates={"busy": load or 0.0, "idle": idle_rate},
    )


def said(seen: Standing, seconds: float) -> Any:
    sizing = Sizing(GroupSettings("machine", up_after=UP_AFTER, down_after=DOWN_AFTER), PIPELINES)
    for step in range(round(seconds / EVERY) + 1):
        found = sizing.look(seen, step * EVERY)
    return found


def test_demand_that_the_machine_cannot_serve_asks_for_a_larger_one_once_it_lasts() -> None:
    assert said(standing(6.0), UP_AFTER - EVERY).cpus == 4000
    found = said(standing(6.0), UP_AFTER)
    # 6 CPUs and the idle one's floor at a utilisation of 0.7 are 8.9 CPUs; what is in use says 4.
    assert found.cpus == 9000
    assert found.reason == "utilisation 1.55 (demand 6200m of 4 CPUs), above 0.75 for 20 s"


def test_a_low_that_lasts_asks_for_a_smaller_one() -> None:
    assert said(standing(0.5), DOWN_AFTER - EVERY).cpus == 4000
    assert said(standing(0.5), DOWN_AFTER).cpus == 1000  # 0.7 CPUs at 0.7


def test_a_load_that_is_not_known_asks_for_nothing() -> None:
    found = said(standing(None, idle_rate=3.0), 10 * DOWN_AFTER)
    assert (found.cpus, found.reason) == (4000, "demand is not known")


def test_it_looks_now_and_then() -> None:
    sizing = Sizing(GroupSettings("machine"), PIPELINES)
    first = sizing.look(standing(1.0), 0.0)
    assert sizing.look(standing(3.9), EVERY - 0.1) is first
    assert sizing.look(standing(3.9), EVERY) is not first


def test_the_status_and_the_metrics_say_it(server: Running) -> None:
    def status() -> Any:
        return httpx.get(f"{server.url}/headgate/status").json()

    until("a first look", lambda: status()["recommended"] is not None)
    found = status()
    assert found["recommended"]["cpus"] == found["budget"], "nothing has lasted yet"
    assert f"headgate_recommended_cores {found['budget'] / 1000}" in httpx.get(f"{server.url}/metrics").text


def test_thresholds_that_would_flap_are_refused(models: Path) -> None:
    data = {"pipelines": [{"name": "a", "steps": [{"model": "a.onnx"}]}], "machine": {"upper": 0.6, "lower": 0.58}}
    with pytest.raises(SettingsError, match=r"machine: .*otherwise a removal calls for the next addition"):
        validate(Document("engine.yaml", data), EngineSettings)
