"""Which nodes start to leave: only after a low that lasted, and only those without which everything still fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headgate.core.nodes.drain import Board, evictable, moving_size, place, simulate
from headgate.core.nodes.frame import Frame
from headgate.core.nodes.model import NodeInfo
from headgate.core.nodes.removal import Scene
from headgate.core.nodes.signals import Signals, peak
from headgate.core.nodes.state import GroupState, Phase, Removal
from headgate.core.units import format_cpu, format_duration


@dataclass(frozen=True, slots=True)
class Choice:
    """Nodes that start to leave, why others do not, and the group's reasons."""

    removals: tuple[Removal, ...]
    nodes: Mapping[str, str]
    reasons: tuple[str, ...]


def obstacles(frame: Frame, signals: Signals, state: GroupState, now: float) -> list[str]:
    """Why the group loses no node now, whichever it is. Empty: it may."""
    settings = frame.settings
    found = list(signals.unknown)
    if frame.target - frame.leaving <= frame.minimum:
        found.append(f"at its minimum of {frame.minimum} nodes")
    if frame.upcoming:
        found.append(f"{frame.upcoming} nodes are upcoming")
    delays = (
        (state.added, settings.delay_after_add, "addition"),
        (state.deleted, settings.delay_after_delete, "deletion"),
        (state.failed, settings.delay_after_failure, "failure"),
    )
    for time, delay, what in delays:
        if time is not None and now - time < delay:
            found.append(f"{now - time:.0f} s after the last {what}, waits for {format_duration(delay)}")
    if state.below_since is None:
        if signals.load is not None and not signals.unknown:
            found.append(f"{signals.describe()}, not below the lower threshold {settings.lower:g}")
    elif (lasted := now - state.below_since) < settings.down_after:
        found.append(f"{signals.describe()}, low for {lasted:.0f} s of {format_duration(settings.down_after)}")
    return found


def choose(
    frame: Frame,
    signals: Signals,
    state: GroupState,
    scene: Scene,
    postponed: Mapping[str, tuple[float, str]],
    removals: Mapping[str, Removal],
    survivors: Sequence[NodeInfo],
) -> Choice:
    """The nodes of a group that start to leave in this decision. `survivors`: nodes of all groups that stay."""
    settings, now = frame.settings, scene.now
    if scene.frozen:
        return Choice((), {}, (scene.frozen,))
    if found := obstacles(frame, signals, state, now):
        return Choice((), {}, tuple(found))
    allowed, limit = _allowed(frame, now)
    if allowed <= 0:
        return Choice((), {}, (limit,))
    reasons: dict[str, str] = {}
    candidates = _candidates(frame, scene, postponed, removals, reasons)
    load = max(peak(state, now, settings.window), signals.load or 0)
    going = _chosen(candidates, frame, signals, load, allowed, frozenset(removals), scene, survivors, reasons)
    why = f"{signals.describe()}, below {settings.lower:g} for {now - (state.below_since or now):.0f} s"
    started = tuple(
        Removal(n.name, settings.name, n.instance or n.name, n.cpu, Phase.MARKED, now, now, why) for n in going
    )
    reasons |= {n.name: f"leaves: {why}" for n in going}
    if going:
        return Choice(started, reasons, (f"{why}: {', '.join(n.name for n in going)} can be done without",))
    few = [f"{name}: {text}" for name, text in list(reasons.items())[:3]]
    return Choice((), reasons, (f"{why}, but no node can be done without", *few))


def _allowed(frame: Frame, now: float) -> tuple[int, str]:
    size = frame.target
    active = [b for b in frame.settings.budgets if b.active(now)]
    allowed = min((b.allows(size) for b in active), default=size)
    busy = len(frame.removing) + len(frame.unready)
    text = f"its disruption budget allows {allowed} of {size} nodes; {len(frame.removing)} leave"
    text += f", {len(frame.unready)} are not Ready" if frame.unready else ""
    return allowed - busy, text


