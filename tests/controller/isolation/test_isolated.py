"""Whole decisions with plug-ins in processes of their own: the same as here, and the last good one when they fail."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from headgate.controller.extensions import LiveExtensions
from headgate.controller.installed import find_policy, listed, plugins
from headgate.controller.isolation import process
from headgate.core.config import Document, SettingsError, validate
from headgate.core.decision import Config, Decision, State, decide
from headgate.core.extensions import ExtensionSettings
from headgate.core.model import Budget, Observation, Pipeline, Sample, Unknown

from .conftest import Installed

PIPELINES = (Pipeline("a"), Pipeline("b"))
CONFIG = Config(PIPELINES, Budget(1000))

Extend = Callable[..., LiveExtensions]


@pytest.fixture
def extend() -> Iterator[Extend]:
    made: list[LiveExtensions] = []

    def extend(interval: float = 60.0, **data: Any) -> LiveExtensions:
        data = {**data, "plugins": {"deadline": "30s", **data.get("plugins", {})}}
        document = Document("s.yaml", data)
        made.append(LiveExtensions(document, validate(document, ExtensionSettings), ["a", "b"], interval))
        return made[-1]

    yield extend
    for extensions in made:
        extensions.close()


def sample(name: str, now: float, rate: float) -> Sample:
    return Sample(name, now, 1, arrivals=rate, completions=rate, cpu_seconds=rate / 100)


def observed(now: float) -> Observation:
    return Observation({"a": sample("a", now, 60), "b": sample("b", now, 20)}, {"a": 500, "b": 500})


TWICE = """
from dataclasses import dataclass, replace
from headgate.core.config import Model
from headgate.core.hookspecs import EstimatorKind, hookimpl
from headgate.core.model import Unknown

class Settings(Model):
    factor: float = 2.0
    dies_at: int = 0

@dataclass(frozen=True)
class Twice:
    settings: Settings
    inner: object

    def update(self, state, sample):
        count, inner = state or (0, None)
        return count + 1, self.inner.update(inner, sample)

    def estimate(self, state, now):
        if state is None:
            return Unknown("nothing seen")
        if now == self.settings.dies_at:
            import os
            os._exit(4)
        demand = self.inner.estimate(state[1], now)
        rates = tuple(rate * self.settings.factor for rate in demand.arrival_rates)
        return replace(demand, queue=state[0], arrival_rates=rates)

@hookimpl
def headgate_demand_estimators():
    return {"twice": EstimatorKind(Settings, Twice)}
"""


def test_an_estimator_decides_the_same_there_as_here(installed: Installed, extend: Extend) -> None:
    installed("twice", TWICE)
    there = extend(estimator={"kind": "twice", "factor": 3}).config(CONFIG)
    here = extend(estimator={"kind": "twice", "factor": 3}, plugins={"isolate": False}).config(CONFIG)
    states = State(), State()
    for now in range(1, 6):
        states, decisions = zip(
            *(decide(s, observed(now), c, now) for s, c in zip(states, (there, here), strict=True)), strict=True
        )
        assert decisions[0].demands == decisions[1].demands
        assert decisions[0].allocation.grants == decisions[1].allocation.grants
    assert decisions[0].demands["a"].queue == 5
    assert there.estimator.estimate(None, 0) == Unknown("nothing seen")
    state = there.estimator.update(None, sample("a", 9, 10))
    assert there.estimator.estimate(state, 9).queue == 1


def test_what_was_learned_outlives_the_process(
    installed: Installed, extend: Extend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "PAUSE", 0.0)
    installed("twice", TWICE)
    extensions = extend(estimator={"kind": "twice", "dies_at": 4})
    config, state = extensions.config(CONFIG), State()
    for now in (1, 2, 3):
        state, _ = decide(state, observed(now), config, now)
    state, decision = decide(state, Observation({}, {"a": 700, "b": 300}), config, 4)
    assert decision.demands["a"] == Unknown("plug-in twice, estimate: its process ended: exit code 4")
    assert decision.allocation.grants == {"a": 700, "b": 300}, "what they have"
    while isinstance(decision.demands["a"], Unknown):
        time.sleep(0.02)
        state, decision = decide(state, Observation({}, {"a": 700, "b": 300}), config, 5)
    assert decision.demands["a"].queue == 3
    assert extensions.report().starts == {("twice", "decisions"): 2}


HALF = """
import numpy as np
from headgate.core.hookspecs import Adjustment, Veto, hookimpl
from headgate.core.policies import Division, by_class

