from __future__ import annotations

from dataclasses import replace

import numpy as np

from headgate.controller.backtest.drawing import Drawing
from headgate.controller.backtest.grid import Trace
from headgate.controller.backtest.service import Constant, Laws
from headgate.controller.backtest.world import World

WORLD = World(laws=Laws(Constant(0.1), {}), budget=4000, latency=0.5)
COUNTED = replace(WORLD, arrivals="counted")
TRACE = Trace(("a", "b"), np.array([[900.0, 0.0], [30.0, 2.0], [400.0, 7.0]]))


def drawn(world: World, trace: Trace = TRACE) -> list[list[np.ndarray]]:
    drawing = Drawing(trace, world)
    return [[drawing.minute(minute, index)[0] for index in range(2)] for minute in range(trace.minutes)]


def test_requests_come_in_their_order_within_the_minute() -> None:
    for world in (WORLD, COUNTED):
        for minute, pipelines in enumerate(drawn(world)):
            for times in pipelines:
                assert (np.diff(times) >= 0).all()
                assert ((times >= minute * 60) & (times <= minute * 60 + 60)).all()


def test_counted_arrivals_are_exactly_those_of_the_trace() -> None:
    for seed in range(20):
        found = drawn(replace(COUNTED, seed=seed))
        assert [sum(len(minute[index]) for minute in found) for index in range(2)] == [1330, 9]
        # Nothing comes before its minute, so that no minute's requests and those before it are more than were due.
        assert len(found[0][0]) <= 900


def test_a_generator_that_is_late_sends_the_rest_with_the_next_minute_s() -> None:
    # The last of 900 requests comes after 60 s +- 60 / sqrt(900) s: late in about half of the cases.
    late = [900 - len(drawn(replace(COUNTED, seed=seed))[0][0]) for seed in range(60)]
    assert 15 < sum(count > 0 for count in late) < 45
    # Those beyond the minute are as many as 2 s hold, 30, times the mean of the positive half of a normal: 24.
    assert 10 < np.mean([count for count in late if count]) < 45


def test_the_same_seed_draws_the_same() -> None:
    for world in (WORLD, COUNTED):
        for one, other in zip(drawn(world), drawn(world), strict=True):
            assert all((a == b).all() for a, b in zip(one, other, strict=True))
