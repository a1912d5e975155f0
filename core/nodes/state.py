"""What one node decision hands to the next. Plain values, written to and read from JSON: timers survive a restart.

Write the new state down before the plan is carried out. Every action is derived from the state and the observation
and is safe to repeat, so a crash at any point is followed by the same actions again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from typing import Any

FORMAT = 1


class Phase(Enum):
    """How far a removal is. Every step before DELETING can be undone."""

    MARKED = "marked"
    """Softly tainted: new pods rather go elsewhere."""
    SHRINKING = "shrinking"
    """The allocator no longer counts on the node, so CPUs move off it; what remains must come to fit elsewhere."""
    CORDONED = "cordoned"
    DRAINING = "draining"
    DELETING = "deleting"
    REVERTING = "reverting"
    """Being undone, in reverse."""


@dataclass(frozen=True, slots=True)
class Removal:
    """A node on its way out."""

    node: str
    group: str
    instance: str
    cpu: int
    phase: Phase
    since: float
    """When it entered the phase."""
    started: float
    reason: str
    reserved: Mapping[str, int] = field(default_factory=dict)
    """Millicores, by node, that the allocator leaves free for the pods that are to come there."""
    held_since: float | None = None
    """Since when it has been waiting for metrics."""


@dataclass(frozen=True, slots=True)
class Peak:
    """The highest load (millicores) from `time` on for one bucket of the window."""

    time: float
    load: int


@dataclass(frozen=True, slots=True)
class GroupState:
    """The timers of a group; None: not running."""

    above_since: float | None = None
    below_since: float | None = None
    shortage_since: float | None = None
    peaks: tuple[Peak, ...] = ()
    added: float | None = None
    deleted: float | None = None
    failed: float | None = None
    backoff: float = 0.0
    """Seconds of the present or last backoff."""
    backoff_until: float | None = None
    waiting: Mapping[str, float] = field(default_factory=dict)
    """Machines that have not joined yet, and since when they are known."""
    joined: frozenset[str] = frozenset()
    """Machines whose node was Ready at least once."""
    nameless_since: float | None = None
    """Since when the provider owes machines that have no name yet."""
    given_up: frozenset[str] = frozenset()
    """Machines that never came and for which the group was held back already."""

    def unwatched(self) -> GroupState:
        """After a time in which nobody looked: what held before it need not have held ever since."""
        return replace(self, above_since=None, below_since=None, shortage_since=None)


@dataclass(frozen=True, slots=True)
class State:
    """All that is remembered."""

    groups: Mapping[str, GroupState] = field(default_factory=dict)
    removals: Mapping[str, Removal] = field(default_factory=dict)
    postponed: Mapping[str, tuple[float, str]] = field(default_factory=dict)
    """Nodes whose removal was undone: not before when, and why."""

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        groups = {}
        for name, group in self.groups.items():
            groups[name] = asdict(group) | {"joined": sorted(group.joined), "given_up": sorted(group.given_up)}
        removals = {n: asdict(r) | {"phase": r.phase.value} for n, r in self.removals.items()}
        return {
            "format": FORMAT,
            "groups": groups,
            "removals": removals,
            "postponed": {node: list(value) for node, value in self.postponed.items()},
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> State:
        """The state that `to_json` wrote. Raises ValueError on anything else."""
        if data.get("format") != FORMAT:
            raise ValueError(f"node state of format {data.get('format')!r}: this version reads format {FORMAT}")
        try:
            return State(
                groups={name: _group(group) for name, group in data["groups"].items()},
                removals={
                    node: Removal(**{**removal, "phase": Phase(removal["phase"])})
                    for node, removal in data["removals"].items()
                },
                postponed={node: (float(until), str(why)) for node, (until, why) in data["postponed"].items()},
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"node state is damaged: {error!r}") from error


def _group(data: Mapping[str, Any]) -> GroupState:
    return GroupState(
        **{
            **data,
            "peaks": tuple(Peak(**peak) for peak in data["peaks"]),
            "joined": frozenset(data["joined"]),
            "given_up": frozenset(data.get("given_up", ())),
            "waiting": dict(data["waiting"]),
        }
    )
