from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from headgate.core.knapsack import CELLS, choose
from headgate.core.laminar import Tree, build


def fits(tree: Tree, grants: np.ndarray) -> bool:
    return all((level.slack(grants) >= 0).all() for level in tree)


@st.composite
def problems(draw: st.DrawFn) -> tuple[Tree, np.ndarray, np.ndarray, np.ndarray]:
    m, k = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    member = draw(st.lists(st.integers(-1, 2), min_size=m, max_size=m))
    budgets = draw(st.lists(st.integers(0, 30), min_size=3, max_size=3))
    tree = build(draw(st.integers(0, 40)), member, budgets, [-1, -1, 1], ["a", "b", "b.c"])
    steps = draw(st.lists(st.lists(st.integers(0, 9), min_size=k - 1, max_size=k - 1), min_size=m, max_size=m))
    table = np.concatenate((np.zeros((m, 1)), np.cumsum(np.array(steps).reshape(m, k - 1), axis=1)), axis=1)
    worth = np.array(draw(st.lists(st.floats(0, 1), min_size=m * k, max_size=m * k))).reshape(m, k)
    return tree, np.zeros(m, dtype=np.int64), table.astype(np.int64), worth


@given(problems())
def test_no_combination_that_fits_is_worth_more(problem: tuple[Tree, np.ndarray, np.ndarray, np.ndarray]) -> None:
    tree, grants, table, worth = problem
    rows = np.arange(len(table))
    column = choose(tree, rows, grants, table, worth)
    assert fits(tree, table[rows, column])
    best = max(
        worth[rows, list(columns)].sum()
        for columns in itertools.product(range(table.shape[1]), repeat=len(table))
        if fits(tree, table[rows, list(columns)])
    )
    np.testing.assert_allclose(worth[rows, column].sum(), best, rtol=1e-12)


def test_what_greedy_strands_is_found() -> None:
    # By worth per millicore: a's 10 for 600, then b's 10 for 700 no longer fits into 1000. Together 12 is possible.
    tree = build(1000, [-1, -1], [], [], [])
    table = np.array([[0, 300, 600], [0, 700, 700]])
    worth = np.array([[0.0, 2.0, 10.0], [0.0, 10.0, 10.0]])
    assert choose(tree, np.arange(2), np.zeros(2, dtype=np.int64), table, worth).tolist() == [1, 1]


def test_a_budget_of_more_units_than_are_counted_is_still_used_and_kept() -> None:
    tree = build(10**6 + 7, [-1, -1], [], [], [])
    table = np.array([[1, 500_001, 999_983], [1, 500_003, 999_979]])
    worth = np.array([[0.0, 0.5, 0.8], [0.0, 0.5, 0.7]])
    column = choose(tree, np.arange(2), np.ones(2, dtype=np.int64), table, worth)
    # Rounded up to units both middles no longer fit, by three millicores of a million: one alone is what is left.
    assert 10**6 / CELLS > 3
    assert column.tolist() == [2, 0]
