"""The slower part of a turn: are there the right nodes? Observe, plan, write down, take the plan's steps, report."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from headgate.controller.run.clock import Clock
from headgate.controller.run.nodes_view import Divided, demand_of, limited, shadow_of, sized_of
from headgate.controller.run.settings import NodesSettings
from headgate.core.hosting import Inventory, NodeHost
from headgate.core.nodes.actions import (
    Action,
    Cancel,
    Cordon,
    Delete,
    Evict,
    Increase,
    Mark,
    NodePlan,
    Uncordon,
)
from headgate.core.nodes.model import Cluster, GroupView, NodeInfo, Outcome, Step
from headgate.core.nodes.plan import plan_nodes
from headgate.core.nodes.settings import NodeSettings
from headgate.core.nodes.state import Phase, State
from headgate.core.providers import Conflict, NodeProvider, ProviderError, Tidying

log = logging.getLogger("headgate.nodes")

KEY = "nodes"
"""Of the state in the home."""
LAID_OUT = 3600.0
"""Seconds for which a schedule's windows are used before they are laid out anew."""

_STEPS: Mapping[type[Action], Step] = {
    Increase: Step.INCREASE,
    Cancel: Step.CANCEL,
    Delete: Step.DELETE,
    Evict: Step.EVICT,
    Cordon: Step.CORDON,
    Uncordon: Step.CORDON,
}


@dataclass(frozen=True, slots=True)
class NodesView:
    """What is known after a plan; replaced as a whole."""

    plan: NodePlan
    state: State
    carried_out: bool
    """Whether the plan's steps were taken, as far as they succeeded; otherwise they are what would be done."""
    failures: tuple[Outcome, ...] = ()
    problems: tuple[str, ...] = ()
    """What could not be observed."""


