"""How many nodes a group is short of: by its threshold, by unmet demand, by pods that wait for a node."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from headgate.core.nodes.drain import Board, Place, admits, fresh
from headgate.core.nodes.frame import Frame
from headgate.core.nodes.model import PodInfo
from headgate.core.nodes.settings import NodeSettings
from headgate.core.nodes.signals import Signals
from headgate.core.nodes.state import GroupState
from headgate.core.units import format_cpu, format_duration


@dataclass(frozen=True, slots=True)
class Want:
    """Nodes that a group should get, before its limits; the reasons tell of a no as well as of a yes."""

    count: int
    reasons: tuple[str, ...] = ()


def by_threshold(frame: Frame, signals: Signals, state: GroupState, now: float) -> Want:
    """Nodes that bring a load above the upper threshold, when it lasts, back to the target utilisation.

    count = ceil((load / target - capacity - upcoming) / what a node offers): one step, however far the load has gone.
    """
    settings = frame.settings
    if state.above_since is None or signals.load is None:
        return Want(0)
    what = f"{signals.describe()}, upper threshold {settings.upper:g}"
    if (lasted := now - state.above_since) < settings.up_after:
        return Want(0, (f"{what} for {lasted:.0f} s, adds after {format_duration(settings.up_after)}",))
    if frame.template is None:
        return Want(0, (f"{what}, but what a new node offers is not known: set the group's template",))
    missing = signals.load / settings.target - frame.capacity - frame.upcoming_cpu
    count = math.ceil(missing / frame.template.cpu - 1e-9)
    if count <= 0:
        return Want(0, (f"{what}: the {frame.upcoming} upcoming nodes suffice",))
    return Want(count, (f"{what} for {lasted:.0f} s: {count} more for a utilisation of {settings.target:g}",))


def by_shortage(frame: Frame, signals: Signals, state: GroupState, now: float) -> Want:
    """Nodes for demand that no grant covers and for resizes that the kubelets defer or call infeasible."""
    hopeless = (
        *(f"no node of the group could hold it: {what}" for what in signals.hopeless),
        *(resize.describe() for resize in signals.movable),
    )
    if state.shortage_since is None:
        return Want(0, hopeless)
    what = f"{format_cpu(signals.shortage)} CPUs are wanted and not granted"
    if (lasted := now - state.shortage_since) < frame.settings.up_after:
        return Want(0, (*hopeless, f"{what}, for {lasted:.0f} s"))
    if frame.template is None:
        return Want(0, (*hopeless, f"{what}, but what a new node offers is not known"))
    count = math.ceil((signals.shortage / frame.settings.target - frame.upcoming_cpu) / frame.template.cpu - 1e-9)
    if count <= 0:
        return Want(0, (*hopeless, f"{what}: the {frame.upcoming} upcoming nodes suffice"))
    return Want(count, (*hopeless, f"{what}: {count} more"))


@dataclass(frozen=True, slots=True)
class PendingPlan:
    """Where the pending pods would go."""

    nodes: Mapping[str, int] = field(default_factory=dict)
    """New nodes by group."""
    pods: Mapping[str, int] = field(default_factory=dict)
    """Pods for which they are, by group."""
    needed: frozenset[str] = frozenset()
    """Nodes on their way out on which pending pods would fit: their removal is undone first."""
    unplaced: tuple[str, ...] = ()
    """Shapes of pods that nothing fits, with the reason from each group."""


@dataclass(frozen=True, slots=True)
class Room:
    """A group that may grow by `most` nodes; `closed` says why it may not."""

    frame: Frame
    most: int
    closed: str = ""


def for_pending(
    pending: Sequence[PodInfo],
    kept: Sequence[Place],
    leaving: Sequence[Place],
    rooms: Sequence[Room],
    settings: NodeSettings,
    now: float,
) -> PendingPlan:
    """Fit the pods that have been pending for long enough: present nodes, upcoming ones, leaving ones, then new ones.

    First-fit decreasing over the groups' templates; the group with the highest priority that fits takes a pod, and of
    equal ones the one whose node leaves least unused. Pods of negative priority (placeholders) ask for nothing.
    """
    waiting = [p for p in pending if p.priority >= 0 and not p.daemon and now - p.created >= settings.pending_after]
    if not waiting:
        return PendingPlan()
    upcoming = [
        fresh(f"{r.frame.settings.name}/upcoming-{i}", r.frame.template, r.frame.daemons)
        for r in rooms
        if r.frame.template
        for i in range(r.frame.upcoming)
    ]
    boards = Board(kept), Board(upcoming), Board(leaving), Board(())
    new: dict[str, int] = {}
    pods: dict[str, int] = {}
    needed: set[str] = set()
    lost: dict[object, str] = {}
    for pod in sorted(waiting, key=lambda p: (-p.priority, -p.cpu, p.name)):
        shape = (pod.cpu, pod.memory, tuple(sorted(pod.selector.items())), pod.tolerations, pod.exclusive)
        if shape in lost:
            continue
        if boards[0].put(pod, pod.cpu) or boards[1].put(pod, pod.cpu):
            continue
        if name := boards[2].put(pod, pod.cpu):
            needed.add(name)
            continue
        if name := boards[3].put(pod, pod.cpu):
            group = name.rpartition("/")[0]
        else:
            chosen, why = _choose(pod, rooms, new)
            if chosen is None:
                lost[shape] = f"pod {pod.name} ({format_cpu(pod.cpu)}) stays pending: {why}"
                continue
            group = chosen.settings.name
            assert chosen.template is not None
            new[group] = new.get(group, 0) + 1
            boards[3].add(fresh(f"{group}/{new[group]}", chosen.template, chosen.daemons))
            boards[3].put(pod, pod.cpu)
        pods[group] = pods.get(group, 0) + 1
    return PendingPlan(new, pods, frozenset(needed), tuple(lost.values()))


def _choose(pod: PodInfo, rooms: Sequence[Room], new: Mapping[str, int]) -> tuple[Frame | None, str]:
    best: tuple[tuple[int, int, str], Frame] | None = None
    why = []
    for room in rooms:
        name, template = room.frame.settings.name, room.frame.template
        if room.closed:
            why.append(f"{name}: {room.closed}")
        elif template is None:
            why.append(f"{name}: what a new node offers is not known")
        elif not admits(template.labels, fresh("", template, 0).taints, pod.selector, pod.tolerations):
            why.append(f"{name}: its nodes do not admit it (selector, taints)")
        elif (free := template.cpu - room.frame.daemons) < pod.cpu or 0 < template.memory < pod.memory:
            why.append(f"{name}: a new node has {format_cpu(max(0, free))} CPUs free")
        elif new.get(name, 0) >= room.most:
            why.append(f"{name}: at its limit")
        else:
            rank = (-room.frame.settings.priority, free - pod.cpu, name)
            if best is None or rank < best[0]:
                best = (rank, room.frame)
    return (best[1] if best else None), "; ".join(why) or "there is no node group"


def headroom(frame: Frame, settings: NodeSettings, total: int, total_cpu: int) -> tuple[int, str]:
    """Nodes that the group may still get, and the limit that says so. `total` and `total_cpu` are of all groups."""
    own = frame.settings
    each = frame.template.cpu if frame.template else 0
    here = frame.machines_cpu
    limits = [(frame.maximum - frame.target, f"its maximum of {frame.maximum} nodes")]
    if own.maximum_cpu is not None and each:
        limits.append(((own.maximum_cpu - here) // each, f"its maximum of {format_cpu(own.maximum_cpu)} CPUs"))
    if settings.maximum is not None:
        limits.append((settings.maximum - total, f"the maximum of {settings.maximum} nodes of all groups"))
    if settings.maximum_cpu is not None and each:
        cpus = format_cpu(settings.maximum_cpu)
        limits.append(((settings.maximum_cpu - total_cpu) // each, f"the maximum of {cpus} CPUs of all groups"))
    most, which = min(limits)
    return max(0, most), which


def to_minimum(frame: Frame) -> Want:
    """Nodes that the group lacks of its minimum, in nodes and in CPUs.

    A machine that never came does not count: at the minimum it can only be taken back once another is asked for.
    """
    missing = frame.minimum - (frame.target - len(frame.late))
    lost = f", {len(frame.late)} of them never came" if frame.late else ""
    reasons = [f"{frame.target} machines{lost}, its minimum is {frame.minimum}"] if missing > 0 else []
    short = frame.settings.minimum_cpu - frame.capacity - frame.upcoming_cpu
    if short > 0 and frame.template:
        missing = max(missing, math.ceil(short / frame.template.cpu))
        reasons.append(f"{format_cpu(short)} CPUs below its minimum of {format_cpu(frame.settings.minimum_cpu)}")
    return Want(max(0, missing), tuple(reasons))


def bounded(want: Want, most: int, limit: str, step: int | None) -> Want:
    """What of `want` the limits leave."""
    count = min(want.count, most)
    if count < want.count:
        want = replace(want, reasons=(*want.reasons, f"{limit} leaves room for {most} of {want.count}"))
    if step is not None and count > step:
        want = replace(want, reasons=(*want.reasons, f"a decision adds {step} at the most"))
        count = step
    return replace(want, count=count)
