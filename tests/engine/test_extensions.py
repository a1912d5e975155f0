"""Real engines with plug-ins installed, good and evil: what they may do, and what they cannot stop."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.controller.conftest import install_into
from tests.engine.conftest import Start

SOURCES = """
import ctypes, os, threading
from headgate.core.config import Model
from headgate.core.hookspecs import SourceKind, hookimpl
from headgate.core.model import Sample

class Settings(Model):
    pass

class Source:
    def __init__(self, settings, pipelines):
        self.pipelines = pipelines
    def close(self):
        pass

class Sleeps(Source):
    def read(self, now):
        threading.Event().wait()

class Raises(Source):
    def read(self, now):
        raise RuntimeError("nobody is at home")

class NotANumber(Source):
    def read(self, now):
        return [Sample(name, now, 1, arrivals=float("nan")) for name in self.pipelines]

class Gigabyte(Source):
    def read(self, now):
        self.kept = bytearray(2**30)

class Hoards(Source):
    kept = []
    def read(self, now):
        while True:
            self.kept.append(bytearray(2**24))

class Endless(Source):
    def read(self, now):
        while True:
            yield Sample(self.pipelines[0], now, 0, queue=0)

class Crashes(Source):
    def read(self, now):
        ctypes.string_at(0)

class Leaves(Source):
    def read(self, now):
        os._exit(3)

class Prints(Source):
    def read(self, now):
        print("listening on everything", flush=True)
        raise RuntimeError("said enough")

@hookimpl
def headgate_metric_sources():
    return {kind.__name__.lower(): SourceKind(Settings, kind) for kind in Source.__subclasses__()}
"""

ESTIMATOR = """
import threading
from headgate.core.config import Model
from headgate.core.hookspecs import EstimatorKind, hookimpl
from headgate.core.model import Demand

class Settings(Model):
    pass

class Estimator:
    def __init__(self, settings, inner):
        self.inner, self.calls = inner, 0
    def update(self, state, sample):
        return self.inner.update(state, sample)
    def estimate(self, state, now):
        self.calls += 1
        if self.calls > 30:
            threading.Event().wait()
        if self.calls > 20:
            return Demand((float("nan"),), 1)
        return self.inner.estimate(state, now)

@hookimpl
def headgate_demand_estimators():
    return {"evil": EstimatorKind(Settings, Estimator)}
"""

REVIEWS = """
import time
from headgate.core.hookspecs import Adjustment, hookimpl

@hookimpl
def headgate_review_decision(decision):
    if int(decision.time * 10) % 2:
        raise RuntimeError("no opinion")
    return Adjustment({name: 10**6 for name in decision.allocation.grants}, "all for all")

@hookimpl
def headgate_decision_applied(decision):
    time.sleep(3600)