@dataclass(slots=True)
class NodesRecord:
    """How it does, since the start."""

    taken: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Steps that succeeded, by group and kind."""
    failed: Counter[tuple[str, str]] = field(default_factory=Counter)
    turns: int = 0
    turns_failed: int = 0
    problem: str | None = None
    """Why there was no plan in the last turn."""


class Nodes:
    """Plans at its own interval, within the loop's turns and under the loop's lease. Used by the loop's thread."""

    def __init__(
        self, settings: NodesSettings, provider: NodeProvider, host: NodeHost, clock: Clock, *, applies: bool
    ) -> None:
        """`applies`: whether plans may be carried out at all."""
        self.settings = settings
        self.provider = provider
        self.host = host
        self._clock = clock
        self._applies = applies
        self._state = State()
        self._planned: float | None = None
        """When the state was last moved on."""
        self._due = -1e18
        self._outcomes: tuple[Outcome, ...] = ()
        self._laid_out: tuple[float, NodeSettings] | None = None
        self.view: NodesView | None = None
        self.record = NodesRecord()

    @property
    def applies(self) -> bool:
        """Whether plans are carried out."""
        return self._applies and self.settings.mode == "apply"

    @property
    def mode(self) -> str:
        """What it does with its plans."""
        return "apply" if self.applies else "recommend"

    def recall(self, kept: Mapping[str, Any]) -> None:
        """Take up what an earlier process wrote down, at the start of a term."""
        self._state, self._planned, self._due, self._outcomes = State(), None, -1e18, ()
        value = kept.get(KEY)
        if value is None:
            return
        try:
            self._state, self._planned = State.from_json(value["state"]), float(value["time"])
            if value["mode"] != self.mode:
                # What was only recommended has not begun; what had begun shows on the nodes.
                self._state = replace(self._state, removals={})
        except (ValueError, KeyError, TypeError) as error:
            self._state, self._planned = State(), None
            log.warning("dropped from the state: the node scaler's timers: %s", error)

    def limited(self, inventories: Mapping[str, Inventory]) -> Mapping[str, Inventory]:
        """With what the allocator may count on while nodes are on their way out."""
        if self.view is None or not self.view.carried_out:
            return inventories
        removals = self.view.state.removals.values()
        begun = [r for r in removals if r.phase not in (Phase.MARKED, Phase.REVERTING)]
        touched = {r.node for r in begun} | {name for r in begun for name in r.reserved}
        return limited(inventories, [node for node in self.view.plan.capacity if node.name in touched])

    def turn(
        self,
        divided: Sequence[Divided],
        held: str | None,
        allowed: Callable[[], bool],
        save: Callable[[Mapping[str, Any]], bool],
    ) -> None:
        """One plan, when it is due, carried out where that is the mode. `save` False: this process leads no more."""
        now = self._clock()
        if now < self._due:
            return
        self._due = now + self.settings.interval
        if held is not None:
            self.record.problem = f"paused: {held}"
            return
        self.record.turns += 1
        try:
            cluster, problems = self._observe(divided, tidy=self.applies and allowed())
            state, plan = self._plan(cluster, divided, now)
            if not save({KEY: {"time": now, "mode": self.mode, "state": state.to_json()}}):
                raise ConnectionError("the node scaler's state could not be saved: nothing is done")
        except Exception as error:  # noqa: BLE001 - fail static, whatever a host or a provider does wrong
            self._fail(error)
            return
        before, self._state, self._planned = self._state, state, now
        self._outcomes = self._carry_out(plan, cluster, allowed) if self.applies else ()
        self.view = NodesView(plan, state, self.applies, self._outcomes, problems)
        self.record.problem = None
        self._tell(before, state, plan)

    def preview(self, divided: Sequence[Divided]) -> None:
        """A plan that nothing comes of: `view` holds what would be done first."""
        try:
            cluster, problems = self._observe(divided)
            state, plan = self._plan(cluster, divided, self._clock())
        except Exception as error:  # noqa: BLE001
            self._fail(error)
            return
        self.view = NodesView(plan, state, carried_out=False, problems=problems)

    def _fail(self, error: Exception) -> None:
        message = str(error) if isinstance(error, OSError | ProviderError) else f"{type(error).__name__}: {error}"
        if message != self.record.problem:
            known = isinstance(error, OSError | ProviderError)
            log.warning("no plan for the nodes, they stay as they are: %s", message, exc_info=None if known else error)
        self.record.turns_failed += 1
        self.record.problem = message

    # Observing -------------------------------------------------------------------------------------------------------

    def _observe(self, divided: Sequence[Divided], *, tidy: bool = False) -> tuple[Cluster, tuple[str, ...]]:
        seen = self.host.observe_nodes(sized_of(divided))
        views, problems = self._ask_provider(tidy=tidy)
        nodes = _joined(seen.nodes, views)
        demand = demand_of(divided, nodes)
        cluster = replace(seen, nodes=nodes, groups=views, demand=demand, outcomes=self._outcomes)
        return cluster, problems

    def _ask_provider(self, *, tidy: bool) -> tuple[dict[str, GroupView], tuple[str, ...]]:
        """The groups of the settings as the provider sees them; one that does not answer is missing."""
        views: dict[str, GroupView] = {}
        problems = []
        try:
            if tidy and isinstance(self.provider, Tidying):
                self.provider.tidy()
            groups = {group.name: group for group in self.provider.groups()}
        except ProviderError as error:
            return {}, (f"the provider does not tell its groups: {error}",)
        for own in self.settings.groups:
            if own.name not in groups:
                problems.append(f"group {own.name} is none of the provider's: {', '.join(sorted(groups)) or 'none'}")
                continue
            try:
                instances, template = self.provider.instances(own.name), self.provider.template(own.name)
            except ProviderError as error:
                problems.append(f"group {own.name}: {error}")
                continue
            views[own.name] = GroupView(groups[own.name], tuple(instances), template)
        return views, tuple(problems)

    def _plan(self, cluster: Cluster, divided: Sequence[Divided], now: float) -> tuple[State, NodePlan]:
        if self._laid_out is None or now - self._laid_out[0] >= LAID_OUT:
            self._laid_out = now, self.settings.value(now)
        settings, state = self._laid_out[1], self._state
        if self._planned is not None and now - self._planned > settings.stale:
            # Nobody looked meanwhile: what held then need not have held ever since.
            log.info("the last plan is %.0f s old: thresholds have to be sustained anew", now - self._planned)
            state = replace(state, groups={name: group.unwatched() for name, group in state.groups.items()})
        return plan_nodes(settings, cluster, state, now, shadow_of(divided, cluster))

    # Doing -----------------------------------------------------------------------------------------------------------

    def _carry_out(self, plan: NodePlan, cluster: Cluster, allowed: Callable[[], bool]) -> tuple[Outcome, ...]:
        """The plan's steps in their order; what failed, for the next plan."""
        failures = []
        on = {node.instance: node.name for node in cluster.nodes if node.instance is not None}
        for action in plan.actions:
            if not allowed():
                log.warning("no step more is taken: not leading, or paused")
                break
            kind = type(action).__name__.lower()
            try:
                self._act(action, on)
            except Conflict as error:
                log.info("%s of group %s: %s", kind, action.group, error)
            except (OSError, ProviderError) as error:
                final = isinstance(error, ProviderError) and not error.retry
                step, node = _STEPS.get(type(action), Step.MARK), getattr(action, "node", None)
                log.warning("%s: %s", describe(action), error)
                self.record.failed[action.group, kind] += 1
                failures.append(Outcome(step, action.group, self._clock(), str(error), node, final))
            else:
                log.info("%s: %s", describe(action), action.why)
                self.record.taken[action.group, kind] += 1
        return tuple(failures)

    def _act(self, action: Action, on: Mapping[str, str]) -> None:
        """`on`: nodes by their machines."""
        if isinstance(action, Increase):
            self.provider.increase(action.group, action.count, seen=action.seen)
        elif isinstance(action, Cancel):
            self.provider.cancel_pending(action.group, action.count, seen=action.seen)
        elif isinstance(action, Delete):
            node = on.get(action.instance)
            if node is not None and (serving := self.host.serving(node)):
                raise ConnectionError(f"node {node} is not deleted, {serving[0]} is on it")
            self.provider.delete(action.group, [action.instance])
        elif isinstance(action, Evict):
            self.host.evict(action.pod, action.grace)
        elif isinstance(action, Mark):
            self.host.mark(action.node)
        elif isinstance(action, Cordon):
            self.host.cordon(action.node)
        elif isinstance(action, Uncordon):
            self.host.uncordon(action.node)
        else:
            self.host.unmark(action.node)

    def _tell(self, before: State, state: State, plan: NodePlan) -> None:
        """Events about nodes whose removal has come a phase further."""
        for name, removal in state.removals.items():
            old = before.removals.get(name)
            if old is None or old.phase is not removal.phase:
                reason = f"Removal{removal.phase.value.capitalize()}"
                message = f"{plan.nodes.get(name, removal.reason)} ({removal.reason})"
                log.info("node %s: %s: %s", name, reason, message)
                if self.applies:
                    self.host.tell(name, "Normal", reason, message)
        if not self.applies and plan.actions:
            log.info("would be done: %s", "; ".join(f"{describe(a)} ({a.why})" for a in plan.actions))


