"""What can go wrong, on a virtual clock: what must never happen does not, and the group recovers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from headgate.core.nodes.actions import Delete, Increase, Mark
from headgate.core.nodes.model import PodDisruptionBudget
from headgate.core.nodes.state import Phase, State
from headgate.core.providers import InstanceState, Refused, Unavailable

Make = Callable[..., Any]


def check(it: Any) -> None:
    """No node with serving pods deleted, no group outside its limits, no machine deleted that was not drained."""
    assert it.world.breaches == []
    for plan in it.plans:
        for action in plan.actions:
            if isinstance(action, Delete) and action.node is not None:
                marked = [a for p in it.plans for a in p.actions if isinstance(a, Mark) and a.node == action.node]
                assert marked, f"{action} without a mark before it"
    group = it.world.groups_["pool"]
    assert group.minimum <= group.target <= group.maximum


@pytest.mark.parametrize("phase", [p for p in Phase if p is not Phase.REVERTING])
@pytest.mark.parametrize("lost", [False, True], ids=["state kept", "state lost"])
def test_a_restart_in_every_phase_ends_well(lab: Make, phase: Phase, lost: bool) -> None:
    it = lab(3, pods_each=2)
    it.load(0.1)
    it.until(lambda plan: any(r.phase is phase for r in it.state.removals.values()))
    (name,) = it.state.removals
    # The state was written down, the plan was not carried out, and the outcomes are forgotten.
    it.state = State() if lost else State.from_json(it.state.to_json())
    it.outcomes = ()
    it.run(300)
    check(it)
    if not lost:
        assert name not in it.world.nodes
    elif name in it.world.nodes:
        assert not it.world.nodes[name].marked
        assert not it.world.nodes[name].unschedulable
    it.run(1800)
    check(it)


def test_a_crash_between_the_state_and_the_action_repeats_the_action(lab: Make) -> None:
    it = lab(3)
    it.load(0.1)
    skipped = set()
    apply = it.world.apply

    def crash_first(plan: Any) -> Any:
        kinds = {type(a) for a in plan.actions} - skipped
        if kinds:
            skipped.update(kinds)
            return []
        return apply(plan)

    it.world.apply = crash_first
    it.until(lambda plan: it.world.groups_["pool"].target == 2)
    check(it)


def test_a_machine_that_fails_is_taken_back_and_another_group_grows(lab: Make) -> None:
    it = lab(2)
    it.load(0.9)
    it.until(lambda plan: bool(it.actions(Increase)))
    (new,) = [m for m in it.world.machines.values() if m.state is InstanceState.PENDING]
    new.state, new.ready_at = InstanceState.FAILED, None
    it.tick()
    assert it.actions(Delete)[-1].instance == new.name
    assert "failed" in it.reasons
    assert it.state.groups["pool"].backoff_until == it.world.now + 300
    it.run(320)
    assert it.world.groups_["pool"].target == 3
    check(it)


def test_partial_provisioning_keeps_what_came_and_takes_back_the_rest(lab: Make) -> None:
    it = lab(2, maximum=20)
    delays = iter([60.0, None, 60.0, None, None])
    it.world.provision = lambda: next(delays, 60.0)
    it.world.demand["pool"] = replace_demand(it, 18_000)
    it.until(lambda plan: bool(it.actions(Increase)))
    count = it.actions(Increase)[0].count
    assert count == 5  # (18000 + 2 * 500) / 0.7 = 27143 millicores are seven nodes of 4000
    it.run(890)
    assert it.plan.verdicts["pool"].ready == 4
    it.run(40)
    assert len([a for a in it.actions(Delete) if a.node is None]) >= 3
    assert "holds back" in it.reasons
    it.run(600)
    assert it.plan.verdicts["pool"].ready == 7
    check(it)


def replace_demand(it: Any, demand: int) -> Any:
    from headgate.core.nodes.model import GroupDemand

    return GroupDemand(10**9, demand)


def test_a_node_that_joined_and_failed_later_is_never_taken_for_one_that_did_not_join(lab: Make, change: Make) -> None:
    it = lab(4)
    it.load(0.6)
    it.tick()
    change(it, "n0", ready=False)
    it.run(7200)
    assert not [a for a in it.actions(Delete) if a.instance == "n0"]
    # Also when nothing is remembered: its pods protect it.
    it.state = State()
    it.run(7200)
    assert not [a for a in it.actions(Delete) if a.instance == "n0"]
    assert "n0 did not join in time, but its node has pods: left alone" in it.reasons
    check(it)


def test_a_provider_that_does_not_answer_changes_nothing(lab: Make) -> None:
    it = lab(3)
    it.load(0.1)
    it.until(lambda plan: any(r.phase is Phase.MARKED for r in it.state.removals.values()))
    it.world.fault = lambda call, group: Unavailable("no answer")
    it.run(300)
    assert "its provider did not answer: nothing changes" in it.reasons
    assert not it.actions(Delete)
    it.world.fault = lambda call, group: None
    it.until(lambda plan: it.world.groups_["pool"].target == 2)
    check(it)


def test_an_old_observation_changes_nothing(lab: Make) -> None:
    it = lab(3)
    it.load(0.1)
    it.tamper = lambda cluster: replace(cluster, time=cluster.time - 200)
    before = it.state
    plan = it.run(1200)
    assert plan.actions == ()
    assert it.state == before
    assert plan.verdicts["pool"].reasons == ("the observation is 200 s old",)


def test_an_observation_from_before_the_cordon_does_not_prove_a_node_empty(lab: Make) -> None:
    it = lab(3, pods_each=0)
    it.until(lambda plan: any(r.phase is Phase.DRAINING for r in it.state.removals.values()))
    frozen = it.world.observe()
    it.tamper = lambda cluster: frozen
    it.run(100)
    assert not it.actions(Delete)
    it.tamper = lambda cluster: cluster
    it.tick()
    assert it.actions(Delete)
    check(it)


def test_a_refused_deletion_is_undone(lab: Make) -> None:
    it = lab(3)
    it.world.fault = lambda call, group: Refused("termination protection") if call == "delete" else None
    it.load(0.1)
    it.until(lambda plan: bool(it.actions(Delete)))
    it.run(40)
    assert not any(n.marked or n.unschedulable for n in it.world.nodes.values())
    assert "termination protection" in it.reasons or it.state.postponed
    check(it)


def test_a_pod_that_comes_onto_a_node_being_deleted_is_drained_first(lab: Make, new_pod: Make) -> None:
    it = lab(3)
    it.world.fault = lambda call, group: Unavailable("later") if call == "delete" else None
    it.load(0.1)
    it.until(lambda plan: bool(it.actions(Delete)))
    (name,) = it.state.removals
    it.world.pods["ns/late"] = new_pod("late", name, 100)
    it.world.fault = lambda call, group: None
    it.tick()
    assert it.state.removals[name].phase is Phase.DRAINING
    it.until(lambda plan: name not in it.world.nodes)
    check(it)


def test_a_blocked_drain_times_out_and_is_undone(lab: Make, change: Make) -> None:
    it = lab(3)
    it.load(0.1)
    it.until(lambda plan: any(r.phase is Phase.DRAINING for r in it.state.removals.values()))
    (name,) = it.state.removals
    for index in range(3):
        change(it, f"p{index}-0", labels={"app": "us"})
    it.world.budgets = [PodDisruptionBudget("none", "ns", {"app": "us"}, 0)]
    it.run(1300)
    assert not it.world.nodes[name].unschedulable
    assert "not drained within 20m" in it.state.postponed[name][1] or it.state.removals
    check(it)
