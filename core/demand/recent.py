"""Recent: what the load has been lately, as scenarios of what it will be soon; and Pool, which joins outlooks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from headgate.core.demand.arrivals import Seen
from headgate.core.demand.margin import Outlook


class RecentState(NamedTuple):
    """(time, requests per second over the horizon up to then), oldest first; and the newest of all."""

    kept: tuple[tuple[float, float], ...] = ()
    newest: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Recent:
    """The rates of the last `window` seconds, one every `every` seconds, each as likely to be the next one.

    A forecaster's errors tell how wrong it is on average; this tells how restless the pipeline is right now. It needs
    no model and learns a new habit within one window: a pipeline that was busy a moment ago may be so again.
    """

    window: float
    every: float

    def update(self, state: RecentState | None, seen: Seen) -> RecentState:
        """Keeps the newest rate, forgets what is older than the window."""
        state = state or RecentState()
        if seen.outcome is None:
            return state
        kept, newest = state.kept, (seen.time, seen.outcome)
        if not kept or seen.time - kept[-1][0] >= self.every - 0.5 * seen.window:
            oldest = seen.time - self.window
            kept = (*[entry for entry in kept if entry[0] > oldest], newest)
        return RecentState(kept, newest)

    def scenarios(self, state: RecentState | None, now: float) -> tuple[float, ...]:
        """The rates, ascending."""
        if state is None or state.newest is None:
            return ()
        rates = [rate for time, rate in state.kept if time > now - self.window]
        if state.kept[-1] != state.newest:
            rates.append(state.newest[1])
        return tuple(sorted(rates))

    def loss(self, state: RecentState | None) -> float:  # noqa: ARG002
        """It is not judged."""
        return math.inf


@dataclass(frozen=True, slots=True)
class Pool:
    """The scenarios of several outlooks together (a linear opinion pool: Stone, Ann. Math. Stat. 32(4), 1961).

    Each outlook weighs as many scenarios as it gives.
    """

    outlooks: Sequence[Outlook]

    def update(self, state: tuple[Any, ...] | None, seen: Seen) -> tuple[Any, ...]:
        """All of them learn."""
        states = state or (None,) * len(self.outlooks)
        return tuple([outlook.update(s, seen) for outlook, s in zip(self.outlooks, states, strict=True)])

    def scenarios(self, state: tuple[Any, ...] | None, now: float) -> tuple[float, ...]:
        """All scenarios, ascending."""
        if state is None:
            return ()
        return tuple(sorted([rate for o, s in zip(self.outlooks, state, strict=True) for rate in o.scenarios(s, now)]))

    def loss(self, state: tuple[Any, ...] | None) -> float:
        """That of the best of them."""
        return math.inf if state is None else min(o.loss(s) for o, s in zip(self.outlooks, state, strict=True))