def describe(action: Action) -> str:
    """A step in a few words."""
    match action:
        case Increase(group, count, seen):
            return f"add {count} to the {seen} machines of group {group}"
        case Cancel(group, count):
            return f"take back {count} machines of group {group} that never came"
        case Delete(group, instance, node):
            return f"delete machine {instance} of group {group}" + (f" (node {node})" if node else "")
        case Evict(node=node, pod=pod):
            return f"evict pod {pod} from node {node}"
    words = {Mark: "taint", Cordon: "cordon", Uncordon: "uncordon"}
    return f"{words.get(type(action), 'untaint')} node {action.node}"


def _joined(nodes: Sequence[NodeInfo], views: Mapping[str, GroupView]) -> tuple[NodeInfo, ...]:
    """The nodes with their groups and machines: the provider names the node, or the node's provider id the machine."""
    by_node: dict[str, tuple[str, str]] = {}
    by_machine: dict[str, tuple[str, str]] = {}
    for group, view in views.items():
        for instance in view.instances:
            if instance.node is None:
                by_machine.setdefault(instance.name, (group, instance.name))
            else:
                by_node.setdefault(instance.node, (group, instance.name))
    found = []
    for node in nodes:
        known = by_node.get(node.name) or by_machine.get(node.instance or "")
        found.append(replace(node, group=known and known[0], instance=known and known[1]))
    return tuple(found)
