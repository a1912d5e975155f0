"""A crash before and after every step of an addition and of a removal, and then the load returns or stays away."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from headgate.core.nodes.state import Phase
from headgate.core.providers import InstanceState

from .nodes_bench import Bench, bench

LOW, HIGH = 0.1, 0.9
WAYS_BACK = (Phase.MARKED, Phase.SHRINKING, Phase.CORDONED, Phase.DRAINING)


def removal(crash_at: int) -> Bench:
    it = bench(3, crash_at=crash_at, minimum=2)
    it.load(LOW)
    it.until("a node less", lambda: it.target == 2 and it.calm())
    return it


def addition(crash_at: int) -> Bench:
    """0.9 of two nodes is 0.7 of three."""
    it = bench(2, crash_at=crash_at, down_after=10_000)
    it.load(HIGH)
    it.until("a node more", lambda: len(it.world.nodes) == 3)
    return it


def barren_addition(crash_at: int) -> Bench:
    """The machine's node never joins; it is taken back, and the next one joins."""
    it = bench(2, crash_at=crash_at, down_after=10_000)
    delays = iter([None])
    it.world.provision = lambda: next(delays, 60.0)
    it.load(HIGH)
    it.until("a node more", lambda: len(it.world.nodes) == 3 == it.target)
    assert it.world.now >= 200
    return it


def failed_addition(crash_at: int) -> Bench:
    """The machine fails; it is taken back, and the next one joins."""
    it = bench(2, crash_at=crash_at, down_after=10_000)
    it.load(HIGH)
    it.until("a machine", lambda: it.target == 3)
    for machine in it.world.machines.values():
        if machine.state is InstanceState.PENDING:
            machine.state, machine.ready_at = InstanceState.FAILED, None
    it.until("a node more", lambda: len(it.world.nodes) == 3 == it.target)
    return it


@pytest.mark.parametrize("story", [removal, addition, barren_addition, failed_addition])
def test_a_crash_at_any_step_changes_nothing_about_the_end(story: Callable[[int], Bench]) -> None:
    undisturbed = story(-1)
    undisturbed.check()
    for at in range(1, undisturbed.steps + 1):
        it = story(at)
        assert it.crashes == 1
        it.check()
        assert it.target == undisturbed.target
        assert len(it.world.pods) == len(undisturbed.world.pods)


@pytest.mark.parametrize("phase", WAYS_BACK)
def test_load_that_returns_in_any_phase_undoes_a_removal_through_a_crash_at_any_step(phase: Phase) -> None:
    """0.6 of three nodes is 0.9 of two: none can be done without."""
    first = bench(3)
    first.load(LOW)
    first.until(f"it is {phase.value}", lambda: first.phase() is phase)
    begun = first.world.now

    def story(crash_at: int) -> Bench:
        it = bench(3, crash_at=crash_at)
        it.load(LOW)
        it.until("it is time", lambda: it.world.now == begun)
        it.load(0.6)
        it.until("all is undone", lambda: it.phase() is None and it.calm() and it.world.now > begun)
        it.check()
        assert it.target == 3
        assert not any("delete" in done for done in it.touched.values())
        return it

    undisturbed = story(-1)
    assert undisturbed.steps > first.steps
    for at in range(1, undisturbed.steps + 1):
        assert story(at).crashes == 1


def test_load_that_returns_when_a_machine_is_being_deleted_adds_others() -> None:
    """0.9 of three nodes is 0.7 of four."""

    def story(crash_at: int) -> Bench:
        it = bench(3, crash_at=crash_at)
        it.load(LOW)
        it.until("it is being deleted", lambda: it.target == 2)
        it.load(HIGH)
        it.until("four nodes", lambda: len(it.world.nodes) == 4 == it.target and it.calm())
        it.check()
        return it

    for at in range(1, story(-1).steps + 1):
        story(at)
