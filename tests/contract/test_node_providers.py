"""What core/providers.py promises, for every provider."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from headgate.core.model import Infeasible
from headgate.core.providers import Conflict, InstanceState, ProviderError, Refused, Unavailable

Make = Callable[[int], Any]


def target(it: Any) -> int:
    (group,) = it.provider.groups()
    return int(group.target)


def names(it: Any, *states: InstanceState) -> list[str]:
    return sorted(i.name for i in it.provider.instances("pool") if not states or i.state in states)


def running(it: Any) -> list[str]:
    return names(it, InstanceState.RUNNING)


def test_a_group_tells_its_size_and_limits(harness: Make) -> None:
    it = harness(3)
    (group,) = it.provider.groups()
    assert (group.name, group.target, group.minimum, group.maximum, group.owner) == ("pool", 3, 1, 6, None)
    assert len(running(it)) == 3


def test_an_increase_brings_as_many_machines(harness: Make) -> None:
    it = harness(2)
    it.provider.increase("pool", 3, seen=2)
    assert target(it) == 5
    assert len(running(it)) == 2
    it.settle()
    assert len(running(it)) == 5
    assert target(it) == 5


def test_an_increase_repeated_is_one_increase(harness: Make) -> None:
    it = harness(2)
    it.provider.increase("pool", 2, seen=2)
    it.provider.increase("pool", 2, seen=2)
    it.settle()
    it.provider.increase("pool", 2, seen=2)
    assert (target(it), len(running(it))) == (4, 4)


def test_an_increase_whose_answer_is_lost_is_repeated_safely(harness: Make) -> None:
    it = harness(2)
    it.lose_answers(1)
    for _ in range(3):
        try:
            it.provider.increase("pool", 2, seen=2)
            break
        except Unavailable:
            continue
    it.settle()
    assert (target(it), len(running(it))) == (4, 4)


def test_an_increase_of_another_size_than_was_seen_changes_nothing(harness: Make) -> None:
    it = harness(3)
    with pytest.raises(Conflict):
        it.provider.increase("pool", 1, seen=1)
    assert target(it) == 3


def test_a_group_does_not_grow_above_its_maximum(harness: Make) -> None:
    it = harness(3)
    with pytest.raises(Refused, match="maximum of 6"):
        it.provider.increase("pool", 4, seen=3)
    assert target(it) == 3


def test_a_deletion_takes_the_named_machines_and_no_others(harness: Make) -> None:
    it = harness(4)
    before = running(it)
    it.provider.delete("pool", before[1:3])
    assert target(it) == 2
    assert running(it) == [before[0], before[3]]
    assert set(names(it, InstanceState.DELETING)) <= set(before[1:3])
    it.settle()
    assert names(it) == [before[0], before[3]]
    assert target(it) == 2


def test_a_deletion_repeated_lowers_once(harness: Make) -> None:
    it = harness(4)
    name = running(it)[1]
    for _ in range(2):
        it.provider.delete("pool", [name])
        it.provider.delete("pool", [name, name])
        assert target(it) == 3
        it.settle()
    assert len(running(it)) == 3


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_a_deletion_whose_answers_are_lost_is_repeated_safely(harness: Make, lost: int) -> None:
    it = harness(5)
    going = running(it)[1:3]
    it.lose_answers(lost)
    for _ in range(6):
        try:
            it.provider.delete("pool", going)
            break
        except (Unavailable, Conflict):
            continue
    it.settle()
    assert target(it) == 3
    assert not set(going) & set(running(it))
    assert len(running(it)) == 3


def test_a_machine_that_is_not_there_is_deleted_already(harness: Make) -> None:
    it = harness(3)
    it.provider.delete("pool", ["i-0123456789abcdef0"])
    assert (target(it), len(running(it))) == (3, 3)


def test_a_deletion_below_the_minimum_deletes_nothing(harness: Make) -> None:
    it = harness(3)
    before = running(it)
    with pytest.raises(Refused, match="minimum of 1"):
        it.provider.delete("pool", before)
    it.settle()
    assert running(it) == before
    assert target(it) == 3


def test_what_does_not_run_yet_is_taken_back_and_what_runs_is_not(harness: Make) -> None:
    it = harness(2)
    before = running(it)
    it.provider.increase("pool", 3, seen=2)
    assert it.provider.cancel_pending("pool", 2, seen=5) == 2
    assert target(it) == 3
    assert it.provider.cancel_pending("pool", 2, seen=5) == 0  # repeated
    assert it.provider.cancel_pending("pool", 3, seen=3) == 1  # only one is pending
    it.settle()
    assert (target(it), running(it)) == (2, before)


def test_a_cancellation_of_another_size_than_was_seen_changes_nothing(harness: Make) -> None:
    it = harness(2)
    it.provider.increase("pool", 2, seen=2)
    with pytest.raises(Conflict):
        it.provider.cancel_pending("pool", 1, seen=6)
    assert target(it) == 4


def test_an_unknown_group_is_refused(harness: Make) -> None:
    it = harness(1)
    for call in (
        lambda: it.provider.instances("other"),
        lambda: it.provider.increase("other", 1, seen=1),
        lambda: it.provider.delete("other", ["x"]),
        lambda: it.provider.cancel_pending("other", 1, seen=1),
        lambda: it.provider.template("other"),
    ):
        with pytest.raises(Refused, match="no group other"):
            call()


def test_a_group_of_another_autoscaler_is_told_and_refused(harness: Make) -> None:
    it = harness(3)
    if not it.own_by_another():
        return  # its groups cannot have another owner, or have one by design
    (group,) = it.provider.groups()
    assert group.owner
    name = names(it)[0]
    for call in (
        lambda: it.provider.increase("pool", 1, seen=group.target),
        lambda: it.provider.delete("pool", [name]),
        lambda: it.provider.cancel_pending("pool", 1, seen=group.target),
    ):
        with pytest.raises(Refused, match="one owner per group"):
            call()


def test_infrastructure_that_does_not_answer_is_unavailable_and_no_secret_is_told(harness: Make) -> None:
    it = harness(3)
    name = running(it)[0]
    try:
        it.down()
    except Infeasible:
        return
    for call in (
        it.provider.groups,
        lambda: it.provider.instances("pool"),
        lambda: it.provider.increase("pool", 1, seen=3),
        lambda: it.provider.delete("pool", [name]),
        lambda: it.provider.cancel_pending("pool", 1, seen=3),
    ):
        with pytest.raises(ProviderError) as error:
            call()
        assert error.value.retry
        assert "s3cr3t" not in str(error.value)
