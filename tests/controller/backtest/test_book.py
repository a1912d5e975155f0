from __future__ import annotations

import math

import numpy as np
import pytest

from headgate.controller.backtest.book import Book
from headgate.controller.backtest.grid import Trace
from headgate.controller.backtest.service import Constant, Laws
from headgate.controller.backtest.world import World


class Settled:
    def __init__(self, latencies: list[float]) -> None:
        self._latencies = np.array(latencies)

    def settled(self, count: int) -> np.ndarray:
        return self._latencies[:count]


@pytest.mark.parametrize(
    ("dropped", "count", "infinite"), [(1, 100, False), (2, 100, True), (2, 200, False), (3, 200, True), (1, 99, True)]
)
def test_the_percentile_is_infinite_when_more_than_one_percent_was_dropped(
    dropped: int, count: int, infinite: bool
) -> None:
    world = World(laws=Laws(Constant(0.1), {}), budget=1000, latency=0.5, percentile=99.0)
    book = Book(Trace(("a",), np.array([[count]])), world)
    book.expect(0, 0, count)
    book.settle(0, Settled([math.inf] * dropped + [0.6] + [0.1] * (count - dropped - 1)))  # type: ignore[arg-type]
    outcome = book.outcome("x", 0, np.zeros(0))
    assert (outcome.dropped[0, 0], outcome.late[0, 0]) == (dropped, 1)
    assert math.isinf(outcome.latency[0, 0]) == infinite