def _candidates(
    frame: Frame,
    scene: Scene,
    postponed: Mapping[str, tuple[float, str]],
    removals: Mapping[str, Removal],
    reasons: dict[str, str],
) -> list[NodeInfo]:
    """Nodes that nothing forbids to remove, cheapest first: empty ones, then those with least on them."""
    found: list[NodeInfo] = []
    looked = 0
    for node in sorted(frame.ready, key=lambda n: (bool(n.serving), n.committed, n.name)):
        if node.name in removals:
            continue
        if node.keep:
            reasons[node.name] = "its owner forbids its removal"
        elif node.marked:
            reasons[node.name] = "headgate's mark of another removal is still on it"
        elif node.unschedulable:
            reasons[node.name] = "somebody else cordoned it"
        elif (until := postponed.get(node.name)) is not None and scene.now < until[0]:
            reasons[node.name] = f"tried before: {until[1]}"
        elif looked >= scene.settings.candidates:
            break
        else:
            looked += 1
            blocked = (evictable(p, scene.budgets, scene.settings.most_grace) for p in node.serving)
            if why := next(filter(None, blocked), ""):
                reasons[node.name] = why
            else:
                found.append(node)
    return found


def _chosen(
    candidates: Sequence[NodeInfo],
    frame: Frame,
    signals: Signals,
    load: int,
    allowed: int,
    leaving: frozenset[str],
    scene: Scene,
    survivors: Sequence[NodeInfo],
    reasons: dict[str, str],
) -> list[NodeInfo]:
    """The first of the candidates that can go together: by the projection, the allocator and the simulated drains.

    The allocator is asked about the first few, for the sizes that the drains of all are simulated with, and again when
    others than these turn out to be drainable.
    """
    first: list[NodeInfo] = []
    for node in candidates:
        if len(first) < allowed and not _too_tight(node, first, frame, signals, load):
            first.append(node)
    asked, sizes = _shadowed(first, leaving, scene, reasons)
    if first and not asked:
        return []
    board = Board(place(n, sizes) for n in survivors)
    going: list[NodeInfo] = []
    for node in candidates:
        if len(going) >= (len(asked) if asked else allowed):
            break
        if why := _too_tight(node, going, frame, signals, load):
            reasons[node.name] = why
            continue
        pods = board.close(node.name)
        why = _without_room([*going, node], signals, survivors)
        why = why or simulate(node, board, scene.budgets, scene.settings.most_grace, sizes)
        if why:
            reasons[node.name] = why
            board.open(node.name, pods)
        else:
            going.append(node)
    return going if going == asked else _shadowed(going, leaving, scene, reasons)[0]


def _without_room(leaving: Sequence[NodeInfo], signals: Signals, survivors: Sequence[NodeInfo]) -> str:
    """The resize that would ask for a new node once these are drained, found as `measure` finds it. Empty: none."""
    if not signals.movable:
        return ""
    names = {node.name for node in leaving}
    board = Board(place(n, {}) for n in survivors if n.name not in names)
    for pod in sorted((p for n in leaving for p in n.serving), key=lambda p: (-moving_size(p, {}), p.name)):
        board.put(pod, moving_size(pod, {}))
    for resize in signals.movable:
        if board.put(resize.pod, resize.pod.cpu, beside=resize.home) is None:
            return f"{resize.describe()}, what would remain has not"
    return ""


def _too_tight(node: NodeInfo, going: Sequence[NodeInfo], frame: Frame, signals: Signals, load: int) -> str:
    """Why the group cannot do without `node` and those that go already; empty: the load fits on what remains."""
    gone = sum(n.cpu for n in going) + node.cpu
    left = frame.kept - gone
    if not frame.spare(len(going) + 1, gone):
        return "the group would fall below its minimum"
    if left <= 0 and (signals.shortage or any(n.serving for n in frame.ready)):
        return "it is the last one and pods are served"
    if left > 0 and load >= frame.settings.target * left:
        return (
            f"the window's peak of {format_cpu(load)} CPUs would be {load / left:.2f} of what remains, "
            f"at most {frame.settings.target:g}"
        )
    return ""


def _shadowed(
    picked: list[NodeInfo], leaving: frozenset[str], scene: Scene, reasons: dict[str, str]
) -> tuple[list[NodeInfo], Mapping[str, int]]:
    """As many as the allocator can do without, halving until it says yes; and the sizes that it would give then."""
    while picked:
        plan = scene.shadow(leaving | {n.name for n in picked})
        if not plan.refusal:
            return picked, plan.sizes
        keep = len(picked) // 2
        reasons |= {n.name: plan.refusal for n in picked[keep:]}
        picked = picked[:keep]
    return [], {}
