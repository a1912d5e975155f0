"""The planner against kubelets that do their part at any time, or never: the budget holds at every instant."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.adapters.kubernetes.actuate import less_of
from headgate.adapters.kubernetes.pods import Qos
from headgate.adapters.kubernetes.resize import Managed, Memory, Plan, Rules, Share, plan, resting
from headgate.adapters.kubernetes.shape import LEAST
from headgate.core.hosting import Refusal

from .cluster_state import Nodes, Virtual

RULES = Rules(patience=60.0, memory=600.0)


def shares(pods: list[Virtual], targets: Mapping[str, int], total: int, budget: str = "b") -> list[Share]:
    managed = tuple(Managed(p.pod(), p.name.split("-")[0], targets.get(p.name)) for p in pods)
    return [Share(budget, total, managed)]


def next_plan(world: Nodes, targets: Mapping[str, int], total: int, memory: Memory, now: float = 0.0) -> Plan:
    return plan(shares(world.pods, targets, total), world.free(), memory, now, RULES)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Nodes, dict[str, int], int]:
    count = draw(st.integers(1, 8))
    nodes = draw(st.integers(1, 3))
    kinds = st.sampled_from(["guaranteed", "burstable", "unlimited"])
    pods = []
    for index in range(count):
        size = draw(st.integers(LEAST, 1500))
        kind = draw(kinds)
        spec: tuple[int | None, int | None] = (size, size)
        if kind == "burstable":
            spec = (size, size + draw(st.integers(1, 1000)))
        elif kind == "unlimited":
            spec = (size, None)
        qos = Qos.GUARANTEED if kind == "guaranteed" else Qos.BURSTABLE
        pods.append(Virtual(f"p{index % 3}-{index}", f"n{draw(st.integers(0, nodes - 1))}", spec, qos))
    slack = draw(st.integers(0, 2000))
    total = sum(p.taken for p in pods) + slack
    allocatable = {
        f"n{n}": sum(p.taken for p in pods if p.node == f"n{n}") + draw(st.integers(0, 1500)) for n in range(nodes)
    }
    targets = {}
    left, room = total, dict(allocatable)
    for position, pod in enumerate(pods):
        rest = len(pods) - position - 1
        here = sum(1 for p in pods[position + 1 :] if p.node == pod.node)
        most = min(left - LEAST * rest, room[pod.node] - LEAST * here)
        targets[pod.name] = draw(st.integers(LEAST, max(LEAST, most)))
        left -= targets[pod.name]
        room[pod.node] -= targets[pod.name]
    return Nodes(allocatable, pods), targets, total


@given(worlds(), st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_the_budget_and_the_nodes_hold_at_every_instant_and_the_end_is_the_target(
    world: tuple[Nodes, dict[str, int], int], seed: int
) -> None:
    nodes, targets, total = world
    memory, chance = Memory(), random.Random(seed)
    for turn in range(60):
        fair = turn >= 30  # from then on everybody does their part
        made = next_plan(nodes, targets, total, memory, turn / 100)
        # A crash loses the memory; a plan that is half written is never heard of again.
        memory = Memory() if not fair and chance.random() < 0.2 else made.memory
        by_name = {p.name: p for p in nodes.pods}
        for step in made.steps[: len(made.steps) if fair else chance.randint(0, len(made.steps))]:
            by_name[step.of.pod.name].write(step)
            check(nodes, total)
        for pod in chance.sample(nodes.pods, len(nodes.pods) if fair else chance.randint(0, len(nodes.pods))):
            nodes.admit(pod, turn / 100)
            check(nodes, total)
            if fair or chance.random() < 0.7:
                nodes.put_in_force(pod)
        if all(p.actual[0] == targets[p.name] for p in nodes.pods) and not made.pending:
            break
    assert {p.name: p.actual[0] for p in nodes.pods} == targets
    assert all(p.condition is None or p.condition[1] != "Deferred" for p in nodes.pods), "a node's room was exceeded"


def check(nodes: Nodes, total: int) -> None:
    assert sum(p.taken for p in nodes.pods) <= total
    for name, allocatable in nodes.allocatable.items():
        assert sum(p.taken for p in nodes.pods if p.node == name) <= allocatable


def test_growth_waits_until_the_kubelet_has_shrunk_and_not_until_the_server_has_accepted() -> None:
    world = Nodes({"n": 2000}, [Virtual("a-0", "n", (800, 800)), Virtual("b-0", "n", (200, 200))])
    targets = {"a-0": 300, "b-0": 700}
    first = next_plan(world, targets, 1000, Memory())
    assert [(s.of.pod.name, s.after) for s in first.steps] == [("a-0", 300)]
    assert [(s.of.pod.name, s.after) for s in first.waiting] == [("b-0", 700)]
    world.pods[0].write(first.steps[0])
    assert not next_plan(world, targets, 1000, first.memory).steps
    world.admit(world.pods[0], 0)  # observedGeneration leads, the cgroup follows
    assert not next_plan(world, targets, 1000, first.memory).steps
    world.put_in_force(world.pods[0])
    second = next_plan(world, targets, 1000, first.memory)
    assert [(s.of.pod.name, s.after) for s in second.steps] == [("b-0", 700)]


def test_what_the_node_puts_off_keeps_its_reservation_until_patience_ends_and_is_then_taken_back() -> None:
    # Somebody else takes the node's room between the look and the write.
    world = Nodes({"n": 1000}, [Virtual("a-0", "n", (300, 300)), Virtual("b-0", "n", (100, 100))])
    targets = {"a-0": 600, "b-0": 200}
    made = next_plan(world, targets, 900, Memory())
    world.others["n"] = 500
    for step in made.steps:
        next(p for p in world.pods if p.name == step.of.pod.name).write(step)
    world.admit(world.pods[1], 0)
    world.put_in_force(world.pods[1])
    world.admit(world.pods[0], 1)
    assert world.pods[0].condition == ("PodResizePending", "Deferred", 1)
    waits = next_plan(world, targets, 900, made.memory, 61)
    assert not waits.steps
    assert "Deferred" in waits.pending["a"]
    assert Share("b", 900, shares(world.pods, targets, 900)[0].pods).room == 900 - 600 - 200
    late = next_plan(world, targets, 900, waits.memory, 62)
    assert [(s.of.pod.name, s.cpu.request, s.cpu.limit) for s in late.steps] == [("a-0", 300, 300)]
    assert late.refused["a"].reason == "Deferred"
    world.pods[0].write(late.steps[0])
    world.admit(world.pods[0], 62)
    again = next_plan(world, targets, 900, late.memory, 63)
    assert not again.steps
    assert not again.waiting, "what failed is not tried again at once"
    assert next_plan(world, targets, 900, again.memory, 62 + 601).waiting


def test_what_is_infeasible_takes_nothing_and_is_restored_as_it_was_to_the_millicore() -> None:
    pod = Virtual("a-0", "n", (100, 1000), Qos.BURSTABLE)
    world = Nodes({"n": 4000}, [pod], stubborn={"a-0"})
    made = next_plan(world, {"a-0": 2000}, 3000, Memory())
    pod.write(made.steps[0])
    assert pod.pod().taken == 2000
    world.admit(pod, 0)
    assert pod.pod().taken == 100
    restored = next_plan(world, {"a-0": 2000}, 3000, made.memory, 1)
    assert [(s.cpu.request, s.cpu.limit) for s in restored.steps] == [(100, 1000)]
    assert restored.refused["a"].reason == "Infeasible"


def test_of_what_is_more_than_the_node_has_less_is_tried() -> None:
    pod = Virtual("a-0", "n", (100, 100))
    world = Nodes({"n": 4000}, [pod], stubborn={"a-0"})
    pod.write(next_plan(world, {"a-0": 2000}, 3000, Memory()).steps[0])
    world.admit(pod, 0)
    seen = pod.pod()
    assert seen.resize is not None
    said = "Node didn't have enough capacity: cpu, requested: 2000, capacity: 1500"
    seen = replace(seen, resize=replace(seen.resize, message=said))
    (share,) = shares(world.pods, {"a-0": 2000}, 3000)
    share = replace(share, pods=(replace(share.pods[0], pod=seen),))
    restored = plan([share], world.free(), Memory(), 1, RULES)
    assert [step.cpu.request for step in restored.steps] == [100]
    refusal = restored.refused["a"]
    assert (refusal.reason, less_of(refusal, 100, 2000).most) == ("NodeCapacity", 100 + 1900 // 2)
    pod.write(restored.steps[0])
    world.admit(pod, 1)
    assert [s.cpu.request for s in next_plan(world, {"a-0": 1050}, 3000, restored.memory, 2).steps] == [1050]
    assert next_plan(world, {"a-0": 2000}, 3000, restored.memory, 2).steps == ()


def test_a_group_that_failed_half_way_goes_back_together() -> None:
    pods = [Virtual("a-0", "n", (300, 300)), Virtual("a-1", "m", (300, 300))]
    world = Nodes({"n": 2000, "m": 2000}, pods, stubborn={"a-1"})
    targets = {"a-0": 800, "a-1": 800}
    made = next_plan(world, targets, 2000, Memory())
    for pod, step in zip(pods, made.steps, strict=True):
        pod.write(step)
        world.admit(pod, 0)
        world.put_in_force(pod)
    assert pods[0].actual == (800, 800)
    back = next_plan(world, targets, 2000, made.memory, 1)
    assert {s.of.pod.name: s.after for s in back.steps} == {"a-0": 300, "a-1": 300}


def test_what_the_server_refused_is_not_tried_again_and_less_of_it_is() -> None:
    world = Nodes({"n": 4000}, [Virtual("a-0", "n", (300, 300)), Virtual("a-1", "n", (300, 300))])
    made = next_plan(world, {"a-0": 2000, "a-1": 2000}, 4000, Memory())
    world.pods[0].write(made.steps[0])
    world.admit(world.pods[0], 0)
    world.put_in_force(world.pods[0])
    # The first has grown when the server says no to the second, half-way of which it would do.
    refusal = Refusal("QuotaExceeded", "exceeded quota")
    (second,) = [s.of for s in made.steps if s.of.pod.name == "a-1"]
    memory = made.memory.forbidden([s.of for s in made.steps], second, 2000, refusal, 600.0)
    again = next_plan(world, {"a-0": 2000, "a-1": 2000}, 4000, memory, 1)
    assert again.refused == {"a": refusal}
    assert {s.of.pod.name: s.after for s in again.steps} == {"a-0": 300}, "they stay alike"
    less = next_plan(world, {"a-0": 1100, "a-1": 1100}, 4000, memory, 1)
    assert not less.refused
    assert {s.of.pod.name: s.after for s in less.steps} == {"a-0": 1100, "a-1": 1100}


@pytest.mark.parametrize(("has", "wanted", "most"), [(500, 1500, 1000), (500, 600, 550), (500, 590, None)])
def test_of_a_growth_that_the_server_refused_half_is_tried_while_it_is_worth_it(
    has: int, wanted: int, most: int | None
) -> None:
    assert less_of(Refusal("QuotaExceeded", ""), has, wanted).most == most
    assert less_of(Refusal("Infeasible", ""), has, wanted).most is None, "the node never will, or not for long"


def test_what_a_node_will_never_do_is_given_to_nobody_else_before_it_is_taken_back() -> None:
    pods = [Virtual("a-0", "n", (300, 300)), Virtual("b-0", "n", (300, 300))]
    world = Nodes({"n": 4000}, pods, stubborn={"a-0"})
    made = next_plan(world, {"a-0": 700, "b-0": 300}, 1000, Memory())
    pods[0].write(made.steps[0])
    world.admit(pods[0], 0)
    both = next_plan(world, {"a-0": 300, "b-0": 700}, 1000, made.memory, 1)
    assert [(s.of.pod.name, s.after) for s in both.steps] == [("a-0", 300)]
    pods[0].write(both.steps[0])
    world.admit(pods[0], 1)
    assert [s.after for s in next_plan(world, {"a-0": 300, "b-0": 700}, 1000, both.memory, 2).steps] == [700]


def test_pods_that_leave_count_until_they_are_gone_and_are_not_touched() -> None:
    world = Nodes({"n": 2000}, [Virtual("a-0", "n", (500, 500), deleting=True), Virtual("a-1", "n", (100, 100))])
    made = next_plan(world, {"a-0": 10, "a-1": 600}, 800, Memory())
    assert [(s.of.pod.name, s.after) for s in made.steps] == [("a-1", 300)]
    del world.pods[0]
    assert [s.after for s in next_plan(world, {"a-1": 600}, 800, made.memory).steps] == [600]


@pytest.mark.parametrize("answered", [False, True])
def test_a_request_without_an_answer_counts_until_the_pod_shows_it(answered: bool) -> None:
    pods = [Virtual("a-0", "n", (100, 100)), Virtual("b-0", "n", (100, 100))]
    (share,) = shares(pods, {"b-0": 900}, 1000)
    asked = {} if answered else {"a-0": 500}
    (step,) = plan([Share("b", 1000, share.pods, asked)], {"n": 5000}, Memory(), 0.0, RULES).steps
    assert step.after == 900 if answered else 500


def test_before_a_stop_what_waits_is_taken_back_and_what_is_under_way_is_left() -> None:
    waits = Virtual("a-0", "n", (100, 100))
    waits.spec, waits.condition = (900, 900), ("PodResizePending", "Deferred", 0)
    goes = Virtual("b-0", "n", (100, 100))
    goes.spec, goes.condition = (200, 200), ("PodResizeInProgress", "", 0)
    (step,) = resting(shares([waits, goes], {}, 1000))
    assert (step.of.pod.name, step.after) == ("a-0", 100)
