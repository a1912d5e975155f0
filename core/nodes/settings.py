"""What the node scaler follows, with its defaults. Durations in seconds, CPU in millicores, ratios from 0 to 1."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from headgate.core.providers import NodeTemplate

SIGNALS = ("usage", "requests", "demand")


@dataclass(frozen=True, slots=True)
class DisruptionBudget:
    """How many nodes of a group may be on their way out at once.

    `windows` are (start, end) times in which the budget holds; None: always. A schedule becomes windows at the
    edge, where a cron library may be used.
    """

    share: float | None = None
    """Of the group's nodes, rounded up as Karpenter rounds it."""
    nodes: int | None = None
    windows: tuple[tuple[float, float], ...] | None = None

    def active(self, now: float) -> bool:
        """Whether it holds at `now`."""
        return self.windows is None or any(start <= now < end for start, end in self.windows)

    def allows(self, size: int) -> int:
        """Nodes of a group of `size` that may be on their way out at once."""
        limits = [] if self.nodes is None else [self.nodes]
        if self.share is not None:
            limits.append(math.ceil(self.share * size))
        return min(limits, default=size)


@dataclass(frozen=True, slots=True)
class GroupSettings:
    """One node group: its limits, thresholds and timers."""

    name: str
    minimum: int = 0
    maximum: int = 10
    minimum_cpu: int = 0
    maximum_cpu: int | None = None
    priority: int = 0
    """Of several groups that a pending pod fits, the highest grows; then the one that leaves least unused."""
    upper: float = 0.75
    lower: float = 0.5
    margin: float = 0.05
    """A change aims at `upper - margin`, and a removal must leave the peak below it."""
    signals: tuple[str, ...] = SIGNALS
    """What utilisation is the highest of."""
    up_after: float = 60.0
    down_after: float = 600.0
    window: float = 600.0
    """A removal is projected over the highest load of this long."""
    step: int | None = None
    """Nodes that one decision may add; None: as many as are needed."""
    delay_after_add: float = 600.0
    delay_after_delete: float = 0.0
    delay_after_failure: float = 180.0
    provisioning_timeout: float = 900.0
    backoff: float = 300.0
    backoff_most: float = 1800.0
    backoff_reset: float = 10800.0
    budgets: tuple[DisruptionBudget, ...] = (DisruptionBudget(share=0.1),)
    template: NodeTemplate | None = None
    """Where the provider cannot tell what a new node offers."""

    @property
    def target(self) -> float:
        """Utilisation that a change aims at."""
        return self.upper - self.margin

    def __post_init__(self) -> None:
        if not 0 < self.lower < self.target <= 1:
            raise ValueError(
                f"group {self.name}: lower ({self.lower}) must be above 0 and below upper - margin ({self.target:g}), "
                "which must not exceed 1: otherwise a removal calls for the next addition"
            )
        if not 0 <= self.minimum <= self.maximum:
            raise ValueError(f"group {self.name}: minimum {self.minimum} is above maximum {self.maximum}")
        if self.maximum_cpu is not None and self.minimum_cpu > self.maximum_cpu:
            raise ValueError(f"group {self.name}: minimum_cpu is above maximum_cpu")
        unknown = set(self.signals) - set(SIGNALS)
        if unknown or not self.signals:
            raise ValueError(f"group {self.name}: signals are one or more of {', '.join(SIGNALS)}")


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """All groups, and what holds for the whole cluster."""

    groups: tuple[GroupSettings, ...]
    maximum: int | None = None
    """Nodes of all groups together."""
    maximum_cpu: int | None = None
    stale: float = 180.0
    """A metric, or an observation, older than this says nothing."""
    unready_share: float = 0.45
    unready_nodes: int = 3
    """More than both unready: something is wrong with the cluster, not with its size, and nothing changes."""
    pending_after: float = 10.0
    """A pod that has been pending for this long counts."""
    soak: float = 60.0
    """A node stays softly tainted for this long before anything moves."""
    shrink_timeout: float = 600.0
    drain_timeout: float = 1200.0
    hold_timeout: float = 600.0
    """A removal that lacks metrics waits for this long and is then undone."""
    most_grace: float = 600.0
    """Pods that want longer to end are not evicted for a removal."""
    candidates: int = 200
    """Nodes whose drain one decision simulates at most."""

    def by_name(self) -> Mapping[str, GroupSettings]:
        """The groups by name. Raises ValueError when two have one name."""
        found = {group.name: group for group in self.groups}
        if len(found) != len(self.groups):
            raise ValueError("two node groups have one name")
        return found