"""

EVIL = {
    "evil-sources": SOURCES,
    "evil-estimator": ESTIMATOR,
    "evil-reviews": REVIEWS,
    "evil-import": "import threading; threading.Event().wait()",
    "evil-exit": "import os; os._exit(5)",
}


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    def install(name: str, code: str) -> None:
        monkeypatch.setenv("PYTHONPATH", str(install_into(tmp_path, name, code)), prepend=":")

    return install


def metrics(url: str) -> dict[str, float]:
    lines = httpx.get(f"{url}/metrics", timeout=30).text.splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


def until(condition: Callable[[], bool], what: Callable[[], object] = lambda: "") -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, f"never happened: {what()}"
        time.sleep(0.05)


def status(url: str) -> Any:
    return httpx.get(f"{url}/headgate/status", timeout=30).json()


REQUEST = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}


def test_evil_plug_ins_are_named_and_stop_neither_the_loop_nor_the_requests(
    installed: Callable[[str, str], None], start: Start
) -> None:
    for name, code in EVIL.items():
        installed(name, code)
    kinds = ("sleeps", "raises", "notanumber", "gigabyte", "hoards", "endless", "crashes", "leaves", "prints")
    running = start(
        budget="1",
        interval="100ms",
        pipelines=[{"name": "chain", "steps": [{"model": "first.onnx"}, {"model": "second.onnx"}]}],
        sources=[{"kind": kind, "every": "1s", "stale": "10s"} for kind in kinds],
        estimator="evil",
        plugins={"deadline": "50ms", "load": "10s", "patience": "2s"},
    )
    until(lambda: httpx.post(f"{running.url}/v2/models/chain/infer", json=REQUEST, timeout=30).status_code == 200)
    failures, starts = "headgate_plugin_failures_total", "headgate_plugin_starts_total"
    expected = {
        f'{failures}{{hook="estimate",plugin="evil-estimator",reason="nonsense"}}': 1,
        f'{failures}{{hook="estimate",plugin="evil-estimator",reason="late"}}': 1,
        f'{failures}{{hook="estimate",plugin="evil-estimator",reason="busy"}}': 1,
        f'{failures}{{hook="headgate_review_decision",plugin="evil-reviews",reason="raised"}}': 1,
        f'{failures}{{hook="headgate_review_decision",plugin="evil-reviews",reason="nonsense"}}': 1,
        f'{failures}{{hook="headgate_decision_applied",plugin="evil-reviews",reason="busy"}}': 1,
        f'{starts}{{plugin="evil-estimator",process="decisions"}}': 2,
        f'{starts}{{plugin="evil-sources",process="source sleeps"}}': 2,
        f'{starts}{{plugin="evil-sources",process="source crashes"}}': 2,
        f'{starts}{{plugin="evil-sources",process="source leaves"}}': 2,
        'headgate_source_failures_total{reason="late",source="sleeps"}': 1,
        'headgate_source_failures_total{reason="raised",source="raises"}': 1,
        'headgate_source_failures_total{reason="nonsense",source="notanumber"}': 1,
        'headgate_source_failures_total{reason="raised",source="gigabyte"}': 1,
        'headgate_source_failures_total{reason="raised",source="hoards"}': 1,
        'headgate_source_failures_total{reason="nonsense",source="endless"}': 1,
        'headgate_source_failures_total{reason="crashed",source="crashes"}': 1,
        'headgate_source_failures_total{reason="crashed",source="leaves"}': 1,
        'headgate_source_failures_total{reason="raised",source="prints"}': 1,
    }

    def missing() -> dict[str, float]:
        found = metrics(running.url)
        return {name: found.get(name, 0) for name, least in expected.items() if found.get(name, 0) < least}

    until(lambda: not missing(), missing)
    # The loop decides on, with the grants of the last good decision.
    decisions = status(running.url)["decisions"]
    until(lambda: status(running.url)["decisions"] >= decisions + 20)
    assert status(running.url)["pipelines"]["chain"]["granted"] == 1000
    assert httpx.post(f"{running.url}/v2/models/chain/infer", json=REQUEST, timeout=30).status_code == 200
    assert metrics(running.url)['headgate_source_age_seconds{source="sleeps"}'] == float("inf")
    assert running.stop() == 0
    text = "".join(running.errors)
    for line in (
        "source raises: RuntimeError: nobody is at home",
        "source gigabyte: MemoryError",
        "source crashes: its process ended: Segmentation fault",
        "source leaves: its process ended: exit code 3",
        "plug-in evil-import of evil-import 1.0 takes no part: it did not load within 10 s",
        "plug-in evil-exit of evil-exit 1.0 takes no part: its process ended: exit code 5",
        "plug-in evil-estimator, estimate: no answer",
    ):
        assert line in text
    assert len(re.findall("nobody is at home", text)) == 1, "the same trouble is said once"


STUBBORN = """
import threading
from headgate.core.hookspecs import Veto, hookimpl

class Hangs:
    name = "hangs"
    def divide(self, problem):
        threading.Event().wait()

class Raises:
    name = "raises"
    def divide(self, problem):
        raise ZeroDivisionError("nothing to divide")

@hookimpl
def headgate_allocation_policies():
    return {"hangs": Hangs(), "raises": Raises()}

@hookimpl
def headgate_review_decision(decision):
    return Veto("not today")
