"""The behaviours that a node autoscaler is compared by, a test for each: when nodes are added, and how many.

Rows of the score card by the number in a test's name: 1, 3, 4, 5, 6, 8, 14, 15, 16, 21.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

from headgate.core.model import Node
from headgate.core.nodes.actions import Cancel, Delete, Increase
from headgate.core.nodes.model import GroupDemand, Resize
from headgate.core.providers import Unavailable

from .conftest import CPU, TARGET, UP_AFTER

Make = Callable[..., Any]


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


def test_08_the_step_is_proportional_to_what_is_missing(lab: Make) -> None:
    it = lab(2, maximum=50)
    it.world.demand["pool"] = GroupDemand(10**9, demand=40_000 - 2 * 500)
    it.run(UP_AFTER + 10)
    (action,) = it.actions(Increase)
    assert action.count == math.ceil((40_000 / TARGET - 2 * CPU) / CPU) == 13
    assert 40_000 / ((2 + action.count) * CPU) <= TARGET


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
