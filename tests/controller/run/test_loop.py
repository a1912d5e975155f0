"""Turns of the loop against a host in memory, on a virtual clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest

from headgate.core.budgets import CPUBudget
from headgate.core.hosting import GraphLoad, GraphPart, Inventory, Rejected
from headgate.core.model import Demands
from headgate.core.units import parse_cpu

from .conftest import Bench, MemoryHome, budget
from .memory_host import MemoryHost, Service


def test_cpus_follow_the_load_and_the_sum_is_the_budget_at_every_instant(bench: Bench) -> None:
    bench.host.lag = 3
    bench.turns(2)
    # Proportional: 4 CPUs for loads of 0.3 and 3, in steps of 10m: 0.3 / 3.3 * 4 = 0.364.
    assert abs(bench.asked()["a/idle"] - 364) <= 10
    assert sum(bench.asked().values()) == 4000
    assert bench.host.highest == 4000
    assert [name for name, _ in bench.host.writes] == ["a/idle", "a/busy"], "the shrink comes first"


def test_a_growth_is_made_in_a_tick_when_the_shrink_is_in_force(bench: Bench) -> None:
    bench.host.lag = 3
    bench.loop.turn()
    assert [name for name, _ in bench.host.writes] == ["a/idle"]
    assert bench.loop.pending
    for _ in range(3):
        bench.now += 1
        bench.loop.tick()
    assert [name for name, _ in bench.host.writes] == ["a/idle", "a/busy"]


def test_the_status_names_what_each_has_and_is_to_have_and_why(bench: Bench) -> None:
    bench.turns(2)
    status = bench.home.reports["a/main"][-1]
    busy, idle = status["pipelines"]
    assert (busy["name"], idle["name"]) == ("a/busy", "a/idle")
    assert busy["granted"] == busy["wanted"]
    assert busy["used"] == "3"
    assert "share by weight x load" in busy["reason"]
    assert (status["total"], status["granted"], status["mode"]) == ("4", "4", "Apply")
    for kind in ("Accepted", "Ready", "Applied"):
        assert bench.home.condition("a/main", kind)[0] == "True"
    assert ("a/main", "Normal", "CPUsMoved") in [event[:3] for event in bench.home.events]


@pytest.mark.parametrize(("applies", "mode"), [(False, "Apply"), (True, "Recommend"), (False, "Recommend")])
def test_recommend_is_everything_but_a_write_to_the_host(applies: bool, mode: str) -> None:
    host = MemoryHost({"a/idle": Service(2000, rate=3), "a/busy": Service(2000, rate=30)})
    bench = Bench(host, MemoryHome([budget(mode=mode)]), applies=applies)
    bench.turns(3)
    assert host.writes == []
    (busy, _) = bench.home.reports["a/main"][-1]["pipelines"]
    assert busy["granted"] == "2"
    assert busy["wanted"] != "2"
    assert bench.home.condition("a/main", "Applied") == ("False", "Recommending")


@pytest.mark.parametrize("switch", ["spec", "home"])
def test_a_pause_stops_a_change_half_way_and_resuming_goes_on(bench: Bench, switch: str) -> None:
    bench.host.lag = 3
    bench.loop.turn()
    assert len(bench.host.writes) == 1
    if switch == "spec":
        bench.home.found = [budget(generation=2, paused=True)]
    else:
        bench.home.held = "maintenance"
    bench.turns(3)
    assert len(bench.host.writes) == 1
    assert bench.home.condition("a/main", "Paused") == ("True", "Paused")
    assert bench.home.condition("a/main", "Applied") == ("False", "Paused")
    bench.home.held = None
    bench.home.found = [budget(generation=3)]
    bench.turns(2)
    assert len(bench.host.writes) == 2
    assert bench.home.condition("a/main", "Paused") == ("False", "Running")


def test_a_pause_between_two_writes_of_one_call_stops_the_second(bench: Bench) -> None:
    def fault(step: str) -> None:
        if step == "write":
            bench.home.held = "now"
            bench.now += 2

    bench.host.fault = fault
    bench.loop.turn()
    assert len(bench.host.writes) == 1


def test_an_infeasible_budget_is_told_and_the_others_go_on(bench: Bench) -> None:
    bench.host.services |= {"b/x": Service(500, rate=1), "b/y": Service(500, rate=1)}
    bench.host.limit = None
    bench.home.found.append(budget("small", "b", total="1", pipelines=[{"selector": {}, "floor": "600m"}]))
    bench.turns(2)
    assert bench.home.condition("b/small", "Ready") == ("False", "Infeasible")
    assert bench.home.condition("a/main", "Ready") == ("True", "Decided")
    assert {name for name, _ in bench.host.writes} == {"a/idle", "a/busy"}
    assert ("b/small", "Warning", "Infeasible") in [event[:3] for event in bench.home.events]


def test_a_budget_of_a_wrong_spec_is_told_and_the_others_go_on(bench: Bench) -> None:
    bench.home.found.append(Rejected("b/bad", 7, "spec.total: is not a CPU quantity"))
    bench.turns(1)
    assert bench.home.condition("b/bad", "Accepted") == ("False", "Invalid")
    assert bench.home.reports["b/bad"][-1]["observedGeneration"] == 7
    assert len(bench.host.writes) == 2


def test_an_unknown_policy_is_told(bench: Bench) -> None:
    bench.home.found = [budget(policy="no-such")]
    bench.turns(1)
    assert bench.home.condition("a/main", "Ready") == ("False", "Invalid")
    assert bench.host.writes == []


def test_services_appear_and_vanish(bench: Bench) -> None:
    bench.turns(2)
    bench.host.limit = None
    bench.host.services["a/new"] = Service(1000, rate=3)
    bench.turns(2)
    assert sum(bench.asked().values()) == 4000, "what came is counted, and all fit into the budget again"
    del bench.host.services["a/busy"]
    bench.turns(2)
    assert sum(bench.asked().values()) == 4000
    assert bench.asked()["a/new"] == bench.asked()["a/idle"] == 2000


def test_a_budget_edited_while_it_runs_holds_from_the_next_turn_on(bench: Bench) -> None:
    bench.turns(2)
    bench.home.found = [budget(total="2", generation=2)]
    bench.turns(2)
    assert sum(bench.asked().values()) == 2000
    assert bench.home.reports["a/main"][-1]["observedGeneration"] == 2


def test_missing_samples_are_not_zero_load(bench: Bench) -> None:
    bench.turns(2)
    before = bench.asked()
    for service in bench.host.services.values():
        service.rate = None
    bench.turns(30)
    assert bench.asked() == before


@pytest.mark.parametrize("restarted", [False, True])
def test_a_move_that_was_half_way_when_samples_went_missing_is_finished(bench: Bench, restarted: bool) -> None:
    bench.host.lag = 3
    bench.loop.turn()
    assert len(bench.host.writes) == 1
    for service in bench.host.services.values():
        service.rate = None
    if restarted:
        bench.loop = bench.start()
    else:
        bench.now += 100
        bench.loop.views = {}
    bench.turns(3)
    assert sum(bench.asked().values()) == 4000
    assert abs(bench.asked()["a/idle"] - 364) <= 10


def test_one_without_samples_keeps_what_it_has_while_the_others_share_the_rest(bench: Bench) -> None:
    bench.host.services["a/dark"] = Service(1000, rate=None)
    bench.host.limit = None
    bench.turns(3)
    assert bench.asked()["a/dark"] == 1000
    assert sum(bench.asked().values()) == 4000


def test_what_the_host_would_do_less_of_is_given_less(bench: Bench) -> None:
    bench.turns(2)
    before = bench.asked()["a/busy"]
    bench.host.services["a/busy"].rate = 1000.0
    bench.host.services["a/busy"].most = before + 100
    bench.turns(3)
    assert bench.asked()["a/busy"] == before + 100
    assert bench.home.condition("a/main", "Conflict") == ("True", "Refused")


def test_what_the_host_refuses_keeps_its_cpus_and_is_not_counted_on(bench: Bench) -> None:
    bench.host.services["a/idle"].refuses = True
    bench.turns(2)
    assert bench.asked() == {"a/idle": 2000, "a/busy": 2000}
    assert bench.home.condition("a/main", "Conflict") == ("True", "Refused")
    assert ("a/main", "Warning", "NodeFull") in [event[:3] for event in bench.home.events]
    warnings = len(bench.home.events)
    bench.turns(10)
    assert len(bench.home.events) == warnings, "the same refusal is told once"
    bench.host.services["a/idle"].refuses = False
    bench.turns(30)
    assert bench.asked()["a/idle"] < 500, "after a while the host is asked again"


def test_what_somebody_changed_by_hand_is_put_right_and_told(bench: Bench) -> None:
    bench.turns(2)
    wanted = bench.asked()
    bench.host.services["a/busy"].asked = bench.host.services["a/busy"].actual = 1000
    bench.turns(1)
    assert bench.asked() == wanted


def test_without_the_lead_nothing_is_written_anywhere(bench: Bench) -> None:
    bench.home.lead = False
    bench.turns(3)
    assert bench.host.writes == []
    assert bench.home.saves == 0
    assert bench.home.reports == {}
    assert bench.loop.record.turned is not None, "a standby looks, so that it is ready"


def test_losing_the_lead_between_two_writes_stops_the_second(bench: Bench) -> None:
    def fault(step: str) -> None:
        if step == "write":
            bench.home.lead = False

    bench.host.fault = fault
    bench.turns(2)
    assert len(bench.host.writes) == 1


def test_a_lead_that_ends_while_the_pause_switch_is_asked_for_permits_nothing(bench: Bench) -> None:
    def slow(step: str) -> None:
        if step == "paused":
            bench.home.lead = False

    bench.home.fault = slow
    assert not bench.loop.allowed()


def test_a_decision_that_cannot_be_written_down_is_not_put_in_force(bench: Bench) -> None:
    def fault(step: str) -> None:
        if step == "save":
            raise ConnectionError("no answer")

    bench.home.fault = fault
    bench.turns(2)
    assert bench.host.writes == []
    assert bench.home.condition("a/main", "Applied") == ("False", "Failed")
    bench.home.fault = lambda _: None
    bench.turns(1)
    assert len(bench.host.writes) == 2


@pytest.mark.parametrize("step", ["budgets", "paused", "load", "observe", "apply", "report"])
@pytest.mark.parametrize(
    "error", [ConnectionError("gone"), PermissionError("pods/resize"), KeyError("a fault of ours")]
)
def test_whatever_fails_the_loop_goes_on_and_comes_back(bench: Bench, step: str, error: Exception) -> None:
    failing = True

    def fault(where: str) -> None:
        if failing and where == step:
            raise error

    bench.home.fault = bench.host.fault = fault
    bench.turns(2)
    assert bench.host.writes == [] or step == "report"
    failing = False
    bench.turns(2)
    assert abs(bench.asked()["a/idle"] - 364) <= 10
    assert bench.loop.record.problem is None


def test_a_turn_that_fails_keeps_the_last_numbers_and_says_so(bench: Bench) -> None:
    bench.turns(2)

    def fault(where: str) -> None:
        if where == "observe":
            raise ConnectionError("the API server does not answer")

    bench.host.fault = fault
    bench.turns(1)
    assert bench.home.condition("a/main", "Ready") == ("False", "NotObserved")
    assert len(bench.home.reports["a/main"][-1]["pipelines"]) == 2
    assert not bench.loop.pending


def test_a_quiet_budget_is_not_written_every_turn(bench: Bench) -> None:
    bench.turns(3)
    reports, saves = len(bench.home.reports["a/main"]), bench.home.saves
    bench.turns(12)
    # Two minutes: a status a minute for the load's sake, and the division once a minute.
    assert len(bench.home.reports["a/main"]) - reports <= 3
    assert bench.home.saves - saves <= 4


def test_budgets_of_another_host_are_left_alone(bench: Bench) -> None:
    bench.home.found = [replace(budget(host="seldon"), reported=True)]
    bench.turns(20)
    assert bench.host.writes == []
    assert bench.home.reports == {}


def test_a_budget_of_another_host_that_nobody_takes_up_is_told(bench: Bench) -> None:
    bench.home.found = [budget(), budget("odd", host="seldon")]
    bench.turns(6)
    assert "a/odd" not in bench.home.reports, "its own controller may be about to"
    bench.turns(2)
    assert bench.home.condition("a/odd", "Accepted") == ("False", "OtherHost")
    assert bench.home.condition("a/main", "Ready") == ("True", "Decided")
    assert "set spec.host" in bench.loop.rejected["a/odd"].message
    # Its controller is there: what it says stands.
    written = len(bench.home.reports["a/odd"])
    bench.home.found = [budget(), replace(budget("odd", host="seldon"), reported=True)]
    bench.turns(10)
    assert len(bench.home.reports["a/odd"]) == written
    assert bench.loop.rejected == {}


def test_two_budgets_for_one_service_the_older_one_has_it(bench: Bench) -> None:
    def aged(found: CPUBudget, created: str) -> CPUBudget:
        return CPUBudget(found.name, found.namespace, found.spec, 1, created)

    bench.home.found = [aged(budget("late"), "2026-02-01T00:00:00Z"), aged(budget("early"), "2026-01-01T00:00:00Z")]
    bench.turns(1)
    assert bench.home.reports["a/early"][-1]["count"] == 2
    assert bench.home.condition("a/late", "Ready") == ("False", "NothingSelected")


class Interrupted(BaseException):
    """kill -9."""


def crash_at(bench: Bench, step: str) -> None:
    def fault(where: str) -> None:
        if where == step:
            raise Interrupted

    bench.host.fault = fault
    with pytest.raises(Interrupted):
        bench.loop.turn()
    bench.host.fault = lambda _: None


def test_after_a_crash_between_writing_down_and_putting_in_force_the_next_process_finishes(bench: Bench) -> None:
    crash_at(bench, "apply")
    assert bench.home.saves == 1
    assert bench.host.writes == []
    bench.loop = bench.start()
    bench.turns(1)
    assert abs(bench.asked()["a/idle"] - 364) <= 10


def test_after_a_crash_between_shrink_and_grow_the_next_process_finishes(bench: Bench) -> None:
    bench.host.lag = 3
    bench.loop.turn()
    assert len(bench.host.writes) == 1
    bench.loop = bench.start()
    bench.turns(1)
    assert sum(bench.asked().values()) == 4000
    assert bench.host.highest == 4000


def learned_cost(bench: Bench, name: str) -> Any:
    return bench.loop._parts.memory.learned[name].cost.cost


def test_a_restart_keeps_what_was_learned_and_moves_nothing(bench: Bench) -> None:
    bench.turns(40)
    cost, asked = learned_cost(bench, "a/busy"), bench.asked()
    writes = len(bench.host.writes)
    bench.loop.finish(lambda _: None)
    bench.loop = bench.start()
    bench.turns(3)
    assert learned_cost(bench, "a/busy") == pytest.approx(cost, rel=1e-3)
    assert cost == pytest.approx(0.1, rel=0.01)
    assert bench.asked() == asked
    assert len(bench.host.writes) == writes


def test_a_restart_while_samples_are_missing_still_knows_the_division(bench: Bench) -> None:
    bench.turns(10)
    asked = bench.asked()
    bench.loop.finish(lambda _: None)
    for service in bench.host.services.values():
        service.rate = None
    bench.loop = bench.start()
    bench.turns(10)
    assert bench.asked() == asked


@pytest.mark.parametrize("key", ["standing", "learned-1-0"])
@pytest.mark.parametrize("damage", ['"x"', "[]", "{}", '{"estimator": "test", "pipelines": {"a/busy": {"format": 9}}}'])
def test_a_damaged_state_is_dropped_with_a_line_in_the_log(
    bench: Bench, key: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    bench.turns(2)
    bench.loop.finish(lambda _: None)
    assert set(bench.home.kept) == {"standing", "learned-1-0"}
    bench.home.kept[key] = damage
    bench.loop = bench.start()
    bench.turns(2)
    assert bench.loop.record.problem is None
    assert sum(bench.asked().values()) == 4000
    if damage != "{}" or key != "standing":
        assert "dropped from the state" in caplog.text


def test_a_stop_lets_a_change_finish(bench: Bench) -> None:
    bench.host.lag = 3
    bench.loop.turn()

    def wait(seconds: float) -> None:
        bench.now += seconds

    bench.loop.finish(wait)
    assert sum(bench.asked().values()) == 4000
    assert bench.host.restored == 0


def test_a_stop_takes_back_what_does_not_finish(bench: Bench) -> None:
    bench.host.lag = 3
    bench.loop.turn()
    bench.host.lag = 1000

    def wait(seconds: float) -> None:
        bench.now += seconds

    begun = bench.now
    bench.loop.finish(wait)
    assert bench.host.restored == 1
    assert bench.now - begun <= 20


def test_a_stop_without_the_lead_writes_nothing(bench: Bench) -> None:
    bench.host.lag = 3
    bench.loop.turn()
    bench.home.lead = False
    saves, writes = bench.home.saves, len(bench.host.writes)
    bench.loop.finish(lambda _: None)
    assert (bench.home.saves, len(bench.host.writes)) == (saves, writes)


class Composed(MemoryHost):
    """Says that both its services are parts of a graph, and listens to what is found of their load."""

    told: Demands = MappingProxyType({})

    def observe(self, budgets: Sequence[CPUBudget]) -> Mapping[str, Inventory]:
        parts = {"a/idle": GraphPart(0.5, 0.5), "a/busy": GraphPart(1.0, 0.75)}
        found = super().observe(budgets)
        return {key: replace(seen, graphs=(GraphLoad("a/flow", 12.345, parts),)) for key, seen in found.items()}

    def learn(self, demands: Demands) -> None:
        self.told = demands


def test_graphs_are_told_with_what_they_have_of_each_pipeline() -> None:
    host = Composed({"a/idle": Service(2000, rate=3), "a/busy": Service(2000, rate=30)})
    bench = Bench(host, MemoryHome([budget(mode="Recommend")]))
    bench.turns(2)
    (graph,) = bench.home.reports["a/main"][-1]["graphs"]
    # Half of 2 CPUs and three quarters of 2; loads of 0.3 and 3.
    assert (graph["name"], graph["rate"], graph["granted"]) == ("a/flow", 12.3, "2500m")
    assert parse_cpu(graph["load"]) == pytest.approx(0.5 * 300 + 0.75 * 3000, rel=0.05)
    assert [(part["name"], part["visits"], part["share"]) for part in graph["pipelines"]] == [
        ("a/busy", 1.0, 0.75),
        ("a/idle", 0.5, 0.5),
    ]
    assert set(host.told) == {"a/idle", "a/busy"}, "a host that recommends learns, too"