"""


@pytest.mark.parametrize(
    ("policy", "problem"),
    [
        ("hangs", "plug-in stubborn, policy hangs: "),
        ("raises", "plug-in stubborn, policy raises: ZeroDivisionError: nothing to divide"),
        ("proportional", "plug-in stubborn: not today"),
    ],
)
def test_without_a_decision_everything_keeps_what_it_has(
    installed: Callable[[str, str], None], start: Start, policy: str, problem: str
) -> None:
    installed("stubborn", STUBBORN)
    pipelines = [{"name": name, "steps": [{"model": "first.onnx"}], "weight": n} for n, name in ((3, "a"), (1, "b"))]
    running = start(budget="1", interval="100ms", policy=policy, pipelines=pipelines)
    until(lambda: problem in (status(running.url)["problem"] or ""))
    found = status(running.url)
    assert {name: pipeline["granted"] for name, pipeline in found["pipelines"].items()} == {"a": 750, "b": 250}
    assert found["decisions"] == 0
    assert httpx.post(f"{running.url}/v2/models/b/infer", json=REQUEST, timeout=30).status_code == 200
    assert running.stop() == 0


CUSTOM = """
from headgate.core.config import Model
from headgate.core.hookspecs import SourceKind, StepKind, Tensor, hookimpl
from headgate.core.model import Sample
import numpy as np

class Published(Model):
    rates: dict[str, float]

class Broker:
    def __init__(self, settings, pipelines):
        self.rates = settings.rates
    def read(self, now):
        return [Sample(name, now, 1, arrivals=rate, completions=rate, cpu_seconds=rate / 100)
                for name, rate in self.rates.items()]
    def close(self):
        pass

@hookimpl
def headgate_metric_sources():
    return {"broker": SourceKind(Published, Broker)}

class Scale(Model):
    by: float

class Scaled:
    def __init__(self, settings):
        self.by = settings.by
        self.inputs = self.outputs = (Tensor("x", "FP32", (None, 4)),)
    def run(self, inputs):
        if inputs["x"][0, 0] == 13:
            return {}
        return {"x": (inputs["x"] * self.by).astype(np.float32)}

@hookimpl
def headgate_engine_steps():
    return {"scale": StepKind(Scale, Scaled)}
"""


def test_a_custom_metric_moves_cpus(installed: Callable[[str, str], None], start: Start) -> None:
    installed("custom", CUSTOM)
    running = start(
        budget="1",
        interval="100ms",
        calm={"band": 0},  # the default keeps what is within a tenth of the load
        pipelines=[{"name": name, "steps": [{"model": "first.onnx"}]} for name in "ab"],
        sources=[{"kind": "broker", "every": "100ms", "rates": {"a": 60, "b": 20}}],
    )

    def shares() -> tuple[int, int]:
        pipelines = status(running.url)["pipelines"]
        return pipelines["a"]["granted"], pipelines["b"]["granted"]

    # In proportion to offered load, 60/100 against 20/100 CPUs: 750 and 250 of 1000 millicores.
    until(lambda: abs(shares()[0] - 750) <= 10, shares)
    assert sum(shares()) == 1000


def test_a_plug_in_s_step_runs_in_the_chain(installed: Callable[[str, str], None], start: Start) -> None:
    installed("custom", CUSTOM)
    running = start(
        pipelines=[
            {"name": "plain", "steps": [{"model": "first.onnx"}]},
            {"name": "scaled", "steps": [{"step": "scale", "by": 2}, {"model": "first.onnx"}]},
        ]
    )

    def infer(name: str, *data: float) -> httpx.Response:
        entry = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": data}
        return httpx.post(f"{running.url}/v2/models/{name}/infer", json={"inputs": [entry]})

    plain, scaled = infer("plain", 2, 4, 6, 8), infer("scaled", 1, 2, 3, 4)
    assert scaled.status_code == 200
    assert scaled.json()["outputs"][0]["data"] == pytest.approx(plain.json()["outputs"][0]["data"])
    broken = infer("scaled", 13, 0, 0, 0)
    assert broken.status_code == 500
    assert infer("scaled", 1, 2, 3, 4).status_code == 200


def test_the_page_of_metrics_names_exactly_what_is_exported(start: Start, models: Path) -> None:
    (models / "samples.csv").write_text("pipeline,queue\na,1\n")
    running = start(
        pipelines=[{"name": "a", "steps": [{"model": "first.onnx"}], "slo": {"latency": "1s"}}],
        sources=[{"kind": "file", "path": "samples.csv"}],
    )
    text = httpx.get(f"{running.url}/metrics").text
    exported = {
        (f"{name}_total" if kind == "counter" and not name.endswith("_total") else name, kind)
        for name, kind in re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE)
    }
    page = (Path(__file__).resolve().parents[2] / "docs" / "metrics.md").read_text()
    page = page.partition("## The engine")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \| (\w+) \|", page, re.MULTILINE)) == exported
