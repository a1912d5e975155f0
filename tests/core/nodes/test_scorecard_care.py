"""The behaviours that a node autoscaler is compared by, a test for each: what is known, kept, told and left alone.

Rows of the score card by the number in a test's name: 12, 17, 18, 19, 23, 24, 25.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from headgate.core.demand import default_estimator
from headgate.core.nodes.actions import Decision, Delete, Increase, Mark
from headgate.core.nodes.plan import plan_nodes
from headgate.core.nodes.state import State
from headgate.core.providers import NodeTemplate

from .conftest import CPU, DOWN_AFTER, LOWER, TARGET, UP_AFTER, UPPER

Make = Callable[..., Any]


def test_12_timers_survive_a_restart(lab: Make) -> None:
    steady, restarted = lab(3), lab(3)
    restarted.restart = True
    for it in (steady, restarted):
        it.load(0.2)
        it.run(DOWN_AFTER * 2)
    assert [p.actions for p in steady.plans] == [p.actions for p in restarted.plans]
    assert restarted.actions(Delete)


def test_12_marks_of_a_lost_state_are_taken_off(lab: Make, change: Make) -> None:
    it = lab(3)
    it.load(0.6)
    change(it, "n0", marked=True, unschedulable=True, cordoned_by_us=True)
    it.run(20)
    node = it.world.nodes["n0"]
    assert (node.marked, node.unschedulable) == (False, False)


def test_17_providers_are_plug_ins_behind_one_contract(lab: Make) -> None:
    from headgate.core.providers import NodeProvider

    # The contract suite itself is tests/contract; here: all that a plan asks for is a call of the contract.
    calls = {name for name in vars(NodeProvider) if not name.startswith("_")}
    assert calls == {"groups", "instances", "increase", "delete", "cancel_pending", "template"}


def test_18_too_many_unready_nodes_freeze_everything(lab: Make, change: Make) -> None:
    it = lab(8)
    it.load(0.9)
    it.tick()
    for index in range(4):
        change(it, f"n{index}", ready=False)
    it.run(600)
    assert not it.actions(Increase)
    assert it.plan.verdicts["pool"].decision is Decision.FROZEN
    assert it.plan.notes == ("4 of 8 nodes are not Ready: nothing changes until they are",)
    change(it, "n3", ready=True)
    it.tick()
    # Three are not enough to freeze, and none of the three is capacity.
    assert it.plan.verdicts["pool"].capacity == 5 * CPU
    assert it.actions(Increase)


def test_19_without_fresh_metrics_nothing_leaves_and_requests_and_pending_pods_still_add(
    lab: Make, new_pod: Make
) -> None:
    it = lab(3)
    it.load(0.1)
    it.run(300)
    it.world.metrics = False
    it.run(7200)
    assert not it.actions(Mark)
    assert "no fresh usage of n0, n1, n2" in it.reasons
    for index in range(3):
        it.world.pods[f"ns/w{index}"] = new_pod(f"w{index}", None, 3600)
    it.run(20)
    assert it.actions(Increase)[0].count == 3
    pipelines = lab(3)
    for name, pod in list(pipelines.world.pods.items()):
        pipelines.world.pods[name] = new_pod(name[3:], pod.node, pipeline="us")
    pipelines.run(7200)
    assert not pipelines.actions(Mark)
    assert "the allocator's demand is not known" in pipelines.reasons


def test_19_metrics_that_stop_half_way_hold_a_removal_and_then_undo_it(lab: Make) -> None:
    it = lab(3, soak=400.0)
    it.load(0.1)
    it.until(lambda plan: bool(it.state.removals))
    it.world.metrics = False
    it.run(300)
    (name,) = it.state.removals
    assert it.plan.nodes[name].startswith("waits where it is: no fresh usage of n0, n1, n2")
    it.run(600)
    assert not it.state.removals
    assert not it.actions(Delete)


def test_23_two_leaders_that_decide_at_once_add_once(lab: Make) -> None:
    # The election itself belongs to the controller's loop. This is what protects while two believe to lead.
    it = lab(2)
    it.load(0.9)
    it.run(UP_AFTER)
    it.world.advance(it.world.now + 10)
    seen = it.world.observe()
    plans = [plan_nodes(it.settings, seen, it.state, it.world.now)[1] for _ in range(2)]
    for plan in plans:
        assert any(isinstance(a, Increase) for a in plan.actions)
        assert not it.world.apply(plan)
    assert it.world.groups_["pool"].target == 3


def test_24_a_plan_is_a_value_that_explains_itself_and_changes_nothing(lab: Make) -> None:
    it = lab(2)
    it.load(0.6)
    it.world.advance(10)
    seen = it.world.observe()
    before = State()
    state, plan = plan_nodes(it.settings, seen, before, 10)
    assert (state, plan) == plan_nodes(it.settings, seen, before, 10)
    assert before == State()
    verdict = plan.verdicts["pool"]
    assert verdict.decision is Decision.KEEP
    assert verdict.reasons == (
        "utilisation 0.60 (usage 4800m of 8 CPUs), not below the lower threshold 0.5",
        "2 Ready (8 CPUs), 0 upcoming, 0 not Ready",
    )


def test_25_the_scale_test_is_published_and_runs(lab: Make) -> None:
    path = Path(__file__).resolve().parents[3] / "benchmarks" / "nodes.py"
    spec = importlib.util.spec_from_file_location("nodes_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    result = module.run(nodes=20, pods_each=30, repeat=1)
    assert result["pods"] == 600
    assert result["marked"] == 2  # 10 % of 20


def test_the_defaults_are_those_that_the_tests_derive_from() -> None:
    from headgate.core.nodes.settings import GroupSettings

    group = GroupSettings("g")
    assert (group.lower, group.upper, group.target) == (LOWER, UPPER, TARGET)
    assert (group.up_after, group.down_after) == (UP_AFTER, DOWN_AFTER)
    assert NodeTemplate(CPU).pods == 110
    assert default_estimator().stale > 0
