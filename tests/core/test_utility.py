"""Utilities other than the default one, from their definitions."""

from __future__ import annotations

import numpy as np

from headgate.core.allocation import allocate
from headgate.core.limits import compile_limits
from headgate.core.model import Budget, Demand, Pipeline, Slo
from headgate.core.problem import Wants, columns_of, pose
from headgate.core.utility import Shedding, in_time

PIPELINES = [Pipeline("a", step=1000, slo=Slo(0.3, 99)), Pipeline("b", step=1000, slo=Slo(0.3, 99))]
# Both have a load of 4 CPUs.
DEMANDS = {"a": Demand((40.0,), 0.1, 0.5), "b": Demand((40.0,), 0.1, 0.5)}


def test_where_the_host_sheds_a_grant_is_worth_what_it_serves() -> None:
    limits = compile_limits(PIPELINES, Budget(8000))
    problem = pose(limits, Wants.of(limits.names, DEMANDS), columns_of(limits.names, {}))
    rows, grants = np.arange(2), np.tile(np.arange(9) * 1000, (2, 1))
    worth = Shedding(0.9)(problem, rows)(grants)
    served = np.minimum(1, grants / 4000)
    np.testing.assert_allclose(worth, np.maximum(in_time(problem, rows)(grants), 0.9 * served))
    assert (np.diff(worth, axis=1) >= 0).all()


def test_nobody_is_given_up_where_the_host_sheds() -> None:
    """With 5 CPUs for a load of 8: one whole pipeline in time, or the same share of both."""
    one, both = (
        allocate(PIPELINES, DEMANDS, Budget(5000), current={}, policy=policy).grants for policy in ("slo", "slo-shed")
    )
    assert sorted(one.values()) == [0, 5000]
    assert min(both.values()) >= 1000
