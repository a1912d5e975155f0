"""What people are told of the node scaler: the status, the metrics, events; and when it does nothing at all."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from headgate.controller.run.loop import Loop
from headgate.controller.run.memory import Memory
from headgate.controller.run.nodes import KEY, Nodes
from headgate.controller.run.nodes_metrics import node_metrics
from headgate.controller.run.nodes_status import nodes_status, nodes_text
from headgate.controller.run.parts import Parts
from headgate.controller.run.reporter import Reporter
from headgate.controller.run.settings import RunSettings, StateSettings
from headgate.core.demand import default_estimator
from headgate.core.extensions import NoExtensions
from headgate.core.nodes.state import Phase
from headgate.core.providers import Refused, Unavailable

from .conftest import MemoryHome
from .memory_host import MemoryHost
from .nodes_bench import Bench, Host, Provider, bench

DOCS = Path(__file__).resolve().parents[3] / "docs" / "metrics.md"


def metrics(it: Bench) -> dict[tuple[str, ...], float]:
    """Values by name and labels' values."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in node_metrics(it.nodes)
        for sample in family.samples
    }


def adding() -> Bench:
    it = bench(2, down_after=10_000)
    it.load(0.9)
    it.until("a machine more", lambda: it.target == 3)
    return it


def removing(phase: Phase) -> Bench:
    it = bench(3)
    it.load(0.1)
    it.until(phase.value, lambda: it.phase() is phase)
    return it


def test_the_status_of_an_addition() -> None:
    it = adding()
    found = json.loads(json.dumps(nodes_status(it.nodes)))
    assert (found["mode"], found["carriedOut"], found["problem"]) == ("apply", True, None)
    pool = found["groups"]["pool"]
    assert (pool["decision"], pool["target"], pool["wanted"], pool["ready"]) == ("add", 2, 3, 2)
    # 0.9 of two nodes of 4.
    assert (pool["capacity"], pool["loads"], pool["peak"]) == ("8", {"usage": "7200m"}, "7200m")
    (step,) = found["steps"]
    assert step["step"] == "add 1 to the 2 machines of group pool"
    assert "utilisation 0.90" in step["reason"]
    it.turn()
    assert nodes_status(it.nodes)["groups"]["pool"]["upcoming"] == 1


def test_the_status_of_a_removal_and_the_events_about_its_node() -> None:
    it = removing(Phase.DRAINING)
    found = nodes_status(it.nodes)
    ((name, removal),) = found["removals"].items()
    assert removal["phase"] == "draining"
    assert "below 0.5" in removal["reason"]
    assert found["groups"]["pool"]["decision"] == "remove"
    assert (found["groups"]["pool"]["wanted"], found["groups"]["pool"]["removing"]) == (2, 1)
    it.until("the machine goes", lambda: it.target == 2)
    told = [(node, reason) for node, reason, _ in it.events]
    phases = ("Marked", "Shrinking", "Cordoned", "Draining", "Deleting")
    assert told[:5] == [(name, f"Removal{phase}") for phase in phases]
    assert all(message for *_, message in it.events)


def test_the_event_of_a_removal_that_is_undone_says_why() -> None:
    it = removing(Phase.CORDONED)
    it.load(0.6)
    it.until("it is undone", it.calm)
    reason, message = it.events[-1][1:]
    assert reason == "RemovalReverting"
    # 0.6 of three nodes is 0.9 of two.
    assert "load has returned: 0.90 of what would remain, at most 0.7" in message


def test_failures_are_in_the_status_and_the_metrics() -> None:
    it = bench(2, down_after=10_000)
    it.world.fault = lambda call, group: Unavailable("no answer") if call == "increase" else None
    it.load(0.9)
    it.until("it failed", lambda: bool(it.nodes.record.failed))
    assert nodes_status(it.nodes)["failures"] == ["increase in group pool: no answer"]
    assert metrics(it)["headgate_nodes_steps_failed_total", "pool", "increase"] == 1
    it.world.fault = lambda call, group: Refused("who are you") if call == "groups" else None
    it.turn()
    found = nodes_status(it.nodes)
    assert found["notes"][0] == "the provider does not tell its groups: who are you"
    why = ["increase failed: no answer", "its provider did not answer: nothing changes"]
    assert found["groups"]["pool"]["reasons"] == why


def test_the_metrics_say_what_the_status_says() -> None:
    it = adding()
    found = metrics(it)
    assert found["headgate_nodes_applying",] == 1
    assert found["headgate_nodes_target", "pool"] == 2
    assert found["headgate_nodes_wanted", "pool"] == 3
    assert found["headgate_nodes_ready", "pool"] == 2
    assert found["headgate_nodes_capacity_cores", "pool"] == 8.0
    assert found["headgate_nodes_load_cores", "pool", "usage"] == 7.2
    assert found["headgate_nodes_utilisation", "pool"] == pytest.approx(0.9)
    assert found["headgate_nodes_steps_total", "pool", "increase"] == 1
    assert found["headgate_nodes_turns_total",] == it.nodes.record.turns
    assert found["headgate_nodes_turns_failed_total",] == 0


def test_what_is_not_known_is_left_out_of_the_metrics() -> None:
    it = bench(2)
    it.world.metrics, it.world.now = False, 1e6
    it.turn()
    assert not any(name[0] in ("headgate_nodes_load_cores", "headgate_nodes_utilisation") for name in metrics(it))


