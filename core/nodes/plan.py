"""plan_nodes(): what to add, what to remove, what to leave, and why. Pure: the same input gives the same plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from headgate.core.model import Node
from headgate.core.nodes import growth
from headgate.core.nodes.actions import Action, Cancel, Decision, Delete, Increase, NodePlan, Verdict
from headgate.core.nodes.choice import choose
from headgate.core.nodes.drain import Board, by_namespace, place
from headgate.core.nodes.frame import Frame, build, clean_up, describe, learn
from headgate.core.nodes.model import Cluster, GroupView, NodeInfo
from headgate.core.nodes.removal import Scene, advance, undo
from headgate.core.nodes.settings import GroupSettings, NodeSettings
from headgate.core.nodes.shadow import Shadow, no_allocator
from headgate.core.nodes.signals import Signals, measure, peak, sustain
from headgate.core.nodes.state import GroupState, Phase, Removal, State

_ORDER = (Phase.DELETING, Phase.DRAINING, Phase.CORDONED, Phase.SHRINKING, Phase.MARKED, Phase.REVERTING)


@dataclass
class _Draft:
    """A plan in the making."""

    states: dict[str, GroupState] = field(default_factory=dict)
    removals: dict[str, Removal] = field(default_factory=dict)
    postponed: dict[str, tuple[float, str]] = field(default_factory=dict)
    frames: dict[str, Frame] = field(default_factory=dict)
    signals: dict[str, Signals] = field(default_factory=dict)
    actions: list[Action] = field(default_factory=list)
    reasons: dict[str, list[str]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    added: dict[str, int] = field(default_factory=dict)
    wanted: dict[str, int] = field(default_factory=dict)
    """Nodes that each group is short of, whether it may have them or not."""
    nodes: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    frozen: str = ""


def plan_nodes(
    settings: NodeSettings, cluster: Cluster, state: State, now: float, shadow: Shadow = no_allocator
) -> tuple[State, NodePlan]:
    """The next state, to be written down first, and the plan at `now`.

    An observation older than `settings.stale` changes nothing at all. A group whose provider did not answer keeps what
    it has. `shadow` re-plans the pipelines without the nodes that are to go.
    """
    if now - cluster.time > settings.stale:
        why = f"the observation is {now - cluster.time:.0f} s old"
        verdicts = {g.name: Verdict(g.name, Decision.KEEP, (why,)) for g in settings.groups}
        return state, NodePlan(now, (), verdicts, notes=(why,))
    draft = _Draft(removals=dict(state.removals))
    draft.postponed = {node: value for node, value in state.postponed.items() if now < value[0]}
    for group in settings.by_name():
        draft.states[group] = state.groups.get(group, GroupState())
        draft.reasons[group] = []
    _observe(draft, settings, cluster, now)
    draft.frozen = _freeze(draft, settings, cluster)
    _clean_up(draft, now)
    needed = _grow(draft, settings, cluster, now)
    _shrink(draft, settings, cluster, now, shadow, needed)
    final = State(draft.states, draft.removals, draft.postponed)
    verdicts = {group: _verdict(draft, group, now) for group in draft.states}
    capacity = _capacity(cluster, draft.removals)
    return final, NodePlan(
        now, tuple(draft.actions), verdicts, draft.nodes, tuple(filter(None, [draft.frozen, *draft.notes])), capacity
    )


def _observe(draft: _Draft, settings: NodeSettings, cluster: Cluster, now: float) -> None:
    survivors = _survivors(cluster, draft.removals)
    members: dict[str, list[NodeInfo]] = {g.name: [] for g in settings.groups}
    for node in cluster.nodes:
        if node.group in members:
            members[node.group].append(node)
    for group in settings.groups:
        name, view = group.name, cluster.groups.get(group.name)
        state, failures = learn(draft.states[name], group, [o for o in cluster.outcomes if o.group == name])
        draft.reasons[name] += failures
        if view is None:
            draft.states[name] = replace(state, below_since=None, above_since=None)
            draft.reasons[name].append("its provider did not answer: nothing changes")
            continue
        if view.group.owner is not None:
            draft.states[name] = replace(state, below_since=None, above_since=None)
            draft.refused[name] = (
                f"{view.group.owner} manages this group: one owner per group, exclude it there or here"
            )
            continue
        own = {n: r for n, r in draft.removals.items() if r.group == name}
        state, frame = build(group, view, members[name], state, own, now)
        signals = measure(frame, cluster.demand.get(name), survivors, now, settings.stale)
        draft.states[name] = sustain(state, group, signals, now)
        draft.frames[name], draft.signals[name] = frame, signals


def _freeze(draft: _Draft, settings: NodeSettings, cluster: Cluster) -> str:
    unready = sum(len(f.unready) for f in draft.frames.values())
    unready += sum(not n.ready for n in cluster.nodes if n.group not in draft.frames)
    total = len(cluster.nodes)
    if unready > settings.unready_nodes and unready > settings.unready_share * total:
        return f"{unready} of {total} nodes are not Ready: nothing changes until they are"
    return ""


def _clean_up(draft: _Draft, now: float) -> None:
    """Take back what never came. Where hardly anything is Ready that is no fault of the machines."""
    if draft.frozen:
        return
    for name, frame in draft.frames.items():
        draft.states[name], actions, reasons = clean_up(frame, draft.states[name], now)
        draft.actions += actions
        draft.reasons[name] += reasons


def _grow(draft: _Draft, settings: NodeSettings, cluster: Cluster, now: float) -> frozenset[str]:
    """Decide the additions. The nodes on their way out that pending pods need instead."""
    if draft.frozen:
        return frozenset()
    unplanned = [g for g in settings.groups if g.name not in draft.frames]
    apart = [_apart(draft.states[g.name], g, cluster.groups.get(g.name)) for g in unplanned]
    total = sum(f.target for f in draft.frames.values()) + sum(count for count, _ in apart)
    total_cpu = sum(f.machines_cpu for f in draft.frames.values()) + sum(cpu for _, cpu in apart)
    rooms = []
    for name, frame in draft.frames.items():
        most, limit = growth.headroom(frame, settings, total, total_cpu)
        until = draft.states[name].backoff_until
        closed = f"holds back for {until - now:.0f} s after a failure" if until is not None and now < until else ""
        rooms.append(growth.Room(frame, most, closed or ("" if most else f"at {limit}")))
    pending = growth.PendingPlan()
    if cluster.pending:
        kept = [place(n, {}) for n in _survivors(cluster, draft.removals)]
        leaving = [place(n, {}) for n in cluster.nodes if n.ready and _may_return(n, draft.removals)]
        pending = growth.for_pending(cluster.pending, kept, leaving, rooms, settings, now)
        draft.notes += pending.unplaced
    for room in rooms:
        frame, name = room.frame, room.frame.settings.name
        state, signals = draft.states[name], draft.signals[name]
        wants = [
            growth.to_minimum(frame),
            growth.by_threshold(frame, signals, state, now),
            growth.by_shortage(frame, signals, state, now),
        ]
        if count := pending.nodes.get(name, 0):
            wants.append(growth.Want(count, (f"{pending.pods[name]} pending pods need {count} nodes",)))
        draft.reasons[name] += [reason for want in wants for reason in want.reasons]
        wanted = max(want.count for want in wants)
        if not wanted:
            continue
        draft.wanted[name] = wanted
        if room.closed:
            draft.reasons[name].append(f"{wanted} more are wanted, but the group {_as_clause(room.closed)}")
            continue
        most, limit = growth.headroom(frame, settings, total, total_cpu)
        want = growth.bounded(growth.Want(wanted), most, limit, frame.settings.step)
        draft.reasons[name] += want.reasons
        if not want.count:
            continue
        total += want.count
        total_cpu += want.count * (frame.template.cpu if frame.template else 0)
        draft.added[name] = want.count
        draft.states[name] = replace(state, added=now, nameless_since=None)
        why = "; ".join(reason for w in wants if w.count for reason in w.reasons)
        # What clean_up takes back comes first and lowers the target that this one is compared with.
        seen = frame.target - sum(_taken_back(action, name) for action in draft.actions)
        draft.actions.append(Increase(name, want.count, seen, why))
    return pending.needed


def _apart(state: GroupState, group: GroupSettings, view: GroupView | None) -> tuple[int, int]:
    """Machines, and their millicores, of a group that is not planned for: another's, or its provider does not answer.

    The limits of all groups together hold them, too: as many as are told, or else were there last.
    """
    count = len(state.joined | state.waiting.keys()) if view is None else view.group.target
    template = (view.template if view is not None else None) or group.template
    return count, count * (template.cpu if template else 0)


def _as_clause(closed: str) -> str:
    return closed if closed.startswith("holds") else f"is {closed}"


def _taken_back(action: Action, group: str) -> int:
    if isinstance(action, Delete) and action.group == group:
        return 1
    return action.count if isinstance(action, Cancel) and action.group == group else 0


def _may_return(node: NodeInfo, removals: Mapping[str, Removal]) -> bool:
    removal = removals.get(node.name)
    return removal is not None and removal.phase is not Phase.DELETING


def _survivors(cluster: Cluster, removals: Mapping[str, Removal]) -> list[NodeInfo]:
    return [n for n in cluster.nodes if n.ready and not n.unschedulable and not n.marked and n.name not in removals]


def _shrink(
    draft: _Draft, settings: NodeSettings, cluster: Cluster, now: float, shadow: Shadow, needed: frozenset[str]
) -> None:
    stops = {name: f"{why}" for name, why in draft.refused.items()}
    stops |= {name: f"{count} nodes more are needed" for name, count in draft.wanted.items()}
    stops |= {
        r.group: "the group is not in the settings any more"
        for r in draft.removals.values()
        if r.group not in draft.states
    }
    scene = Scene(
        cluster=cluster,
        settings=settings,
        now=now,
        nodes={n.name: n for n in cluster.nodes},
        frames=draft.frames,
        signals=draft.signals,
        budgets=by_namespace(cluster.disruption),
        shadow=shadow,
        frozen=draft.frozen,
        stops=stops,
        needed=needed,
    )
    survivors = _survivors(cluster, draft.removals)
    _advance(draft, scene, survivors)
    for node in cluster.nodes:
        if (node.marked or node.cordoned_by_us) and node.name not in draft.removals and node.name not in draft.nodes:
            why = "headgate's mark is on it, but no removal is known: it is taken off"
            draft.actions += undo(node, node.group or "", why)
            draft.nodes[node.name] = why
    for name, frame in draft.frames.items():
        if name in draft.wanted:
            continue
        own = {n: r for n, r in draft.removals.items() if r.group == name}
        before = replace(frame, removing=frame.removing | own.keys())
        choice = choose(
            before, draft.signals[name], draft.states[name], scene, draft.postponed, draft.removals, survivors
        )
        draft.reasons[name] += choice.reasons
        draft.nodes |= choice.nodes
        chosen = {r.node for r in choice.removals}
        survivors = [n for n in survivors if n.name not in chosen]
        draft.removals |= {r.node: r for r in choice.removals}


def _advance(draft: _Draft, scene: Scene, survivors: list[NodeInfo]) -> None:
    if not draft.removals:
        return
    board = Board(place(n, {}) for n in survivors)
    leaving = frozenset(draft.removals)
    for removal in sorted(draft.removals.values(), key=lambda r: (_ORDER.index(r.phase), r.started, r.node)):
        moved = advance(removal, scene, board, leaving, survivors)
        draft.actions += moved.actions
        draft.nodes[removal.node] = moved.why
        state = draft.states.get(removal.group)
        if moved.removal is not None:
            draft.removals[removal.node] = moved.removal
        else:
            del draft.removals[removal.node]
        if state is None:
            continue
        if moved.deleted or (moved.removal is not None and moved.removal.phase is Phase.DELETING):
            draft.states[removal.group] = replace(state, deleted=scene.now)
        elif moved.undone:
            settings = scene.settings.by_name()[removal.group]
            draft.postponed[removal.node] = (scene.now + settings.delay_after_failure, removal.reason)


def _verdict(draft: _Draft, group: str, now: float) -> Verdict:
    if group in draft.refused:
        return Verdict(group, Decision.REFUSED, (draft.refused[group],))
    frame = draft.frames.get(group)
    if frame is None:
        return Verdict(group, Decision.KEEP, tuple(draft.reasons[group]))
    signals, state = draft.signals[group], draft.states[group]
    removing = [r for r in draft.removals.values() if r.group == group and r.phase is not Phase.REVERTING]
    added = draft.added.get(group, 0)
    decision = Decision.ADD if added else Decision.REMOVE if removing else Decision.KEEP
    if draft.frozen:
        decision = Decision.FROZEN
    return Verdict(
        group=group,
        decision=decision,
        reasons=(*draft.reasons[group], describe(frame)),
        target=frame.target,
        wanted=frame.target + added - len(removing),
        ready=len(frame.ready),
        upcoming=frame.upcoming,
        unready=len(frame.unready),
        removing=len(removing),
        capacity=signals.capacity,
        loads=signals.loads,
        utilisation=signals.utilisation,
        peak=peak(state, now, frame.settings.window),
    )


def _capacity(cluster: Cluster, removals: Mapping[str, Removal]) -> tuple[Node, ...]:
    """The nodes that the allocator may count on: upcoming ones not yet, leaving ones with the floors on them only."""
    reserved: dict[str, int] = {}
    for removal in removals.values():
        if removal.phase is not Phase.REVERTING:
            for name, cpu in removal.reserved.items():
                reserved[name] = reserved.get(name, 0) + cpu
    nodes = []
    for node in cluster.nodes:
        if not node.ready:
            continue
        free = max(node.floors, node.cpu - node.fixed - reserved.get(node.name, 0), 0)
        if (leaving := removals.get(node.name)) is not None and leaving.phase not in (Phase.MARKED, Phase.REVERTING):
            free = min(free, node.floors)
        nodes.append(Node(node.name, free))
    return tuple(nodes)
