"""A group as one decision sees it: which machines are capacity, which are upcoming, and which never came."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from headgate.core.nodes.actions import Cancel, Delete
from headgate.core.nodes.model import GroupView, NodeInfo, Outcome, Step
from headgate.core.nodes.settings import GroupSettings
from headgate.core.nodes.state import GroupState, Phase, Removal
from headgate.core.providers import Instance, InstanceState, NodeTemplate
from headgate.core.units import format_cpu, format_duration

NAMELESS = ""
"""Among the machines that were given up: some without a name."""


@dataclass(frozen=True)
class Frame:
    """One group, sorted out."""

    settings: GroupSettings
    target: int
    minimum: int
    """The stricter of the settings' and the provider's."""
    maximum: int
    template: NodeTemplate | None
    ready: tuple[NodeInfo, ...]
    """Nodes that are Ready and not being deleted; those on their way out included."""
    unready: tuple[NodeInfo, ...]
    """Nodes that were Ready once and are not now: no capacity, and no upcoming one either."""
    upcoming: int
    """Machines that may still become Ready nodes."""
    late: tuple[Instance, ...]
    """Machines that failed, or did not join in time, and serve no pods."""
    stuck: tuple[str, ...]
    """Machines that did not join in time but whose node has pods: they are left alone."""
    overdue: int
    """Machines without a name that did not come in time."""
    removing: frozenset[str]
    """Names of nodes on their way out, not being deleted yet."""
    leaving: int
    """Machines on their way out that the target still counts."""
    daemons: int
    """Millicores that daemon sets take of a new node, by those on the present ones."""

    @property
    def capacity(self) -> int:
        """Millicores of the Ready nodes that pods may be put on, or that headgate itself closed."""
        return sum(n.cpu for n in self.ready if not n.unschedulable or n.cordoned_by_us)

    @property
    def kept(self) -> int:
        """Of these, millicores of the nodes that are not on their way out."""
        return sum(n.cpu for n in self.ready if n.name not in self.removing and not n.unschedulable)

    @property
    def upcoming_cpu(self) -> int:
        """Millicores that upcoming machines will bring."""
        return self.upcoming * self.template.cpu if self.template else 0

    @property
    def machines_cpu(self) -> int:
        """Millicores of all machines that the target counts, whether pods may be put on them or not."""
        absent = self.upcoming + len(self.late) + len(self.stuck) + self.overdue
        each = self.template.cpu if self.template else 0
        return sum(n.cpu for n in (*self.ready, *self.unready)) + absent * each

    def spare(self, removed: int = 0, removed_cpu: int = 0) -> bool:
        """Whether it may lose `removed` machines of `removed_cpu` millicores besides those on their way out."""
        left = self.target - self.leaving - removed
        return left >= self.minimum and self.kept - removed_cpu >= self.settings.minimum_cpu


def build(
    settings: GroupSettings,
    view: GroupView,
    nodes: Sequence[NodeInfo],
    state: GroupState,
    removals: Mapping[str, Removal],
    now: float,
) -> tuple[GroupState, Frame]:
    """The group's frame at `now`, and its state with the timers of machines that are yet to join."""
    deleting = {i.name for i in view.instances if i.state is InstanceState.DELETING}
    deleting |= {r.instance for r in removals.values() if r.phase is Phase.DELETING}
    live = [i for i in view.instances if i.state is not InstanceState.DELETING]
    here = {n.name: n for n in nodes}
    node_of = {n.instance: n for n in nodes if n.instance is not None}
    node_of |= {i.name: here[i.node] for i in view.instances if i.node in here}
    gone = {n.name for n in nodes if n.instance in deleting} | {
        node_of[name].name for name in deleting if name in node_of
    }
    standing = [n for n in nodes if n.name not in gone]
    ready = tuple(n for n in standing if n.ready)

    names = {i.name for i in live}
    # A machine that has lost its node is one that is yet to join: it serves nothing, and is taken back in the end.
    joined = frozenset(name for name in names if (n := node_of.get(name)) and (n.ready or name in state.joined))
    waiting = {i.name: state.waiting.get(i.name, now) for i in live if i.name not in joined}
    nameless = max(0, view.group.target - len(live))
    nameless_since = None if not nameless else state.nameless_since if state.nameless_since is not None else now
    overdue = nameless if nameless_since is not None and now - nameless_since >= settings.provisioning_timeout else 0

    late, stuck = [], []
    for instance in live:
        since = waiting.get(instance.name)
        failed = instance.state is InstanceState.FAILED
        if since is None or not (failed or now - since >= settings.provisioning_timeout):
            continue
        node = node_of.get(instance.name)
        if node is not None and node.serving:
            stuck.append(instance.name)
        else:
            late.append(instance)
    arriving = {node_of[name].name for name in waiting if name in node_of}
    own = view.group
    frame = Frame(
        settings=settings,
        target=own.target,
        minimum=max(settings.minimum, own.minimum),
        maximum=settings.maximum if own.maximum is None else min(settings.maximum, own.maximum),
        template=view.template or settings.template,
        ready=ready,
        unready=tuple(n for n in standing if not n.ready and n.name not in arriving),
        upcoming=max(0, len(waiting) - len(late) - len(stuck)) + nameless - overdue,
        late=tuple(late),
        stuck=tuple(stuck),
        overdue=overdue,
        removing=frozenset(r.node for r in removals.values() if r.phase is not Phase.DELETING) - gone,
        leaving=sum(r.instance in names for r in removals.values()),
        daemons=max((sum(p.committed for p in n.pods if p.daemon) for n in ready), default=0),
    )
    return replace(state, joined=joined, waiting=waiting, nameless_since=nameless_since), frame


