"""What the loop connects, what it knows as leader, and how it does."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from headgate.controller.run.judge import Judge
from headgate.controller.run.memory import Memory
from headgate.controller.run.nodes import Nodes
from headgate.core.budgets import CPUBudget
from headgate.core.demand import Estimator
from headgate.core.extensions import Extensions
from headgate.core.hosting import Home, HostAdapter, Order, Rejected

DURATIONS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, math.inf)
"""Seconds: bounds by which turns are counted."""


@dataclass(slots=True)
class Record:
    """How the loop does, for the probes and the metrics; times by the loop's clock."""

    beat: float
    """Its last sign of life."""
    leads: bool = False
    turned: float | None = None
    """When a turn was last done without an error, as leader or not."""
    turns: int = 0
    failed: int = 0
    seconds: float = 0.0
    """All turns together."""
    durations: Counter[float] = field(default_factory=Counter)
    """Turns by the least of DURATIONS that they did not exceed."""
    moves: int = 0
    """Changes written to the hosts."""
    problem: str | None = None
    """Why the last turn failed."""

    def took(self, seconds: float) -> None:
        """A turn, so long."""
        self.seconds += seconds
        self.durations[next(bound for bound in DURATIONS if seconds <= bound)] += 1


@dataclass(frozen=True, slots=True)
class Parts:
    """What the loop connects."""

    home: Home
    host: HostAdapter
    extensions: Extensions
    estimator: Estimator
    memory: Memory
    budgets: Callable[[], Sequence[CPUBudget | Rejected]]
    nodes: Nodes | None = None


@dataclass(slots=True)
class Known:
    """What is the leader's alone, from one turn to the next."""

    judges: dict[str, Judge] = field(default_factory=dict)
    orders: dict[str, Order] = field(default_factory=dict)
    """In force or under way, by budget."""
