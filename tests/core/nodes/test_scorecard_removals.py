"""The behaviours that a node autoscaler is compared by, a test for each: when nodes leave, and how.

Rows of the score card by the number in a test's name: 2, 7, 9, 10, 11, 13, 20, 22.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from headgate.core.model import Budget, Demand, Node, Pipeline, Replica
from headgate.core.nodes.actions import Cordon, Delete, Evict, Increase, Mark, Uncordon, Unmark
from headgate.core.nodes.model import PodDisruptionBudget
from headgate.core.nodes.settings import DisruptionBudget
from headgate.core.nodes.shadow import AllocatorShadow
from headgate.core.nodes.state import Phase
from headgate.core.providers import Unavailable

from .conftest import CPU, DOWN_AFTER

Make = Callable[..., Any]


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
