from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headgate.controller.backtest.cluster import Cluster

NAMES = ("a", "b", "c")


def test_a_live_cpu_moves_at_once() -> None:
    cluster = Cluster(NAMES, budget=3000, step=10, start=0.0, release=0.0)
    cluster.place(dict.fromkeys(NAMES, 1000))
    assert cluster.want({"a": 250, "b": 1750, "c": 1000}, 10.0) == {"a", "b"}
    assert [h.serving for h in cluster.holdings.values()] == [250, 1750, 1000]
    assert cluster.moved == 750


def test_a_replica_moves_when_the_old_one_is_gone_and_the_new_one_is_ready() -> None:
    cluster = Cluster(NAMES, budget=3000, step=1000, start=35.0, release=30.0)
    cluster.place({"a": 2000, "b": 1000, "c": 0})
    cluster.want({"a": 1000, "b": 2000, "c": 0}, 10.0)
    assert (cluster.holdings["a"].serving, cluster.holdings["a"].running, cluster.free) == (1000, 2000, 0)
    assert cluster.next_event() == 40.0
    cluster.advance(40.0)
    assert (cluster.holdings["b"].serving, cluster.holdings["b"].granted, cluster.free) == (1000, 2000, 0)
    assert cluster.next_event() == 75.0
    assert cluster.advance(75.0) == {"b"}
    assert cluster.holdings["b"].serving == 2000


def test_who_asks_for_more_than_there_is_waits_in_turn() -> None:
    cluster = Cluster(NAMES, budget=3000, step=1000, start=0.0, release=0.0)
    cluster.place(dict.fromkeys(NAMES, 1000))
    cluster.want({"a": 2000, "b": 1000, "c": 1000}, 10.0)
    cluster.want({"a": 2000, "b": 3000, "c": 1000}, 20.0)
    assert [h.serving for h in cluster.holdings.values()] == [1000, 1000, 1000]
    cluster.want({"a": 2000, "b": 3000, "c": 0}, 30.0)
    assert [h.serving for h in cluster.holdings.values()] == [2000, 1000, 0]


@given(
    wishes=st.lists(st.tuples(*[st.integers(0, 6000)] * 3), min_size=1, max_size=20),
    start=st.sampled_from([0.0, 7.0, 35.0]),
    release=st.sampled_from([0.0, 3.0, 30.0]),
)
def test_the_budget_holds_at_every_instant(wishes: list[tuple[int, int, int]], start: float, release: float) -> None:
    cluster = Cluster(NAMES, budget=5000, step=10, start=start, release=release)
    cluster.place(dict.fromkeys(NAMES, 1000))
    for index, wish in enumerate(wishes):
        now = 10.0 * (index + 1)
        while (event := cluster.next_event()) <= now:
            cluster.advance(event)
            assert cluster.free >= 0
        cluster.want(dict(zip(NAMES, wish, strict=True)), now)
        assert cluster.free >= 0
        for holding, wanted in zip(cluster.holdings.values(), wish, strict=True):
            assert 0 <= holding.granted <= max(wanted, 0)
            assert holding.serving >= 0
