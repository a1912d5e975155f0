"""Which nodes start to leave: only after a low that lasted, and only those without which everything still fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headgate.core.nodes.drain import Board, evictable, place, simulate
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
    fit = _candidates(frame, scene, postponed, removals, reasons)
    picked = _projected(fit, frame, signals, peak(state, now, settings.window), allowed, reasons)
    leaving = frozenset(removals)
    picked, sizes = _shadowed(picked, leaving, scene, reasons)
    board = Board(place(n, sizes) for n in survivors)
    closed = {node.name: board.close(node.name) for node in picked}
    going: list[NodeInfo] = []
    for node in picked:
        if obstacle := simulate(node, board, scene.budgets, scene.settings.most_grace, sizes):
            reasons[node.name] = obstacle
            board.open(node.name, closed[node.name])
        else:
            going.append(node)
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


def _projected(
    candidates: Sequence[NodeInfo], frame: Frame, signals: Signals, highest: int, allowed: int, reasons: dict[str, str]
) -> list[NodeInfo]:
    """As many as leave the window's peak below the target utilisation, and the group above its minimum."""
    picked: list[NodeInfo] = []
    gone = 0
    load = max(highest, signals.load or 0)
    for node in candidates:
        if len(picked) >= allowed:
            break
        left = frame.kept - gone - node.cpu
        if not frame.spare(len(picked) + 1, gone + node.cpu):
            reasons[node.name] = "the group would fall below its minimum"
        elif left <= 0 and (signals.shortage or any(n.serving for n in frame.ready)):
            reasons[node.name] = "it is the last one and pods are served"
        elif left > 0 and load >= frame.settings.target * left:
            reasons[node.name] = (
                f"the window's peak of {format_cpu(load)} CPUs would be {load / left:.2f} of what remains, "
                f"at most {frame.settings.target:g}"
            )
        else:
            picked.append(node)
            gone += node.cpu
    return picked


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
