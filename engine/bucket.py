"""A token bucket of CPU time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class TokenBucket:
    """CPU seconds that may be spent: `rate` more each second, `burst` at the most, below zero while in debt.

    Spending is never refused: whoever spends looks at `level` before it starts, and a debt is paid off by waiting.
    """

    rate: float
    burst: float
    time: float
    level: float = 0.0

    def advance(self, now: float) -> float:
        """The level at `now` (seconds); time that goes backwards is no time."""
        if now > self.time:
            self.level += self.rate * (now - self.time)
            self.time = now
        return self.level

    def spend(self, amount: float) -> None:
        """Take `amount` CPU seconds, or give back what was taken too much."""
        self.level -= amount

    def limit(self, unbilled: float = 0.0) -> None:
        """Cut the level to the burst. `unbilled`: what work in progress may have used and has not yet paid.

        Without it, what refills during an inference that is longer than the burst would be lost, and the long-run rate
        with it.
        """
        self.level = min(self.level, self.burst + unbilled)

    def ready_at(self) -> float | None:
        """When the level will be above zero: seconds on the clock of `time`; None: never."""
        if self.level > 0:
            return self.time
        return self.time + (1e-6 - self.level) / self.rate if self.rate > 0 else None
