"""The behaviours that a node autoscaler is compared by, a test for each."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

from headgate.core.demand import default_estimator
from headgate.core.model import Budget, Demand, Node, Pipeline, Replica
from headgate.core.nodes.actions import Cancel, Cordon, Decision, Delete, Evict, Increase, Mark, Uncordon, Unmark
from headgate.core.nodes.model import GroupDemand, PodDisruptionBudget, Resize
from headgate.core.nodes.plan import plan_nodes
from headgate.core.nodes.settings import DisruptionBudget
from headgate.core.nodes.shadow import AllocatorShadow
from headgate.core.nodes.state import Phase, State
from headgate.core.providers import NodeTemplate, Unavailable

Make = Callable[..., Any]

CPU = 4000
LOWER, UPPER, TARGET = 0.5, 0.75, 0.7
UP_AFTER, DOWN_AFTER = 60, 600


def test_01_load_above_the_upper_threshold_adds_a_node_once_it_has_lasted(lab: Make) -> None:
    it = lab(2)
    it.load(0.8)
    it.run(UP_AFTER)
    assert not it.actions(Increase)
    assert "adds after 1m" in it.reasons
    it.tick()
    (action,) = it.actions(Increase)
    assert (action.count, action.seen) == (1, 2)
    assert "utilisation 0.80 (usage 6400m of 8 CPUs), upper threshold 0.75 for 60 s" in action.why


def test_02_a_node_leaves_only_after_a_low_that_lasted_and_a_spike_starts_the_wait_anew(lab: Make) -> None:
    it = lab(3)
    it.load(0.2)
    it.run(DOWN_AFTER - 60)
    it.load(0.6)
    it.tick()
    it.load(0.2)
    it.run(DOWN_AFTER)
    assert not it.state.removals
    assert f"low for {DOWN_AFTER - 10} s of 10m" in it.reasons
    it.tick()
    assert len(it.state.removals) == 1


def test_03_usage_requests_and_unmet_demand_count_and_what_was_allocated_does_not(lab: Make, new_pod: Make) -> None:
    idle = lab(2, demand=400)
    for name, pod in list(idle.world.pods.items()):
        # All of the node is allocated to a pipeline that needs little: no reason to add anything.
        idle.world.pods[name] = new_pod(name[3:], pod.node, CPU, pipeline="us", floor=100)
    plan = idle.run(120)
    loads = plan.verdicts["pool"].loads
    assert loads == {"usage": 0, "requests": 2 * 100, "demand": 400}
    assert not idle.actions(Increase)
    idle.world.demand["pool"] = GroupDemand(10**9, demand=9000, unmet=1000)
    idle.run(UP_AFTER + 10)
    (action,) = idle.actions(Increase)
    assert action.count == math.ceil((9000 / TARGET - 2 * CPU) / CPU)
    reserved = lab(2, pods_each=1, pod_cpu=3500)
    reserved.run(UP_AFTER + 10)
    assert "requests 7 of 8 CPUs" in reserved.actions(Increase)[0].why


def test_04_pods_that_wait_for_a_node_get_as_many_as_they_fill(lab: Make, new_pod: Make) -> None:
    it = lab(1, pod_cpu=2000)
    for index in range(5):
        it.world.pods[f"ns/w{index}"] = new_pod(f"w{index}", None, 1800)
    it.run(20)
    (action,) = it.actions(Increase)
    # One fits beside the present pod, four are left, two to a node.
    assert action.count == 2
    assert "4 pending pods need 2 nodes" in action.why
    it.run(200)
    assert all(p.node for p in it.world.pods.values())
    huge = lab(1)
    huge.world.pods["ns/huge"] = new_pod("huge", None, 9000)
    plan = huge.run(20)
    assert plan.notes == ("pod ns/huge (9) stays pending: pool: a new node has 4 CPUs free",)
    assert not huge.actions(Increase)


def test_05_a_resize_that_its_node_has_no_room_for_is_demand(lab: Make, change: Make) -> None:
    it = lab(1, pod_cpu=1000)
    change(it, "p0-0", cpu=3900, allocated=1000, resize=Resize.DEFERRED, pipeline="us", floor=100)
    it.world.demand["pool"] = GroupDemand(10**9, demand=1000)
    it.run(UP_AFTER + 10)
    assert it.reasons.startswith("2900m CPUs are wanted and not granted: 2 more")
    # 2900 / 0.7 = 4143 millicores are just over one node of 4000.
    assert it.actions(Increase)[0].count == math.ceil(2900 / TARGET / CPU) == 2
    hopeless = lab(1, pod_cpu=1000)
    change(hopeless, "p0-0", cpu=9000, allocated=1000, resize=Resize.INFEASIBLE, pipeline="us", floor=100)
    hopeless.world.demand["pool"] = GroupDemand(10**9, demand=1000)
    hopeless.run(UP_AFTER + 10)
    assert not hopeless.actions(Increase)
    assert "no node of the group could hold it: ns/p0-0 wants 9, a new node offers 4" in hopeless.reasons


def test_06_a_pod_counts_with_the_most_of_spec_allocated_and_actual(new_pod: Make) -> None:
    assert new_pod("growing", cpu=900, allocated=500, actual=400).committed == 900
    assert new_pod("shrinking", cpu=300, allocated=500, actual=700).committed == 700
    assert new_pod("deferred", cpu=900, allocated=500, actual=500, resize=Resize.DEFERRED).committed == 900
    assert new_pod("infeasible", cpu=90000, allocated=500, actual=400, resize=Resize.INFEASIBLE).committed == 500
    assert new_pod("not told", cpu=900, resize=Resize.INFEASIBLE).committed == 900


def test_07_39_percent_on_two_nodes_is_78_on_one_so_both_stay(lab: Make) -> None:
    it = lab(2)
    it.load(0.39)
    plan = it.run(7200)
    assert not it.actions(Mark)
    assert not it.actions(Increase)
    assert plan.nodes["n0"] == "the window's peak of 3120m CPUs would be 0.78 of what remains, at most 0.7"


def test_07_the_projection_uses_the_highest_load_of_the_window(lab: Make) -> None:
    it = lab(3, down_after=60, window=600)
    it.load(0.48)
    it.run(100)
    it.load(0.2)
    # 0.48 of three nodes is 0.72 of two: not while it is in the window, which forgets a twentieth late.
    it.run(540)
    assert not it.actions(Mark)
    it.run(100)
    assert it.actions(Mark)


def test_08_the_step_is_proportional_to_what_is_missing(lab: Make) -> None:
    it = lab(2, maximum=50)
    it.world.demand["pool"] = GroupDemand(10**9, demand=40_000 - 2 * 500)
    it.run(UP_AFTER + 10)
    (action,) = it.actions(Increase)
    assert action.count == math.ceil((40_000 / TARGET - 2 * CPU) / CPU) == 13
    assert 40_000 / ((2 + action.count) * CPU) <= TARGET


def test_09_a_drain_that_would_not_fit_is_not_begun(lab: Make) -> None:
    # Five pods of 1100m to a node of 4: each node has 700m left, so no pod of another one fits.
    it = lab(3, pods_each=3, pod_cpu=1100, signals=("usage",))
    it.load(0.1)
    plan = it.run(DOWN_AFTER + 30)
    assert not it.actions(Mark)
    assert plan.nodes["n0"] == "pod ns/p0-0 needs 1100m CPUs, the most that is free is 700m on n1"


def test_09_what_must_not_be_evicted_is_not(lab: Make, change: Make) -> None:
    it = lab(7)
    it.load(0.1)
    change(it, "p0-0", safe_to_evict=False)
    change(it, "p1-0", controlled=False)
    change(it, "p2-0", local_storage=True)
    change(it, "p3-0", unmodelled="topology spread over zones")
    change(it, "p4-0", grace=3600.0)
    change(it, "n5", keep=True)
    change(it, "n6", unschedulable=True)
    plan = it.run(DOWN_AFTER + 30)
    assert not it.actions(Mark)
    assert plan.nodes == {
        "n0": "pod ns/p0-0 is not safe to evict, as its owner says",
        "n1": "pod ns/p1-0 has no controller that would replace it",
        "n2": "pod ns/p2-0 has local storage",
        "n3": "pod ns/p3-0 has a topology spread over zones, which the simulation does not know",
        "n4": "pod ns/p4-0 wants 3600 s to end, at most 600 s are granted",
        "n5": "its owner forbids its removal",
        "n6": "somebody else cordoned it",
    }


def test_09_the_replacement_has_its_templates_size_not_the_resized_one(lab: Make, change: Make) -> None:
    it = lab(2, signals=("usage",))
    it.load(0.1)
    for name in ("p0-0", "p1-0"):
        change(it, name, cpu=100, template_cpu=3950)
    plan = it.run(DOWN_AFTER + 30)
    assert plan.nodes["n0"] == "pod ns/p0-0 needs 3950m CPUs, the most that is free is 3900m on n1"


def test_10_evictions_keep_to_pod_disruption_budgets(lab: Make, change: Make) -> None:
    it = lab(3, pods_each=2)
    it.load(0.1)
    for index in range(3):
        for number in range(2):
            change(it, f"p{index}-{number}", labels={"app": "us"}, created=-100.0)
    it.world.budgets = [PodDisruptionBudget("one", "ns", {"app": "us"}, allowed=0)]
    plan = it.run(DOWN_AFTER + 30)
    assert plan.nodes["n0"] == "pod ns/p0-0: PodDisruptionBudget one allows no disruption now"
    assert not it.actions(Evict)
    it.world.budgets = [PodDisruptionBudget("one", "ns", {"app": "us"}, allowed=1)]
    away = []
    while not it.actions(Delete):
        it.tick()
        away.append(sum(p.terminating or p.node is None for p in it.world.pods.values()))
    assert max(away) == 1
    assert not it.world.breaches


def test_11_a_removal_is_undone_in_reverse_when_load_returns(lab: Make) -> None:
    for phase in (Phase.MARKED, Phase.SHRINKING, Phase.CORDONED, Phase.DRAINING):
        it = lab(3)
        it.load(0.1)
        it.until(lambda plan, it=it, phase=phase: any(r.phase is phase for r in it.state.removals.values()))
        if phase is Phase.MARKED:
            it.tick()
        (name,) = it.state.removals
        for pod in it.world.pods:
            it.world.usage[pod] = 2000
        plan = it.tick()
        assert "load has returned: 0.75 of what would remain, at most 0.7" in plan.nodes[name]
        it.run(60)
        node = it.world.nodes[name]
        assert (node.marked, node.unschedulable, it.state.removals) == (False, False, {})
        back = [a for a in it.actions(Uncordon) + it.actions(Unmark) if a.node == name]
        assert [type(a) for a in back] == ([Unmark] if phase in (Phase.MARKED, Phase.SHRINKING) else [Uncordon, Unmark])
        assert not it.actions(Delete)


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


def test_13_nothing_leaves_soon_after_an_addition_a_deletion_or_a_failure(lab: Make) -> None:
    it = lab(4, down_after=60, delay_after_delete=1200)
    it.load(0.8)
    it.until(lambda plan: bool(it.actions(Increase)))
    added = it.world.now
    it.load(0.1)
    it.until(lambda plan: bool(it.actions(Mark)))
    assert it.world.now - added >= 600
    it.until(lambda plan: it.state.groups["pool"].deleted is not None)
    first = it.state.groups["pool"].deleted
    it.run(1100)
    assert len({a.node for a in it.actions(Mark)}) == 1
    assert "after the last deletion, waits for 20m" in it.reasons
    it.until(lambda plan: len({a.node for a in it.actions(Mark)}) == 2)
    assert it.world.now - first >= 1200
    failing = lab(4)
    failing.world.fault = lambda call, group: Unavailable("503") if call == "delete" else None
    failing.load(0.1)
    failing.until(lambda plan: "delete failed: 503" in failing.reasons)
    assert "0 s after the last failure, waits for 3m" in failing.reasons or "10 s after" in failing.reasons


def test_14_upcoming_nodes_count_for_the_scaler_and_not_for_the_budget_until_ready(lab: Make) -> None:
    it = lab(2)
    it.world.provision = lambda: 300.0
    it.load(0.9)
    plan = it.run(250)
    assert [a.count for a in it.actions(Increase)] == [math.ceil((0.9 * 2 * CPU / TARGET - 2 * CPU) / CPU)]
    assert "the 1 upcoming nodes suffice" in it.reasons
    assert plan.capacity == (Node("n0", CPU - 500), Node("n1", CPU - 500))
    plan = it.run(200)
    assert plan.capacity[2:] == (Node("pool-1", CPU),)


def test_15_a_machine_that_does_not_join_in_time_is_taken_back(lab: Make) -> None:
    it = lab(2)
    it.world.provision = lambda: None
    it.load(0.9)
    it.until(lambda plan: bool(it.actions(Increase)))
    asked = it.world.now
    it.until(lambda plan: bool(it.actions(Delete)))
    # Seen for the first time one decision after it was asked for.
    assert it.world.now - asked == 900 + 10
    assert it.actions(Delete)[0].why == "pool-1 did not join within 15m"
    it.tick()
    assert it.world.groups_["pool"].target == 2


def test_15_machines_that_never_get_a_name_are_cancelled(lab: Make) -> None:
    it = lab(2)
    it.load(0.6)
    it.tick()
    it.world.groups_["pool"].target = 5
    it.until(lambda plan: bool(it.actions(Cancel)))
    (action,) = it.actions(Cancel)
    assert (action.count, action.seen) == (3, 5)
    assert action.why == "3 machines did not come within 15m"


def test_16_failures_hold_a_group_back_each_time_twice_as_long(lab: Make) -> None:
    it = lab(2)
    it.world.fault = lambda call, group: Unavailable("503") if call == "increase" else None
    it.load(0.9)
    it.run(7200)
    times = [plan.time for plan in it.plans if any(isinstance(a, Increase) for a in plan.actions)]
    gaps = [b - a for a, b in pairwise(times)]
    assert gaps[:4] == [300, 600, 1200, 1800]
    assert set(gaps[4:]) == {1800}
    assert "the group holds back for" in it.reasons


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


def test_20_disruption_budgets_bound_removals_and_follow_their_schedule(lab: Make) -> None:
    for budgets, most in (((DisruptionBudget(share=0.25),), 2), ((DisruptionBudget(nodes=3),), 3)):
        it = lab(8, budgets=budgets)
        it.load(0.05)
        it.until(lambda plan, it=it: bool(it.state.removals))
        assert len(it.state.removals) == most
    closed = lab(8, budgets=(DisruptionBudget(nodes=0, windows=((0, 3600),)), DisruptionBudget(nodes=2)))
    closed.load(0.05)
    closed.run(3590)
    assert not closed.actions(Mark)
    assert "its disruption budget allows 0 of 8 nodes" in closed.reasons
    closed.run(20)
    assert len(closed.state.removals) == 2


def test_21_limits_in_nodes_and_in_cpus_hold(lab: Make) -> None:
    for limits, expected in (
        ({"maximum": 4}, 2),
        ({"maximum_cpu": 3 * CPU + 100}, 1),
        ({"settings_maximum": 5}, 3),
    ):
        wide = {"maximum": 50} | {k: v for k, v in limits.items() if k != "settings_maximum"}
        it = lab(2, **wide)
        if "settings_maximum" in limits:
            it.settings = replace(it.settings, maximum=limits["settings_maximum"])
        it.world.demand["pool"] = GroupDemand(10**9, demand=40_000)
        it.run(UP_AFTER + 10)
        assert it.actions(Increase)[0].count == expected
        assert "leaves room for" in it.reasons
    low = lab(4, minimum_cpu=3 * CPU)
    low.load(0.05)
    low.run(7200)
    assert low.world.groups_["pool"].target == 3


def test_21_a_group_grows_from_zero_and_shrinks_to_zero(lab: Make, new_pod: Make) -> None:
    it = lab(0, minimum=0)
    it.run(60)
    assert not it.actions(Increase)
    it.world.pods["ns/w0"] = new_pod("w0", None, 500)
    it.run(300)
    assert it.world.pods["ns/w0"].node == "pool-1"
    del it.world.pods["ns/w0"]
    it.run(3600)
    assert it.world.groups_["pool"].target == 0
    demand = lab(0, minimum=0, demand=5000)
    demand.run(UP_AFTER + 10)
    assert demand.actions(Increase)[0].count == math.ceil(5000 / TARGET / CPU)


def test_22_the_allocator_is_asked_before_a_node_leaves_and_its_cpus_move_before_the_drain(
    lab: Make, new_pod: Make
) -> None:
    it = lab(3, pods_each=0, demand=3000)
    for index in range(3):
        one = new_pod(f"us-{index}", f"n{index}", CPU, pipeline="us", floor=500, template_cpu=500)
        it.world.pods[one.name] = one
    nodes = tuple(Node(f"n{i}", CPU) for i in range(3))
    replicas = tuple(Replica(f"ns/us-{i}", f"n{i}") for i in range(3))

    def shadow(load: float) -> AllocatorShadow:
        return AllocatorShadow(
            (Pipeline("us", floor=1500, replicas=replicas),),
            {"us": Demand((load,), cpu_seconds_per_request=1.0)},
            Budget(3 * CPU, nodes=nodes),
            current={"us": 3 * CPU},
            needs={"us": round(load * 1000)},
        )

    it.shadow = shadow(9.0)  # 9 CPUs do not fit into two nodes of 4
    plan = it.run(DOWN_AFTER + 30)
    assert plan.nodes["n0"].startswith("without it us would lack 1000m CPUs more than today")
    it.shadow = shadow(3.0)
    it.until(lambda plan: any(r.phase is Phase.SHRINKING for r in it.state.removals.values()))
    plan = it.run(30)
    (name,) = it.state.removals
    assert "waits for room: pod ns/us-0 needs 500m CPUs, the most that is free is 0" in plan.nodes[name]
    free = {node.name: node.free for node in plan.capacity}
    # n0's pod comes back with its template's 500m, for which the allocator leaves room on one of the others.
    assert free == {"n0": 500, "n1": CPU - 500, "n2": CPU}
    # The allocator follows the smaller budget: the others shrink, and only then is the node cordoned and drained.
    assert not it.actions(Cordon)
    for index in (1, 2):
        it.world.pods[f"ns/us-{index}"] = new_pod(f"us-{index}", f"n{index}", 3000, pipeline="us", floor=500)
    it.until(lambda plan: bool(it.actions(Delete)))
    assert not it.world.breaches


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
