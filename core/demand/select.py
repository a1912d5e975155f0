"""Best: of several outlooks, the one that erred least in this pipeline's own recent past."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from headgate.core.demand.arrivals import Seen
from headgate.core.demand.margin import Outlook


@dataclass(frozen=True, slots=True)
class Best:
    """Follows the first of `outlooks` whose loss is the least, or no more than `tolerance` above it.

    So the calmer ones come first, and chance does not choose among equals.
    """

    outlooks: tuple[Outlook, ...]
    tolerance: float = 0.02

    def update(self, state: tuple[Any, ...] | None, seen: Seen) -> tuple[Any, ...]:
        """All of them learn, whichever is followed."""
        states = state or (None,) * len(self.outlooks)
        return tuple([outlook.update(s, seen) for outlook, s in zip(self.outlooks, states, strict=True)])

    def scenarios(self, state: tuple[Any, ...] | None, now: float) -> tuple[float, ...]:
        """Those of the best."""
        if state is None:
            return ()
        best = self.chosen(state)
        return self.outlooks[best].scenarios(state[best], now)

    def loss(self, state: tuple[Any, ...] | None) -> float:
        """That of the best."""
        return math.inf if state is None else min(o.loss(s) for o, s in zip(self.outlooks, state, strict=True))

    def chosen(self, state: tuple[Any, ...]) -> int:
        """Index of the outlook that is followed now."""
        losses = [outlook.loss(s) for outlook, s in zip(self.outlooks, state, strict=True)]
        limit = min(losses) * (1.0 + self.tolerance)
        for index, loss in enumerate(losses):
            if loss <= limit:
                return index
        return 0
