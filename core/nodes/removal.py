"""The way of a node out of its group, one step per decision, each step undone when the reason for it is gone.

MARKED (soft taint) -> SHRINKING (the allocator moves CPUs off it) -> CORDONED -> DRAINING (evictions) -> DELETING.
From every phase before DELETING the way back is REVERTING: uncordon, then take the taint off.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from headgate.core.nodes.actions import Action, Cordon, Delete, Evict, Mark, Uncordon, Unmark
from headgate.core.nodes.drain import Board, Budgets, place, simulate
from headgate.core.nodes.frame import Frame
from headgate.core.nodes.model import Cluster, NodeInfo, Step
from headgate.core.nodes.settings import NodeSettings
from headgate.core.nodes.shadow import Shadow
from headgate.core.nodes.signals import Signals
from headgate.core.nodes.state import Phase, Removal
from headgate.core.providers import InstanceState
from headgate.core.units import format_duration


@dataclass(frozen=True)
class Scene:
    """What removals are judged by in one decision."""

    cluster: Cluster
    settings: NodeSettings
    now: float
    nodes: Mapping[str, NodeInfo]
    frames: Mapping[str, Frame]
    """A group whose provider did not answer is missing."""
    signals: Mapping[str, Signals]
    budgets: Budgets
    shadow: Shadow
    frozen: str = ""
    """Why nothing may change in the cluster."""
    stops: Mapping[str, str] = field(default_factory=dict)
    """By group: why its removals are to be undone."""
    needed: frozenset[str] = frozenset()
    """Nodes on which pending pods would fit."""


@dataclass(frozen=True, slots=True)
class Moved:
    """Where a removal stands after a decision. `removal` None: it is over."""

    removal: Removal | None
    why: str
    actions: tuple[Action, ...] = ()
    deleted: bool = False
    undone: bool = False


def advance(
    removal: Removal, scene: Scene, board: Board, leaving: frozenset[str], survivors: Sequence[NodeInfo]
) -> Moved:
    """One step of one removal. `board`: what the staying nodes have left; `leaving`: all nodes on their way out."""
    node = scene.nodes.get(removal.node)
    if removal.phase is Phase.DELETING:
        return _deleting(removal, node, scene)
    if node is None:
        return Moved(None, "the node is gone")
    if removal.phase is Phase.REVERTING:
        return _reverting(removal, node)
    if why := _stop(removal, node, scene):
        return revert(removal, node, why, scene.now)
    if why := _hold(removal, scene):
        since = removal.held_since if removal.held_since is not None else scene.now
        if scene.now - since >= scene.settings.hold_timeout:
            return revert(removal, node, f"{why} for {format_duration(scene.now - since)}", scene.now)
        return Moved(replace(removal, held_since=since), f"waits where it is: {why}")
    removal = replace(removal, held_since=None)
    if removal.phase is Phase.MARKED:
        return _marked(removal, node, scene, leaving, survivors)
    if removal.phase is Phase.SHRINKING:
        return _shrinking(removal, node, scene, board)
    if removal.phase is Phase.CORDONED:
        return _cordoned(removal, node, scene, board)
    return _draining(removal, node, scene, board)


def revert(removal: Removal, node: NodeInfo, why: str, now: float) -> Moved:
    """Start undoing a removal."""
    return _reverting(replace(removal, phase=Phase.REVERTING, since=now, reason=why), node)


def undo(node: NodeInfo, group: str, why: str) -> tuple[Action, ...]:
    """The actions that take back what headgate has put on a node, in reverse."""
    actions: list[Action] = []
    if node.cordoned_by_us:
        actions.append(Uncordon(group, node.name, why))
    if node.marked:
        actions.append(Unmark(group, node.name, why))
    return tuple(actions)


def _enter(removal: Removal, phase: Phase, now: float) -> Removal:
    return replace(removal, phase=phase, since=now)


def _stop(removal: Removal, node: NodeInfo, scene: Scene) -> str:
    group = removal.group
    if group in scene.stops:
        return scene.stops[group]
    if node.name in scene.needed:
        return "pending pods fit on it"
    if node.keep:
        return "its owner now forbids its removal"
    if not node.ready:
        return "it is not Ready any more"
    if removal.phase is Phase.DRAINING and not node.unschedulable:
        return "somebody made it schedulable again"
    frame, signals = scene.frames.get(group), scene.signals.get(group)
    if frame is None or signals is None or signals.load is None:
        return ""
    if frame.kept and signals.load >= frame.settings.target * frame.kept:
        share = signals.load / frame.kept
        return f"load has returned: {share:.2f} of what would remain, at most {frame.settings.target:g}"
    return ""


def _hold(removal: Removal, scene: Scene) -> str:
    if scene.frozen:
        return scene.frozen
    if removal.group not in scene.frames:
        return "the provider does not answer"
    return "; ".join(scene.signals[removal.group].unknown)


def _marked(
    removal: Removal, node: NodeInfo, scene: Scene, leaving: frozenset[str], survivors: Sequence[NodeInfo]
) -> Moved:
    if not node.marked:
        return Moved(removal, removal.reason, (Mark(removal.group, node.name, removal.reason),))
    waited = scene.now - removal.since
    if waited < scene.settings.soak:
        return Moved(removal, f"softly tainted for {waited:.0f} of {scene.settings.soak:g} s")
    shadow = scene.shadow(leaving)
    if shadow.refusal:
        return revert(removal, node, shadow.refusal, scene.now)
    # What is granted today may fill every node; what is needed without this one must leave room for its pods.
    needed = Board(place(n, shadow.sizes) for n in survivors)
    if obstacle := simulate(node, needed, scene.budgets, scene.settings.most_grace, {}):
        return revert(removal, node, obstacle, scene.now)
    shrinking = replace(_enter(removal, Phase.SHRINKING, scene.now), reserved=needed.since(0))
    return Moved(shrinking, "the allocator moves CPUs off it")


def _shrinking(removal: Removal, node: NodeInfo, scene: Scene, board: Board) -> Moved:
    obstacle = simulate(node, board, scene.budgets, scene.settings.most_grace, {})
    if not obstacle:
        cordoned = _enter(removal, Phase.CORDONED, scene.now)
        why = "its pods fit elsewhere as they are now"
        return Moved(cordoned, why, (Cordon(removal.group, node.name, removal.reason),))
    if scene.now - removal.since >= scene.settings.shrink_timeout:
        return revert(removal, node, f"{obstacle}, after {format_duration(scene.now - removal.since)}", scene.now)
    return Moved(removal, f"waits for room: {obstacle}")


def _cordoned(removal: Removal, node: NodeInfo, scene: Scene, board: Board) -> Moved:
    if not node.unschedulable:
        return Moved(removal, "is being cordoned", (Cordon(removal.group, node.name, removal.reason),))
    if obstacle := simulate(node, board, scene.budgets, scene.settings.most_grace, {}):
        return revert(removal, node, obstacle, scene.now)
    # Nothing is evicted in this decision: the state must say DRAINING before the first pod goes.
    return Moved(_enter(removal, Phase.DRAINING, scene.now), "is cordoned, its pods are evicted next")


def _draining(removal: Removal, node: NodeInfo, scene: Scene, board: Board) -> Moved:
    seen_since = scene.cluster.time > removal.since
    if not node.serving:
        if not seen_since:
            return Moved(removal, "waits for an observation from after the cordon")
        if (
            scene.frames[removal.group].target - scene.frames[removal.group].leaving
            < scene.frames[removal.group].minimum
        ):
            return revert(removal, node, "the group would fall below its minimum", scene.now)
        deleting = _enter(removal, Phase.DELETING, scene.now)
        return Moved(deleting, "is empty", (Delete(removal.group, removal.instance, node.name, removal.reason),))
    waited = scene.now - removal.since
    if waited >= scene.settings.drain_timeout:
        left = ", ".join(pod.name for pod in node.serving[:3])
        return revert(removal, node, f"not drained within {format_duration(waited)}: {left}", scene.now)
    obstacle = simulate(node, board, scene.budgets, scene.settings.most_grace, {})
    evictions = _evictions(removal, node, scene, board) if obstacle else _all_evictions(removal, node, scene)
    why = f"{len(node.serving)} pods are to leave it" + (f"; {obstacle}" if obstacle else "")
    return Moved(removal, why, evictions)


def _all_evictions(removal: Removal, node: NodeInfo, scene: Scene) -> tuple[Action, ...]:
    return tuple(
        Evict(removal.group, node.name, pod.name, min(pod.grace, scene.settings.most_grace), removal.reason)
        for pod in node.serving
        if not pod.terminating
    )


def _evictions(removal: Removal, node: NodeInfo, scene: Scene, board: Board) -> tuple[Action, ...]:
    """Evictions of the pods that may go now although not all may: one by one, as their budgets and the room allow."""
    going: list[Action] = []
    for pod in sorted(node.serving, key=lambda p: p.name):
        alone = NodeInfo(name=node.name, cpu=node.cpu, pods=(pod,))
        if not pod.terminating and not simulate(alone, board, scene.budgets, scene.settings.most_grace, {}):
            grace = min(pod.grace, scene.settings.most_grace)
            going.append(Evict(removal.group, node.name, pod.name, grace, removal.reason))
    return tuple(going)


def _deleting(removal: Removal, node: NodeInfo | None, scene: Scene) -> Moved:
    view = scene.cluster.groups.get(removal.group)
    if view is None and removal.group not in scene.stops:
        return Moved(removal, "waits where it is: the provider does not answer")
    instance = next((i for i in view.instances if i.name == removal.instance), None) if view is not None else None
    if view is not None and (instance is None or instance.state is InstanceState.DELETING):
        if node is None:
            return Moved(None, "deleted", deleted=True)
        return Moved(removal, "its machine is being deleted")
    frame = scene.frames.get(removal.group)
    if frame is None:
        # It is somebody else's, or nobody's, and nothing says that its deletion has reached the provider.
        why = scene.stops[removal.group]
        return revert(removal, node, why, scene.now) if node is not None else Moved(None, why)
    if scene.frozen:
        return Moved(removal, f"waits where it is: {scene.frozen}")
    if node is not None and node.serving:
        # Only a pod that was bound to it by hand gets here: the node is cordoned.
        return Moved(_enter(removal, Phase.DRAINING, scene.now), f"{node.serving[0].name} has come onto it")
    refusals = [o.error for o in scene.cluster.outcomes if o.step is Step.DELETE and o.node == removal.node and o.final]
    if node is not None and (refusals or frame.target - frame.leaving < frame.minimum):
        return revert(removal, node, refusals[0] if refusals else "the group is at its minimum", scene.now)
    return Moved(removal, "is being deleted", (Delete(removal.group, removal.instance, removal.node, removal.reason),))


def _reverting(removal: Removal, node: NodeInfo) -> Moved:
    actions = undo(node, removal.group, removal.reason)
    return Moved(removal if actions else None, f"its removal is undone: {removal.reason}", actions, undone=not actions)
