"""CPUs move only where they gain more than the move costs, and what nobody gains by stays where it is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from headgate.core.limits import compile_limits
from headgate.core.model import Budget, Demand, Pipeline, Slo
from headgate.core.policies.slo import SloPolicy
from headgate.core.problem import Wants, columns_of, pose

SLO = Slo(0.7, 99.0)
PIPELINES = (Pipeline("a", floor=1000, step=1000, slo=SLO), Pipeline("b", floor=1000, step=1000, slo=SLO))


def divide(rate_a: float, rate_b: float, current: dict[str, int], *, arriving: float, price: float) -> dict[str, int]:
    limits = compile_limits(PIPELINES, Budget(sum(current.values())))
    demands = {name: Demand((rate,), 0.15, 0.2) for name, rate in (("a", rate_a), ("b", rate_b))}
    problem = pose(limits, Wants.of(limits.names, demands), columns_of(limits.names, current))
    division = SloPolicy().divide(replace(problem, arriving=arriving, price=price))
    return dict(zip(limits.names, division.grants.tolist(), strict=True))


def test_what_nobody_gains_by_stays_where_it_is() -> None:
    # Both are idle enough with one CPU: loads of 0.15 and 0.3.
    current = {"a": 7000, "b": 1000}
    assert divide(1.0, 2.0, current, arriving=0.5, price=0.02) == current
    assert divide(1.0, 2.0, current, arriving=1.0, price=0.0) != current


@pytest.mark.parametrize(("price", "moves"), [(0.02, True), (1.0, False)])
def test_a_need_moves_cpus_if_it_is_worth_the_price(price: float, moves: bool) -> None:
    # b needs 2.4 CPUs and has two; a has five that it does not need. No gain of a utility exceeds 1.
    current = {"a": 5000, "b": 2000}
    grants = divide(1.0, 16.0, current, arriving=0.5, price=price)
    assert (grants["b"] > 2000) == moves
    assert sum(grants.values()) == 7000