def clean_up(frame: Frame, state: GroupState, now: float) -> tuple[GroupState, list[Cancel | Delete], list[str]]:
    """Take back machines that never came, as far as the minimum allows, and hold the group back for a while.

    One that has to stay holds it back once, not for as long as it stays: another must come before it can go.
    """
    if not frame.late and not frame.overdue:
        reasons = [f"{name} did not join in time, but its node has pods: left alone" for name in frame.stuck]
        return replace(state, given_up=frozenset()), [], reasons
    actions: list[Cancel | Delete] = []
    reasons = [f"{name} did not join in time, but its node has pods: left alone" for name in frame.stuck]
    room = max(0, frame.target - frame.leaving - frame.minimum)
    timeout = format_duration(frame.settings.provisioning_timeout)
    for instance in frame.late:
        failed = instance.state is InstanceState.FAILED
        why = f"failed: {instance.detail or 'no reason given'}" if failed else f"did not join within {timeout}"
        if room:
            room -= 1
            actions.append(Delete(frame.settings.name, instance.name, None, f"{instance.name} {why}"))
        else:
            reasons.append(f"{instance.name} {why}; the group is at its minimum, another has to come first")
    if frame.overdue:
        count = min(room, frame.overdue)
        why = f"{frame.overdue} machines did not come within {timeout}"
        if count:
            seen = frame.target - sum(isinstance(action, Delete) for action in actions)
            actions.append(Cancel(frame.settings.name, count, seen, why))
        else:
            reasons.append(f"{why}; the group is at its minimum")
    reasons += [action.why for action in actions]
    late = frozenset(instance.name for instance in frame.late) | ({NAMELESS} if frame.overdue else set())
    if late - state.given_up or any(isinstance(action, Cancel) for action in actions):
        state = back_off(state, frame.settings, now)
    return replace(state, given_up=late), actions, reasons


def back_off(state: GroupState, settings: GroupSettings, now: float) -> GroupState:
    """The state after a failure: each backoff is twice as long as the last; one that is running is not prolonged."""
    if state.backoff_until is not None and now < state.backoff_until:
        return replace(state, failed=now)
    quiet = state.failed is None or now - state.failed >= settings.backoff_reset
    length = settings.backoff if quiet or not state.backoff else min(settings.backoff_most, state.backoff * 2)
    return replace(state, failed=now, backoff=length, backoff_until=now + length)


def learn(state: GroupState, settings: GroupSettings, outcomes: Sequence[Outcome]) -> tuple[GroupState, list[str]]:
    """The state after what went wrong since the last decision."""
    reasons = []
    for outcome in outcomes:
        reasons.append(f"{outcome.step.value} failed: {outcome.error}")
        if outcome.step in (Step.INCREASE, Step.CANCEL):
            state = back_off(state, settings, outcome.time)
        elif outcome.step is Step.DELETE:
            state = replace(state, failed=outcome.time)
    return state, reasons


def describe(frame: Frame) -> str:
    """The group's size in a line."""
    return (
        f"{len(frame.ready)} Ready ({format_cpu(frame.capacity)} CPUs), {frame.upcoming} upcoming, "
        f"{len(frame.unready)} not Ready"
    )
