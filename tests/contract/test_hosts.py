"""What core/hosting.py promises, for every host adapter."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from tests.contract.hosts import KINDS, Harness, InMemory, KServe, Make

from headgate.core.hosting import Applied, HostAdapter, Inventory, Order

TURNS = 20


@pytest.fixture(params=KINDS)
def serve(request: pytest.FixtureRequest) -> Iterator[Make]:
    """(millicores of a, of b) -> harness; what it saw is checked in the end."""
    made: list[Harness] = []

    def make(a: int, b: int) -> Harness:
        kind = request.param
        if kind == "in-memory":
            made.append(InMemory(a, b))
        else:
            made.append(KServe(request.getfixturevalue("double" if kind == "kserve" else "real"), a, b))
        return made[-1]

    yield make
    for one in made:
        one.check()
        one.close()


def observe(it: Harness, host: HostAdapter) -> Inventory:
    return host.observe([it.budget])[it.budget.key]


def order(it: Harness, a: int, b: int) -> Order:
    assert it.budget.spec.total is not None
    return Order(it.budget, it.budget.spec.total, {it.names["a"]: a, it.names["b"]: b}, {})


def apply(
    it: Harness, host: HostAdapter, a: int, b: int, allowed: Callable[[], bool] = lambda: True, **more: Any
) -> Applied:
    return host.apply([order(it, a, b)], allowed, **more)[it.budget.key]


def reach(it: Harness, host: HostAdapter, a: int, b: int) -> Applied:
    """Turn after turn until nothing is pending."""
    for _ in range(TURNS):
        observe(it, host)
        applied = apply(it, host, a, b)
        if not applied.pending:
            return applied
        it.wait()
    raise AssertionError(f"still pending: {applied.pending}")


def ours(it: Harness, grants: Mapping[str, int]) -> tuple[int, int]:
    return grants[it.names["a"]], grants[it.names["b"]]


def test_an_observation_tells_the_pipelines_and_what_each_takes(serve: Make) -> None:
    it = serve(1400, 600)
    seen = observe(it, it.host())
    assert {it.names["a"], it.names["b"]} <= {pipeline.name for pipeline in seen.pipelines}
    assert ours(it, seen.granted) == (1400, 600)
    assert seen.total == it.budget.spec.total


def test_an_order_is_reached_and_then_rests(serve: Make) -> None:
    it = serve(1400, 600)
    host = it.host()
    assert ours(it, reach(it, host, 600, 1400).granted) == (600, 1400)
    assert ours(it, it.taken()) == (600, 1400)
    before = it.writes()
    again = apply(it, host, 600, 1400)
    assert (again.changes, again.pending, it.writes()) == ((), {}, before)


def test_shrinks_come_first_and_growth_only_into_what_was_given_up(serve: Make) -> None:
    it = serve(1400, 600)
    host = it.host()
    observe(it, host)
    first = apply(it, host, 600, 1400)
    assert first.changes[0].pipeline == it.names["a"]
    assert all(change.after < change.before for change in first.changes) or not it.delays
    assert sum(it.taken()[it.names[key]] for key in ("a", "b")) <= 2000
    reach(it, host, 600, 1400)


def test_what_is_accepted_and_not_in_force_is_pending(serve: Make) -> None:
    it = serve(1400, 600)
    host = it.host()
    observe(it, host)
    first = apply(it, host, 600, 1400)
    if it.delays:
        assert it.names["a"] in first.pending
        assert ours(it, first.granted) == (1400, 600), "what is asked to be given up is not given up yet"
    else:
        assert not first.pending


def test_a_dry_run_writes_nothing_and_tells_requests_that_the_host_would_take(serve: Make) -> None:
    it = serve(1400, 600)
    host = it.host()
    observe(it, host)
    told = apply(it, host, 600, 1400, dry_run=True)
    assert it.writes() == 0
    assert ours(it, it.taken()) == (1400, 600)
    assert {change.pipeline for change in told.changes} == {it.names["a"], it.names["b"]}
    assert sum(change.after for change in told.changes) == 2000
    for change in told.changes:
        assert change.refused is None
        assert it.accepts(change), change


def test_what_will_not_be_changed_is_named_with_the_reason_and_does_not_stop_the_rest(serve: Make) -> None:
    it = serve(1400, 600)
    host = it.host()
    seen = observe(it, host)
    wanted = order(it, 600, 1300)
    wanted = Order(wanted.budget, wanted.total, {**wanted.grants, it.names["fixed"]: 200}, {})
    applied = host.apply([wanted], lambda: True)[it.budget.key]
    refusal = {**seen.refused, **applied.refused}[it.names["fixed"]]
    assert refusal.reason.isalnum()
    assert refusal.message
    for _ in range(TURNS):
        it.wait()
        observe(it, host)
        applied = host.apply([wanted], lambda: True)[it.budget.key]
        if not applied.pending:
            break
    assert ours(it, it.taken()) == (600, 1300)


def test_nothing_is_written_when_it_is_not_allowed(serve: Make) -> None:
    it = serve(1400, 600)
    host = it.host()
    observe(it, host)
    applied = apply(it, host, 600, 1400, lambda: False)
    assert (it.writes(), applied.changes) == (0, ())
    assert ours(it, applied.granted) == (1400, 600)


@pytest.mark.parametrize("after", [1, 2, 3])
def test_it_stops_at_once_when_it_is_not_allowed_any_more(serve: Make, after: int) -> None:
    it = serve(1400, 600)
    host = it.host()
    left = [after]

    def allowed() -> bool:
        left[0] -= 1
        return left[0] >= 0

    for _ in range(TURNS):
        observe(it, host)
        apply(it, host, 600, 1400, allowed)
        it.wait()
    assert it.writes() <= after
    reach(it, host, 600, 1400)


@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_another_process_goes_on_after_a_crash(serve: Make, after: int) -> None:
    it = serve(1400, 600)
    first = it.host()
    left = [after]

    def allowed() -> bool:
        left[0] -= 1
        return left[0] >= 0

    observe(it, first)
    for _ in range(3):
        apply(it, first, 600, 1400, allowed)
        it.wait()
    second = it.host()  # the first one is never heard of again
    assert ours(it, reach(it, second, 600, 1400).granted) == (600, 1400)


def test_another_process_may_want_something_else_half_way(serve: Make) -> None:
    it = serve(1400, 600)
    first = it.host()
    observe(it, first)
    apply(it, first, 600, 1400)
    second = it.host()
    assert ours(it, reach(it, second, 1600, 400).granted) == (1600, 400)


def test_an_order_may_change_at_any_moment(serve: Make) -> None:
    it = serve(1400, 600)
    host = it.host()
    for a in (600, 1900, 200, 1000):
        observe(it, host)
        apply(it, host, a, 2000 - a)
        it.wait()
    assert ours(it, reach(it, host, 900, 1100).granted) == (900, 1100)


@pytest.mark.parametrize("times", [1, 2, 4])
def test_lost_answers_do_no_harm(serve: Make, times: int) -> None:
    it = serve(1400, 600)
    host = it.host()
    if not it.lose_answers(times):
        return
    for _ in range(TURNS):
        try:
            observe(it, host)
            applied = apply(it, host, 600, 1400)
        except OSError:
            it.wait()
            continue
        if not applied.pending:
            break
        it.wait()
    assert ours(it, it.taken()) == (600, 1400)


def test_a_host_that_does_not_answer_is_an_os_error_and_nothing_changes(serve: Make) -> None:
    it = serve(1400, 600)
    host = it.host()
    if not it.down():
        return
    with pytest.raises(OSError, match="503"):
        observe(it, host)
    with pytest.raises(OSError, match="503"):
        apply(it, host, 600, 1400)
    assert ours(it, it.taken()) == (1400, 600)


def test_a_restore_leaves_nothing_half_way_and_asks_first(serve: Make) -> None:
    it = serve(1400, 600)
    host = it.host()
    observe(it, host)
    apply(it, host, 600, 1400)
    before = it.writes()
    host.restore(lambda: False)
    assert it.writes() == before
    host.restore(lambda: True)
    for _ in range(3):
        it.wait()
    seen = observe(it, host)
    assert sum(ours(it, seen.granted)) <= 2000
    host.close()