class Half:
    name = "half"
    def divide(self, problem):
        grants, _ = by_class(problem, np.ones(len(problem.limits), dtype=np.int64), np.ones(len(problem.limits)))
        return Division(grants, 1.0, np.zeros(len(problem.limits)))
    def explain(self, problem, division, index):
        return f"pipeline {index} of two"

@hookimpl
def headgate_allocation_policies():
    return {"half": Half(), "equal": Half(), "raises": 3}

@hookimpl
def headgate_review_decision(decision, observation, config):
    assert config.policy == "half" and type(config.estimator).__name__ == "Learned"
    assert "pipeline 0 of two" in decision.allocation.reasons["a"]
    if decision.time == 2:
        return Veto("not at two")
    if decision.time == 3:
        return Adjustment({"a": observation.granted["a"] - 100}, "less")
    if decision.time == 4:
        return Adjustment({"a": 5000}, "too much")
    if decision.time == 5:
        return config

@hookimpl
def headgate_decision_applied(decision):
    if decision.time == 1:
        raise ValueError("not interested")
    with open("NOTE", "a") as note:
        note.write(f"{decision.time:g} {dict(decision.allocation.grants)}\\n")
"""


def test_policies_and_reviews_cross(
    installed: Installed, extend: Extend, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    note = tmp_path / "note"
    installed("half", HALF.replace("NOTE", str(note)))
    with caplog.at_level(logging.WARNING):
        extensions = extend()
    assert "plug-in half, headgate_allocation_policies: 'equal' is builtin's already" in caplog.text
    config = extensions.config(Config(PIPELINES, Budget(1000), policy="half"))

    def reviewed(now: float) -> Decision | str:
        extensions.observe({}, now)
        observation = observed(now)
        _, decision = decide(State(), observation, config, now)
        return extensions.review(decision, observation, config)

    first = reviewed(1)
    assert isinstance(first, Decision)
    assert first.allocation.grants == {"a": 500, "b": 500}
    assert "pipeline 1 of two" in first.allocation.reasons["b"]
    assert reviewed(2) == "plug-in half: not at two"
    third = reviewed(3)
    assert isinstance(third, Decision)
    assert third.allocation.grants == {"a": 400, "b": 500}
    for now in (4, 5):
        refused = reviewed(now)
        assert isinstance(refused, Decision)
        assert refused.allocation.grants == {"a": 500, "b": 500}
    failures = {("half", "headgate_review_decision", "nonsense"): 2}
    assert extensions.report().failures == failures

    def told(decision: Decision, seen: int) -> None:
        """Told as often as it takes: it may still be starting, or at the decision before."""
        while extensions.report().failures.get(("half", "headgate_decision_applied", "raised"), 0) < seen:
            extensions.applied(decision)
            time.sleep(0.02)

    told(first, 1)
    while not note.exists() or not note.read_text():
        extensions.applied(third)
        time.sleep(0.02)
    assert note.read_text().splitlines()[0] == "3 {'a': 400, 'b': 500}"


def test_a_plug_in_that_cannot_be_loaded_is_named_where_it_is_wanted(installed: Installed, extend: Extend) -> None:
    installed("stuck", "import threading; threading.Event().wait()")
    with pytest.raises(SettingsError, match=r"'x' is not known here.*stuck takes no part: it did not load within 2 s"):
        extend(estimator="x", plugins={"load": "2s"})
    extensions = extend(plugins={"load": "2s"})
    extensions.config(CONFIG)
    assert extensions.observe({}, 0) == {}
    extend(plugins={"load": "1h", "disable": ["stuck"]}).config(CONFIG)
    with pytest.raises(SettingsError, match=r"plugins\.disable: there is no plug-in 'stack'"):
        extend(plugins={"disable": ["stack"]})


def test_outside_the_loop_plug_ins_are_here_once_they_were_seen_to_load(
    installed: Installed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headgate.controller.installed.LOAD", 3.0)
    installed("stuck", "import threading; threading.Event().wait()")
    installed("half", HALF)
    plugins.cache_clear()
    try:
        assert find_policy("half").name == "half"
        assert "stuck" not in [plugin.name for plugin in plugins()]
    finally:
        plugins.cache_clear()
    found = {plugin.name: plugin for plugin in listed(["half", "sources"])}
    assert found["stuck"].error == "it did not load within 3 s; its process was ended"
    assert [found[name].enabled for name in ("half", "stuck", "sources", "engine")] == [False, False, False, True]
    with pytest.raises(LookupError, match="there is no plug-in 'nobody'"):
        listed(["nobody"])
