"""Whatever the input: every limit holds, and nothing is left that could be given."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.core.instances import Instance, feasible, instances

from headgate.core.allocation import Allocation, allocate
from headgate.core.model import Budget, Demand, Pipeline, Unknown
from headgate.core.policies import POLICIES

T = TypeVar("T")
policies = st.sampled_from(sorted(POLICIES))


def solve(instance: Instance, policy: str) -> Allocation:
    return allocate(instance.pipelines, instance.demands, instance.budget, current=instance.current, policy=policy)


def held(instance: Instance) -> set[str]:
    return {n for n, d in instance.demands.items() if isinstance(d, Unknown) and n in instance.current}


@given(instances(), policies)
@settings(max_examples=400, deadline=None)
def test_every_limit_holds_and_nothing_more_could_be_given(instance: Instance, policy: str) -> None:
    allocation = solve(instance, policy)
    grants = allocation.grants
    assert feasible(instance, grants)
    for p in instance.pipelines:
        grant = grants[p.name]
        assert p.floor <= grant <= (grant if p.ceiling is None else p.ceiling)
        if p.name in held(instance):
            continue
        assert grant % p.step == 0 or grant in (p.floor, p.ceiling)
        larger = (grant // p.step + 1) * p.step
        if p.ceiling is not None:
            larger = min(larger, p.ceiling)
        assert larger == grant or not feasible(instance, {**grants, p.name: larger}), f"{p.name} could have {larger}"


@given(instances(), policies)
@settings(max_examples=200, deadline=None)
def test_replicas_have_what_their_pipeline_has_on_nodes_that_have_it(instance: Instance, policy: str) -> None:
    allocation = solve(instance, policy)
    used = dict.fromkeys((node.name for node in instance.budget.nodes), 0)
    for p in instance.pipelines:
        if p.replicas:
            assert sum(allocation.replicas[r.name] for r in p.replicas) == allocation.grants[p.name]
        for r in p.replicas:
            assert allocation.replicas[r.name] >= 0
            if r.node is not None:
                used[r.node] += allocation.replicas[r.name]
    assert all(used[node.name] <= node.free for node in instance.budget.nodes)


@given(instances(), policies, st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_the_order_in_the_file_changes_nothing(instance: Instance, policy: str, random: Random) -> None:
    def shuffled(values: tuple[T, ...]) -> tuple[T, ...]:
        return tuple(random.sample(values, len(values)))

    budget = replace(instance.budget, groups=shuffled(instance.budget.groups), nodes=shuffled(instance.budget.nodes))
    other = solve(replace(instance, pipelines=shuffled(instance.pipelines), budget=budget), policy)
    same = solve(instance, policy)
    assert (other.grants, other.replicas, other.unmet) == (same.grants, same.replicas, same.unmet)


@given(instances(), policies, st.sampled_from([0.125, 0.5, 4.0, 1024.0]))
@settings(max_examples=150, deadline=None)
def test_scaling_all_weights_changes_nothing(instance: Instance, policy: str, factor: float) -> None:
    scaled = tuple(replace(p, weight=p.weight * factor) for p in instance.pipelines)
    assert solve(replace(instance, pipelines=scaled), policy).grants == solve(instance, policy).grants


# With priority classes a larger budget may first let a higher class take its next step, from what a lower one had.
@given(instances(unknown=False, priorities=False), st.sampled_from(["equal", "proportional"]), st.integers(1, 2000))
@settings(max_examples=300, deadline=None)
def test_more_budget_never_lowers_the_objective(instance: Instance, policy: str, more: int) -> None:
    richer = replace(instance, budget=replace(instance.budget, total=instance.budget.total + more))
    assert solve(richer, policy).objective >= solve(instance, policy).objective - 1e-9


@given(instances(), policies)
@settings(max_examples=50, deadline=None)
def test_every_pipeline_has_a_reason(instance: Instance, policy: str) -> None:
    reasons = solve(instance, policy).reasons
    assert set(reasons) == {p.name for p in instance.pipelines}
    assert all(reasons.values())


def test_more_budget_is_not_more_load_of_who_is_not_known() -> None:
    # What u holds does not fit, so that it shares as if its 5 CPUs were its load: 5 : 1 of 3 CPUs, then of 4.2.
    for total, grants in ((3000, {"a": 500, "u": 2500}), (4200, {"a": 700, "u": 3500})):
        found = allocate(
            [Pipeline("a"), Pipeline("u")], {"a": Demand((100.0,), 0.01)}, Budget(total), current={"u": 5000}
        )
        assert found.grants == grants
        assert "its demand is not known: the 5 that it holds count as its load" in found.reasons["u"]


def test_a_step_that_does_not_fit_into_the_budget_is_told() -> None:
    found = allocate([Pipeline("a", step=2000)], {"a": Demand((300.0,), 0.01)}, Budget(3000), current={})
    assert found.grants == {"a": 2000}
    assert "limited by the budget of 3" in found.reasons["a"]
    all_of_it = allocate([Pipeline("a", step=1500)], {"a": Demand((300.0,), 0.01)}, Budget(3000), current={})
    assert "has the whole budget" in all_of_it.reasons["a"]


def test_steps_of_equal_worth_are_taken_in_their_order() -> None:
    # Without an SLO each step of 100m up to the load brings the same, rounding aside.
    pipelines = [Pipeline("a", step=100), Pipeline("b", step=100)]
    demands = {"a": Demand((31.0,), 0.01), "b": Demand((20.0,), 0.2)}
    for total in range(0, 6000, 100):
        for weight in (0.3, 1.0, 3.0):
            some = [pipelines[0], replace(pipelines[1], weight=weight)]
            grants = allocate(some, demands, Budget(total), current={}, policy="slo").grants
            assert sum(grants.values()) == total


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_no_pipelines_get_nothing(policy: str) -> None:
    allocation = allocate([], {}, Budget(8000), current={}, policy=policy)
    assert allocation.grants == {}
    assert allocation.total_unmet == 0
