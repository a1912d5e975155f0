"""Who holds which CPUs in the simulation: they change hands with a delay, and never exceed the budget."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class Holding:
    """The millicores of one pipeline, by what they do."""

    serving: int = 0
    starting: list[tuple[float, int]] = field(default_factory=list)
    """(time at which they serve, millicores), in order."""
    releasing: list[tuple[float, int]] = field(default_factory=list)
    """(time at which they are free, millicores), in order."""
    wanted: int = 0
    since: float = 0.0
    """When it first wanted more than it has."""

    @property
    def granted(self) -> int:
        """Serving or about to."""
        return self.serving + sum(amount for _, amount in self.starting)

    @property
    def running(self) -> int:
        """What its requests run on: the servers that were closed finish what they have."""
        return self.serving + sum(amount for _, amount in self.releasing)

    @property
    def held(self) -> int:
        """What counts against the budget."""
        return self.granted + sum(amount for _, amount in self.releasing)


class Cluster:
    """CPUs of a fixed `budget` in the hands of pipelines; all amounts in millicores, times in seconds.

    A CPU that is given serves `start` seconds later; one that is taken is free `release` seconds later. Whoever
    wants more gets it, in multiples of `step`, once that many are free, those first who have waited longest: a
    policy that asks for more than the budget is clipped as a cluster clips it, by what does not fit staying pending.
    """

    def __init__(self, names: tuple[str, ...], *, budget: int, step: int, start: float, release: float) -> None:
        self._budget, self._step, self._start, self._release = budget, step, start, release
        self.holdings = {name: Holding() for name in names}
        self.moved = 0
        """Millicores given to a pipeline so far."""

    @property
    def free(self) -> int:
        """What nobody holds."""
        return self._budget - sum(holding.held for holding in self.holdings.values())

    def place(self, amounts: Mapping[str, int]) -> None:
        """Give `amounts` before the simulation begins, serving at once."""
        for name, amount in amounts.items():
            self.holdings[name].serving = self.holdings[name].wanted = amount

    def want(self, amounts: Mapping[str, int], now: float) -> set[str]:
        """Follow a decision at `now`. Returns the pipelines whose serving CPUs changed at once."""
        before = self._snapshot()
        for name, amount in amounts.items():
            holding = self.holdings[name]
            if holding.granted >= holding.wanted or holding.wanted == 0:
                holding.since = now
            holding.wanted = amount
            self._shrink(holding, holding.granted - amount, now)
        self._grow(now)
        return self._changed(before)

    def next_event(self) -> float:
        """When a CPU begins to serve or becomes free; infinity: never."""
        times = [time for h in self.holdings.values() for time, _ in (*h.starting[:1], *h.releasing[:1])]
        return min(times, default=math.inf)

    def advance(self, now: float) -> set[str]:
        """What happens up to `now`. Returns the pipelines whose CPUs changed."""
        before = self._snapshot()
        for holding in self.holdings.values():
            while holding.starting and holding.starting[0][0] <= now:
                holding.serving += holding.starting.pop(0)[1]
            while holding.releasing and holding.releasing[0][0] <= now:
                holding.releasing.pop(0)
        self._grow(now)
        return self._changed(before)

    def _shrink(self, holding: Holding, amount: int, now: float) -> None:
        if amount <= 0:
            return
        taken = 0
        while holding.starting and taken < amount:  # the newest first: they are the furthest from serving
            time, started = holding.starting.pop()
            part = min(started, amount - taken)
            taken += part
            if part < started:
                holding.starting.append((time, started - part))
        holding.serving -= amount - taken
        if self._release > 0:
            holding.releasing.append((now + self._release, amount))

    def _grow(self, now: float) -> None:
        free = self.free
        for holding in self._waiting():
            amount = min(holding.wanted - holding.granted, free)
            if amount < holding.wanted - holding.granted:
                amount -= amount % self._step
            if amount <= 0:
                continue
            free -= amount
            self.moved += amount
            if self._start > 0:
                holding.starting.append((now + self._start, amount))
            else:
                holding.serving += amount

    def _waiting(self) -> Iterator[Holding]:
        waiting = [holding for holding in self.holdings.values() if holding.wanted > holding.granted]
        yield from sorted(waiting, key=lambda holding: holding.since)

    def _snapshot(self) -> dict[str, tuple[int, int]]:
        return {name: (holding.serving, holding.running) for name, holding in self.holdings.items()}

    def _changed(self, before: Mapping[str, tuple[int, int]]) -> set[str]:
        return {name for name, h in self.holdings.items() if before[name] != (h.serving, h.running)}
