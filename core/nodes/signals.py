"""How loaded a group is: what its nodes use, what its pods reserve, and what the allocator would need.

Never what was allocated: an allocator that hands out its whole budget sits at 100 % whatever the load.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from headgate.core.nodes.drain import Board, place
from headgate.core.nodes.frame import Frame
from headgate.core.nodes.model import GroupDemand, NodeInfo, PodInfo, Resize
from headgate.core.nodes.settings import GroupSettings
from headgate.core.nodes.state import GroupState, Peak
from headgate.core.units import format_cpu

BUCKETS = 20
"""Parts of the window of which only the highest load is kept, so that the state stays small."""


@dataclass(frozen=True, slots=True)
class Movable:
    """A pod whose resize waits on `home`, and another node that has room for all of it."""

    pod: PodInfo
    home: str
    other: str

    def describe(self) -> str:
        """For a reason."""
        return f"{self.pod.name} has to move, {self.other} has room for its {format_cpu(self.pod.cpu)} CPUs"


@dataclass(frozen=True, slots=True)
class Signals:
    """A group's load in millicores."""

    capacity: int
    loads: Mapping[str, int | None]
    """By signal; None: not known. `usage` is the sum over the nodes that report it."""
    unknown: tuple[str, ...]
    """Why the load is not known well enough to remove a node."""
    shortage: int
    """Millicores of unmet demand and of resizes that their nodes have no room for."""
    hopeless: tuple[str, ...] = ()
    """Resizes that no node of the group could hold."""
    movable: tuple[Movable, ...] = ()
    """Resizes that another node has room for: a node more would only be one more to move to."""

    @property
    def load(self) -> int | None:
        """The highest known."""
        return max((load for load in self.loads.values() if load is not None), default=None)

    @property
    def binding(self) -> str:
        """The signal that is the highest."""
        known = {name: load for name, load in self.loads.items() if load is not None}
        return max(known, key=lambda name: known[name]) if known else "nothing"

    @property
    def utilisation(self) -> float | None:
        """The load over the capacity; None when either is unknown or nought."""
        return None if self.load is None or not self.capacity else self.load / self.capacity

    def describe(self) -> str:
        """For a reason: "utilisation 0.81 (usage 6500m of 8)"."""
        if self.load is None:
            return "no load is known"
        of = f"{self.binding} {format_cpu(self.load)} of {format_cpu(self.capacity)} CPUs"
        return f"utilisation {self.utilisation:.2f} ({of})" if self.utilisation is not None else of


def measure(
    frame: Frame, demand: GroupDemand | None, survivors: Sequence[NodeInfo], now: float, stale: float
) -> Signals:
    """The signals of a group at `now`; metrics older than `stale` seconds are not known. `survivors`: nodes of all
    groups that stay.

    usage: CPU used on Ready nodes. requests: committed CPU of pods that headgate does not size, and the floors of those
    that it does. demand: the former, and what the allocator wants for the latter before its budget cuts it.
    """
    unknown: list[str] = []
    fresh = [n for n in frame.ready if n.usage is not None and now - n.usage_time <= stale]
    silent = [n.name for n in frame.ready if n.usage is None or now - n.usage_time > stale]
    usage = sum(n.usage or 0 for n in fresh) if fresh or not frame.ready else None
    fixed = sum(n.fixed for n in frame.ready)
    managed = any(pod.pipeline is not None for n in frame.ready for pod in n.pods)
    wanted = None
    if demand is not None and now - demand.time <= stale:
        wanted = fixed + demand.demand
    elif not managed:
        wanted = fixed
    loads: dict[str, int | None] = {
        "usage": usage,
        "requests": fixed + sum(n.floors for n in frame.ready),
        "demand": wanted,
    }
    signals = frame.settings.signals
    if "usage" in signals and silent:
        more = f" and {len(silent) - 3} more" if len(silent) > 3 else ""
        unknown.append(f"no fresh usage of {', '.join(silent[:3])}{more}")
    if "demand" in signals and wanted is None:
        unknown.append("the allocator's demand is not known" if demand is None else "the allocator's demand is stale")
    shortage, hopeless, movable = _shortage(frame, survivors)
    if demand is not None and now - demand.time <= stale:
        shortage += demand.unmet
    return Signals(frame.capacity, {n: loads[n] for n in signals}, tuple(unknown), shortage, hopeless, movable)


def _shortage(frame: Frame, survivors: Sequence[NodeInfo]) -> tuple[int, tuple[str, ...], tuple[Movable, ...]]:
    """Millicores of resizes that wait for nodes, those that no node could hold, those that a present one could.

    A pod does not follow a node that is added for it: it has to be moved, and then any node with room will do. Counting
    it on would add nodes up to the maximum.
    """
    waiting = [(pod, node.name) for node in frame.ready for pod in node.pods if pod.shortage]
    if not waiting:
        return 0, (), ()
    short, hopeless = 0, []
    movable: list[Movable] = []
    most = None if frame.template is None else frame.template.cpu - frame.daemons
    board = Board(place(n, {}) for n in survivors)
    for pod, home in sorted(waiting, key=lambda found: (-found[0].cpu, found[0].name)):
        if most is not None and pod.cpu > most and pod.resize is Resize.INFEASIBLE:
            hopeless.append(f"{pod.name} wants {format_cpu(pod.cpu)}, a new node offers {format_cpu(most)}")
        elif (other := board.put(pod, pod.cpu, beside=home)) is not None:
            movable.append(Movable(pod, home, other))
        else:
            short += pod.shortage
    return short, tuple(hopeless), tuple(movable)


def sustain(state: GroupState, settings: GroupSettings, signals: Signals, now: float) -> GroupState:
    """The state with its timers moved on to `now`: since when above, below and short, and the window's peaks."""
    load = signals.load
    above = load is not None and load > settings.upper * signals.capacity
    below = load is not None and not signals.unknown and load < settings.lower * signals.capacity
    return replace(
        state,
        above_since=_since(state.above_since, above, now),
        below_since=_since(state.below_since, below, now),
        shortage_since=_since(state.shortage_since, signals.shortage > 0, now),
        peaks=state.peaks if load is None else _remember(state.peaks, load, settings.window, now),
    )


def peak(state: GroupState, now: float, window: float) -> int:
    """The highest load of the last `window` seconds, in millicores."""
    return max((p.load for p in state.peaks if now - p.time <= window), default=0)


def _since(since: float | None, holds: bool, now: float) -> float | None:
    if not holds:
        return None
    return now if since is None else since


def _remember(peaks: tuple[Peak, ...], load: int, window: float, now: float) -> tuple[Peak, ...]:
    # A bucket is dropped a bucket's width late, never early: the peak must not be forgotten inside the window.
    width = window / BUCKETS
    kept = tuple(p for p in peaks if now - p.time <= window + width)
    if kept and 0 <= now - kept[-1].time < width:
        return (*kept[:-1], replace(kept[-1], load=max(load, kept[-1].load)))
    return (*kept, Peak(now, load))
