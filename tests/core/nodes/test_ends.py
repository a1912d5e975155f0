"""Nothing goes round in circles: what cannot be had is not asked for again and again, and nothing waits for ever."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from headgate.controller.nodes.virtual import VirtualGroup
from headgate.core.nodes.actions import Delete, Increase, Mark
from headgate.core.nodes.model import NodeInfo, Resize
from headgate.core.nodes.plan import plan_nodes
from headgate.core.nodes.settings import GroupSettings, NodeSettings
from headgate.core.nodes.state import Phase, State
from headgate.core.providers import InstanceState, NodeTemplate, Unavailable

Make = Callable[..., Any]
CPU = 4000


def test_a_resize_that_another_node_has_room_for_asks_for_no_node(lab: Make, change: Make, new_pod: Make) -> None:
    it = lab(2)
    it.world.pods["ns/large"] = new_pod("large", "n0", 2500)
    change(it, "p0-0", cpu=2000, allocated=500, resize=Resize.DEFERRED)
    it.run(3600)
    # 3500m are free on n1, where p0-0 would have to move: a third node would not bring it there either.
    assert it.actions(Increase) == []
    assert "ns/p0-0 has to move, n1 has room for its 2 CPUs" in it.reasons
    # n1 is as good as empty, but it is the room for this pod.
    assert it.actions(Mark) == []


def test_a_resize_that_fits_nowhere_brings_one_node_and_not_another_each_minute(
    lab: Make, change: Make, new_pod: Make
) -> None:
    it = lab(2, pods_each=0)
    for index in range(2):
        it.world.pods[f"ns/large-{index}"] = new_pod(f"large-{index}", f"n{index}", 2500)
    it.world.pods["ns/tight"] = new_pod("tight", "n0", 1000)
    it.run(30)
    change(it, "tight", cpu=2000, allocated=1000, resize=Resize.DEFERRED)  # 500m and 1500m are free
    it.run(7200)
    assert [action.count for action in it.actions(Increase)] == [1]
    assert len(it.world.nodes) == 3
    assert it.actions(Mark) == []


def test_a_machine_that_never_comes_at_the_minimum_is_replaced(lab: Make) -> None:
    it = lab(2, minimum=3, provisioning_timeout=200, backoff=60)
    delays = iter([None])
    it.world.provision = lambda: next(delays, 60.0)
    it.run(220)
    # Two machines run and one of three does not: taken back it would leave two, so another has to come first.
    assert "another has to come first" in it.reasons
    assert it.actions(Delete) == []
    it.run(600)
    assert len(it.world.nodes) == len(it.world.machines) == 3
    assert [action.instance for action in it.actions(Delete)] == ["pool-1"]
    assert it.world.breaches == []


def test_a_group_at_its_minimum_with_a_machine_that_failed_still_grows(lab: Make) -> None:
    it = lab(2, minimum=3, maximum=5, backoff=60)
    it.tick()
    (lost,) = [m for m in it.world.machines.values() if m.state is InstanceState.PENDING]
    lost.state, lost.ready_at = InstanceState.FAILED, None
    it.load(0.9)
    # 7200m are 0.9 of two nodes; at 0.7 they take three, which the replacement of the lost one makes.
    it.until(lambda plan: len(it.world.nodes) == 3, within=600)
    assert it.world.breaches == []


def test_when_the_first_candidates_cannot_go_others_do(lab: Make, change: Make) -> None:
    it = lab(4)
    it.load(0.1)
    change(it, "n0", labels={"disk": "ssd"})
    change(it, "p0-0", cpu=400, selector={"disk": "ssd"})  # the least on any node, and it fits on no other
    it.until(lambda plan: bool(it.actions(Delete)))
    assert it.actions(Delete)[0].instance == "n1"
    assert all(action.node != "n0" for action in it.actions(Mark))


@pytest.mark.parametrize("lost", [False, True])
def test_a_mark_that_cannot_be_taken_off_stops_nothing_else(lab: Make, change: Make, lost: bool) -> None:
    it = lab(3)
    it.load(0.1)
    change(it, "n0", marked=True)
    it.world.fault = lambda call, group: Unavailable("no answer") if call == "unmark" else None
    if lost:
        it.state = State()
    it.until(lambda plan: bool(it.actions(Delete)))
    assert it.actions(Delete)[0].instance != "n0"


def test_a_machine_that_loses_its_node_is_taken_back(lab: Make, change: Make) -> None:
    it = lab(3, minimum=0, provisioning_timeout=300)
    it.load(0.6)
    it.run(30)
    del it.world.nodes["n0"], it.world.pods["ns/p0-0"]
    it.run(290)
    assert it.plan.verdicts["pool"].upcoming == 1
    it.run(60)
    assert sorted(it.world.nodes) == sorted(it.world.machines)
    assert [action.instance for action in it.actions(Delete)] == ["n0"]


@pytest.mark.parametrize("changes", [{"ready": False}, {"unschedulable": True}], ids=["not Ready", "cordoned"])
def test_nodes_that_take_no_pods_count_towards_the_limit_in_cpus(
    lab: Make, change: Make, changes: dict[str, bool]
) -> None:
    it = lab(4, maximum_cpu=4 * CPU)
    it.load(0.9)
    it.run(30)
    change(it, "n0", **changes)
    it.run(600)
    assert it.actions(Increase) == []
    assert "at its maximum of 16 CPUs" in it.reasons


def test_a_group_that_wants_nodes_and_may_have_none_gives_none_up(lab: Make, new_pod: Make, change: Make) -> None:
    it = lab(3, minimum=1, maximum=3, pods_each=0)
    for index in range(3):
        it.world.pods[f"ns/p{index}"] = new_pod(f"p{index}", f"n{index}", 600, safe_to_evict=True)
    it.until(lambda plan: bool(it.actions(Mark)))  # 1800m of 12000m
    # One pod cannot grow on its node, and no other has as much room.
    it.world.pods["ns/p1"] = replace(it.world.pods["ns/p1"], cpu=3900, allocated=600, resize=Resize.DEFERRED)
    it.world.pods["ns/q1"] = new_pod("q1", "n1", 300)
    it.until(lambda plan: not any(n.marked for n in it.world.nodes.values()))
    it.run(3600)
    assert it.actions(Delete) == []
    assert "at its maximum of 3 nodes" in it.reasons


def test_while_frozen_nothing_is_taken_back_and_nothing_deleted(lab: Make, change: Make) -> None:
    it = lab(9, maximum=10, minimum=9, provisioning_timeout=200)
    it.world.provision = lambda: None
    it.load(0.9)
    it.until(lambda plan: bool(it.actions(Increase)))
    for index in range(5):  # of 9: more than 3, and more than 45 %
        change(it, f"n{index}", ready=False)
    it.run(1800)
    assert it.actions(Delete) == []
    for index in range(5):
        change(it, f"n{index}", ready=True)
    it.tick()
    assert len(it.actions(Delete)) == 1


@pytest.mark.parametrize("why", ["Cluster Autoscaler", ""], ids=["taken over", "not in the settings any more"])
def test_a_node_whose_deletion_did_not_reach_the_provider_is_given_back_with_its_group(lab: Make, why: str) -> None:
    it = lab(3)
    it.load(0.1)
    it.world.fault = lambda call, group: Unavailable("no answer") if call == "delete" else None
    it.until(lambda plan: any(r.phase is Phase.DELETING for r in it.state.removals.values()))
    it.world.groups_["pool"].owner = why or None
    if not why:
        it.settings = NodeSettings((GroupSettings("other"),))
        it.world.groups_["other"] = VirtualGroup("other", NodeTemplate(CPU))
    it.world.fault = lambda call, group: None
    for _ in range(4):
        it.world.advance(it.world.now + 10)
        seen = it.world.observe()
        asked = {name: view for name, view in seen.groups.items() if name in it.settings.by_name()}
        it.state, plan = plan_nodes(it.settings, replace(seen, groups=asked), it.state, it.world.now)
        it.world.apply(plan)
    assert it.state.removals == {}
    assert not any(node.marked or node.unschedulable for node in it.world.nodes.values())
    assert len(it.world.nodes) == 3


@pytest.mark.parametrize("owner", ["Cluster Autoscaler", None], ids=["another's", "does not answer"])
def test_groups_that_are_not_planned_for_count_towards_the_limit_of_all(lab: Make, owner: str | None) -> None:
    it = lab(2, maximum=10)
    it.settings = NodeSettings((*it.settings.groups, GroupSettings("other", minimum=1)), maximum=4)
    it.world.groups_["other"] = VirtualGroup("other", NodeTemplate(CPU), 1)
    for name in ("o0", "o1"):
        it.world.add_node(NodeInfo(name, CPU, "other"))
    it.run(30)
    it.world.groups_["other"].owner = owner
    if owner is None:
        silent = ("instances", "other")
        it.world.fault = lambda *call: Unavailable("no answer") if call == silent else None
    it.load(0.9)
    it.run(600)
    assert it.actions(Increase) == []
    assert "at the maximum of 4 nodes of all groups" in it.reasons