def test_the_documentation_names_the_metrics_that_there_are() -> None:
    text = DOCS.read_text()
    rows = [line for line in text.splitlines() if line.startswith("| `headgate_nodes_")]
    named: set[str] = set()
    for row in rows:
        first, *rest = re.findall(r"`(\w+)`", row.split("|")[1])
        named |= {first} | {each if each.startswith("headgate") else f"headgate_nodes{each}" for each in rest}
    there = {family.name + ("_total" if family.type == "counter" else "") for family in node_metrics(adding().nodes)}
    assert named == there


def test_a_terminal_shows_groups_reasons_and_steps() -> None:
    text = "\n".join(nodes_text(adding().nodes))
    assert text.startswith("nodes: apply\ngroup pool: add: 2 machines, 3 wanted\n  utilisation 0.90")
    assert text.endswith("add 1 to the 2 machines of group pool")


@pytest.mark.parametrize(("mode", "applies"), [("recommend", True), ("apply", False)])
def test_what_is_recommended_is_not_done(mode: str, applies: bool) -> None:
    it = bench(2, down_after=10_000)
    it.settings = it.settings.model_copy(update={"mode": mode})
    it.nodes = Nodes(it.settings, Provider(it), Host(it), lambda: it.world.now, applies=applies)
    it.load(0.9)
    for _ in range(10):
        it.turn()
    found = nodes_status(it.nodes)
    assert (found["mode"], found["carriedOut"], it.target) == ("recommend", False, 2)
    assert found["steps"][0]["step"] == "add 1 to the 2 machines of group pool"
    assert metrics(it)["headgate_nodes_applying",] == 0
    assert json.loads(it.kept[KEY])["mode"] == "recommend"


def test_while_it_is_paused_nothing_is_planned() -> None:
    it = bench(2)
    it.load(0.9)
    for _ in range(10):
        it.world.advance(it.world.now + 10)
        it.nodes.turn((), "by hand", lambda: True, it.save)
    assert nodes_status(it.nodes)["problem"] == "paused: by hand"
    assert (it.target, it.kept) == (2, {})


def test_what_cannot_be_written_down_is_not_done() -> None:
    it = bench(2)
    it.load(0.9)
    for saves in (lambda state: False, _raising):
        for _ in range(5):
            it.world.advance(it.world.now + 10)
            it.nodes.turn((), None, lambda: True, saves)
    assert it.target == 2
    assert it.nodes.record.turns_failed == it.nodes.record.turns == 10
    assert nodes_status(it.nodes)["problem"] == "the disk is full"


def _raising(state: Mapping[str, Any]) -> bool:
    raise OSError("the disk is full")


def test_only_the_process_that_leads_plans() -> None:
    it, home = bench(2, down_after=10_000), MemoryHome([])
    settings = RunSettings.model_validate({"host": {"kind": "memory"}})
    memory, estimator = Memory(StateSettings(), "test"), default_estimator(10)
    parts = Parts(home, MemoryHost({}), NoExtensions(), estimator, memory, home.budgets, it.nodes)
    loop = Loop(settings, parts, Reporter(home), applies=True, clock=lambda: it.world.now)
    it.load(0.9)
    home.lead = False
    for _ in range(10):
        it.world.advance(it.world.now + 10)
        loop.turn()
    assert (it.nodes.record.turns, it.target, home.kept) == (0, 2, {})
    home.lead = True
    for _ in range(10):
        it.world.advance(it.world.now + 10)
        loop.turn()
    assert loop.record.problem is None
    assert it.target == 3
    assert KEY in home.kept


def test_a_lead_that_is_lost_stops_it_between_two_steps() -> None:
    it = removing(Phase.CORDONED)
    it.until("it is being drained", lambda: it.phase() is Phase.DRAINING)
    terminating = [pod for pod in it.world.pods.values() if pod.terminating]
    answers = iter([True, True])
    it.world.advance(it.world.now + 10)
    it.nodes.turn((), None, lambda: next(answers, False), it.save)
    # One for closing requests, one for the first of two evictions.
    assert len([pod for pod in it.world.pods.values() if pod.terminating]) == len(terminating) + 1


def test_the_next_process_goes_on_with_its_timers_unless_nobody_looked_for_too_long() -> None:
    it = bench(3, down_after=60)
    it.load(0.1)
    for _ in range(4):
        it.turn()
    below = it.nodes.view.state.groups["pool"].below_since  # type: ignore[union-attr]
    it.nodes = it.start()
    it.turn()
    assert it.nodes.view is not None
    assert it.nodes.view.state.groups["pool"].below_since == below
    it.world.advance(it.world.now + 1000)  # `stale` is 3 minutes
    it.nodes = it.start()
    it.turn()
    assert it.nodes.view is not None
    assert it.nodes.view.state.groups["pool"].below_since == it.world.now


@pytest.mark.parametrize("damage", ["{}", '{"state": {"format": 99}, "time": 1, "mode": "apply"}', '"x"'])
def test_a_state_that_cannot_be_read_is_dropped(damage: str) -> None:
    it = bench(3)
    it.kept[KEY] = damage
    it.nodes = it.start()
    it.load(0.6)
    it.turn()
    assert nodes_status(it.nodes)["problem"] is None


def test_what_was_only_recommended_has_not_begun() -> None:
    it = removing(Phase.SHRINKING)
    kept = json.loads(it.kept[KEY])
    it.kept[KEY] = json.dumps(kept | {"mode": "recommend"})
    it.world.nodes = {name: replace(node, marked=False) for name, node in it.world.nodes.items()}
    it.nodes = it.start()
    it.turn()
    assert it.nodes.view is not None
    assert [removal.phase for removal in it.nodes.view.state.removals.values()] in ([], [Phase.MARKED])
