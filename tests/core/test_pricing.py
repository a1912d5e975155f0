"""Paths through tables and what budgets admit of them: the quick ways against the plain ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.core.instances import Instance, instances

from headgate.core.allocation import allocate
from headgate.core.calm import Calm
from headgate.core.exchange import EXCHANGES, swap
from headgate.core.filling import Space
from headgate.core.laminar import UNLIMITED, Bools, Floats, Ints, build
from headgate.core.limits import compile_limits
from headgate.core.model import Budget, Demand, Pipeline, Slo
from headgate.core.paths import Paths, by_slope
from headgate.core.policies import slo
from headgate.core.policies.slo import SloPolicy
from headgate.core.pricing import take
from headgate.core.problem import Wants, columns_of, pose
from headgate.core.steps import in_order


@st.composite
def tables(draw: st.DrawFn) -> tuple[Ints, Floats]:
    """Grants that rise along a row, some of them twice, and worths that never fall; of equal grants equal ones."""
    random = np.random.default_rng(draw(st.integers(0, 10**6)))
    rows, width = draw(st.integers(1, 8)), draw(st.integers(2, 9))
    table = np.sort(random.integers(0, draw(st.sampled_from([4, 50, 9000])), (rows, width)), axis=1)
    steps = random.choice([0.0, 0.25, 1.0], table.shape) if draw(st.booleans()) else random.random(table.shape)
    steps[:, 1:][table[:, 1:] == table[:, :-1]] = 0
    return table, steps.cumsum(axis=1)


@given(tables())
def test_a_path_is_the_upper_envelope(made: tuple[Ints, Floats]) -> None:
    table, worth = made
    paths = by_slope(table, worth)
    for row in range(len(table)):
        points = paths.column[paths.first[row] : paths.first[row + 1]]
        assert points[0] == 0
        grants, values = table[row, points], worth[row, points]
        # No point lies above it, and its slopes fall: there is only one such line through points of the table.
        assert (np.interp(table[row], grants, values) >= worth[row] - 1e-9).all()
        slopes = paths.price[paths.first[row] : paths.first[row + 1]]
        assert (np.diff(slopes) <= 0).all()
        assert slopes[-1] == -np.inf
        sizes = np.diff(grants)
        np.testing.assert_allclose(slopes[:-1][sizes > 0], (np.diff(values)[sizes > 0]) / sizes[sizes > 0], rtol=1e-6)


@given(tables(), st.floats(0, 1.2))
def test_one_budget_stops_where_nested_ones_do(made: tuple[Ints, Floats], share: float) -> None:
    table, worth = made
    rows = np.arange(len(table))
    grants = table[:, 0].copy()
    room = int(grants.sum() + share * (table[:, -1] - grants).sum())
    paths = by_slope(table, worth)
    one = Space(build(room, np.full(len(rows), -1), (), (), ()))
    nested = Space(build(room, np.zeros(len(rows), dtype=np.int64), (UNLIMITED,), (-1,), ("g",)))
    found, other = (take(space, grants, rows, rows, paths, 0.0) for space in (one, nested))
    assert found.point.tolist() == other.point.tolist()
    assert found.price.tolist() == other.price.tolist()
    assert found.unused == pytest.approx(other.unused)
    assert found.most == pytest.approx(other.most)


def plainly_swapped(point: Ints, paths: Paths, gain: Floats, taken: Bools, left: int) -> int:
    """What `swap` promises, step by step: whatever is cheapest gives way as long as the jump gains more."""
    cheapest = [p for p in point.tolist()[::-1] if taken[p]]
    refused = [p for p in point.tolist() if not taken[p] and (p in paths.first or taken[p - 1])][:EXCHANGES]
    for jump in refused:
        own = paths.row[jump]
        if jump not in paths.first and not taken[jump - 1]:
            continue
        missing, gained, given_up = int(paths.size[jump]) - left, gain[jump], []
        for step in cheapest:
            if missing > 0 and gained > 0 and taken[step] and paths.row[step] != own:
                given_up.append(step)
                missing -= int(paths.size[step])
                gained -= gain[step]
        if missing <= 0 and gained > 0:
            taken[given_up], taken[jump], left = False, True, -missing
    return left


@given(tables(), st.floats(0, 1))
@settings(max_examples=300)
def test_what_gives_way_is_what_trying_all_finds(made: tuple[Ints, Floats], share: float) -> None:
    table, worth = made
    paths = by_slope(table, worth)
    rows = np.arange(len(table))
    point = in_order(paths, rows, rows, 0.0)
    room = int(share * paths.size[point].sum())
    count = int(np.searchsorted(paths.size[point].cumsum(), room, side="right"))
    left = room - int(paths.size[point[:count]].sum())
    taken = np.zeros(len(paths.row), dtype=np.bool_)
    taken[point[:count]] = True
    plain = taken.copy()
    after = plainly_swapped(point, paths, paths.gain(), plain, left)
    assert swap(point, paths, paths.gain(), taken, left) == after
    assert taken.tolist() == plain.tolist()


POLICIES = st.sampled_from(["slo", "slo-fair", "slo-fairsum"])


@given(instances(unit=100, most=10), POLICIES, st.sampled_from([Calm(), Calm(move_cost=65, horizon=130, price=0.02)]))
@settings(max_examples=150, deadline=None)
def test_the_objective_is_that_of_the_grants(instance: Instance, policy: str, calm: Calm) -> None:
    """However the utilities of the answer became known, on the way or afterwards."""
    found = allocate(
        instance.pipelines, instance.demands, instance.budget, current=instance.current, policy=policy, calm=calm
    )
    limits = compile_limits(instance.pipelines, instance.budget)
    problem = pose(limits, Wants.of(limits.names, instance.demands), columns_of(limits.names, instance.current))
    chosen = slo_policy(policy)
    grants = np.array([found.grants[p.name] for p in instance.pipelines])
    rows = np.flatnonzero(problem.wants.known & (problem.load > 0))
    value = problem.wants.known.astype(np.float64)
    if len(rows):
        value[rows] = chosen.utility(problem, rows)(grants[rows, None])[:, 0]
    weight, known = limits.weight / limits.weight.mean(), problem.wants.known
    if chosen.objective.fair:
        expected = 1 - (weight * (1 - value))[known].max(initial=0.0)
    else:
        expected = (weight * chosen.objective.worth(value))[known].sum()
    assert found.objective == pytest.approx(expected, abs=1e-9)


def slo_policy(name: str) -> SloPolicy:
    objective = {"slo": slo.SUM, "slo-fair": slo.FAIR, "slo-fairsum": slo.FAIRSUM}[name]
    return SloPolicy(objective)


@pytest.mark.parametrize("policy", ["slo", "slo-fair", "slo-fairsum"])
@pytest.mark.parametrize("seed", range(12))
def test_grants_that_are_ample_can_be_left_out(policy: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(seed)
    count = int(random.integers(2, 12))
    pipelines = [Pipeline(f"p{i}", step=1000, slo=Slo(float(random.uniform(0.2, 1)), 99)) for i in range(count)]
    demands = {p.name: Demand(tuple(random.uniform(1, 30, 5)), 0.1, float(random.uniform(0, 1.5))) for p in pipelines}
    budget = Budget(int(random.integers(12, 30)) * 1000)
    current = {p.name: 1000 for p in pipelines}
    calm = Calm(move_cost=65, horizon=130, price=0.02) if seed % 2 else Calm()
    widths = []

    def every(problem: object, rows: object, table: Ints) -> int:
        widths.append(table.shape[1])
        return table.shape[1]

    found = allocate(pipelines, demands, budget, current=current, policy=policy, calm=calm)
    monkeypatch.setattr(slo, "ample", every)
    plain = allocate(pipelines, demands, budget, current=current, policy=policy, calm=calm)
    assert widths
    assert found.grants == plain.grants
    assert found.objective == pytest.approx(plain.objective, abs=1e-12)


def test_limits_that_were_compiled_before_give_the_same() -> None:
    pipelines = (Pipeline("a", step=10, slo=Slo(0.3)), Pipeline("b", floor=500, slo=Slo(0.2, 99)))
    demands = {"a": Demand((12.0,), 0.1), "b": Demand((5.0, 9.0), 0.1)}
    budget = Budget(3000)
    limits = compile_limits(pipelines, budget)
    for _ in range(2):
        found = allocate(pipelines, demands, budget, current={}, policy="slo", limits=limits)
        assert found.grants == allocate(pipelines, demands, budget, current={}, policy="slo").grants
    assert replace(limits).floor.tolist() == [0, 500]
