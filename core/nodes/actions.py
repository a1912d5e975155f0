"""What the node scaler asks for: a plan of actions, each with its reason, and a verdict on every group.

Actions may be repeated and are repeated until the observation shows their effect. Carry them out in their order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from headgate.core.model import Node


@dataclass(frozen=True, slots=True)
class Increase:
    """NodeProvider.increase. A Conflict is no failure: the next observation decides anew."""

    group: str
    count: int
    seen: int
    why: str


@dataclass(frozen=True, slots=True)
class Cancel:
    """NodeProvider.cancel_pending."""

    group: str
    count: int
    seen: int
    why: str


@dataclass(frozen=True, slots=True)
class Delete:
    """NodeProvider.delete of one machine. Whoever carries it out looks once more that the node serves no pods."""

    group: str
    instance: str
    node: str | None
    why: str


@dataclass(frozen=True, slots=True)
class Mark:
    """Put headgate's soft taint (effect PreferNoSchedule) on a node."""

    group: str
    node: str
    why: str


@dataclass(frozen=True, slots=True)
class Unmark:
    """Take the soft taint off."""

    group: str
    node: str
    why: str


@dataclass(frozen=True, slots=True)
class Cordon:
    """Make a node unschedulable, and note on it that headgate did."""

    group: str
    node: str
    why: str


@dataclass(frozen=True, slots=True)
class Uncordon:
    """Make a node that headgate cordoned schedulable again."""

    group: str
    node: str
    why: str


@dataclass(frozen=True, slots=True)
class Evict:
    """Create an Eviction for a pod: the API server checks the PodDisruptionBudgets and may answer 429, repeat then."""

    group: str
    node: str
    pod: str
    grace: float
    why: str


Action = Increase | Cancel | Delete | Mark | Unmark | Cordon | Uncordon | Evict


class Decision(Enum):
    """What became of a group, in a word."""

    ADD = "add"
    REMOVE = "remove"
    KEEP = "keep"
    FROZEN = "frozen"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One group: what was seen of it, what was decided, and every reason for it."""

    group: str
    decision: Decision
    reasons: tuple[str, ...]
    target: int = 0
    """Machines asked for, before this plan."""
    wanted: int = 0
    """Machines that this plan leads to."""
    ready: int = 0
    upcoming: int = 0
    unready: int = 0
    removing: int = 0
    capacity: int = 0
    """Millicores of the Ready nodes."""
    loads: Mapping[str, int | None] = field(default_factory=dict)
    """Millicores by signal; None: not known."""
    utilisation: float | None = None
    """The highest known load over the capacity; None without capacity."""
    peak: int = 0
    """Millicores, over the window."""


@dataclass(frozen=True, slots=True)
class NodePlan:
    """One decision."""

    time: float
    actions: tuple[Action, ...]
    verdicts: Mapping[str, Verdict]
    nodes: Mapping[str, str] = field(default_factory=dict)
    """Why a node that was considered stays, or goes."""
    notes: tuple[str, ...] = ()
    """What belongs to no single group: pods that fit none, a cluster-wide freeze."""
    capacity: tuple[Node, ...] = ()
    """What the allocator may count on: Ready nodes only. Of a node on its way out, no more than the floors on it."""
