"""A cluster that exists only on a virtual clock: machines that take time to come, a scheduler, evictions, faults.

It is a NodeProvider, carries out plans, and gives the observations that the node scaler decides on. Simulations run on
it and so do the fault tests, which is why it writes down each breach of what must never happen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

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
    Unmark,
)
from headgate.core.nodes.drain import Board, place
from headgate.core.nodes.model import (
    Cluster,
    GroupDemand,
    GroupView,
    NodeInfo,
    Outcome,
    PodDisruptionBudget,
    PodInfo,
    Step,
)
from headgate.core.providers import (
    Conflict,
    Instance,
    InstanceState,
    NodeTemplate,
    ProviderError,
    ProviderGroup,
    Refused,
    Unavailable,
)

_STEPS = {Increase: Step.INCREASE, Delete: Step.DELETE, Cancel: Step.CANCEL, Evict: Step.EVICT}


@dataclass
class Machine:
    """A machine of a group."""

    name: str
    group: str
    ready_at: float | None
    """When its node will be Ready; None: never."""
    state: InstanceState = InstanceState.PENDING
    gone_at: float | None = None


@dataclass
class VirtualGroup:
    """A group's limits and size."""

    name: str
    template: NodeTemplate
    minimum: int = 0
    maximum: int = 100
    target: int = 0
    owner: str | None = None


@dataclass
class VirtualCluster:
    """See the module."""

    groups_: dict[str, VirtualGroup]
    now: float = 0.0
    provision: Callable[[], float | None] = lambda: 90.0
    """Seconds until a new machine's node is Ready; None: it never is."""
    fault: Callable[[str, str], ProviderError | None] = lambda *_: None
    """Asked before each provider call; what it returns is raised."""
    delete_takes: float = 30.0
    machines: dict[str, Machine] = field(default_factory=dict)
    nodes: dict[str, NodeInfo] = field(default_factory=dict)
    pods: dict[str, PodInfo] = field(default_factory=dict)
    budgets: list[PodDisruptionBudget] = field(default_factory=list)
    usage: dict[str, int] = field(default_factory=dict)
    """Millicores that each pod uses."""
    metrics: bool = True
    breaches: list[str] = field(default_factory=list)
    """What must never happen and did."""
    ended: dict[str, float] = field(default_factory=dict)
    """When each terminating pod will be gone."""
    demand: dict[str, GroupDemand] = field(default_factory=dict)
    metrics_time: float = 0.0
    count: int = 0

    # The provider's side

    def groups(self) -> Sequence[ProviderGroup]:
        """As NodeProvider."""
        self._call("groups", "")
        return [ProviderGroup(g.name, g.target, g.minimum, g.maximum, g.owner) for g in self.groups_.values()]

    def instances(self, group: str) -> Sequence[Instance]:
        """As NodeProvider."""
        self._call("instances", group)
        self._group(group)
        return [
            Instance(m.name, m.state, m.name if m.name in self.nodes else None)
            for m in self.machines.values()
            if m.group == group
        ]

    def increase(self, group: str, count: int, *, seen: int) -> None:
        """As NodeProvider."""
        self._call("increase", group)
        own = self._group(group)
        if own.target == seen + count:
            return
        if own.target != seen:
            raise Conflict(f"{group} has {own.target} machines, not {seen}")
        if own.target + count > own.maximum:
            raise Refused(f"{group} has a maximum of {own.maximum} machines")
        own.target += count
        for _ in range(count):
            self.count += 1
            delay = self.provision()
            name = f"{group}-{self.count}"
            self.machines[name] = Machine(name, group, None if delay is None else self.now + delay)
        self._check(own)

    def delete(self, group: str, instances: Sequence[str]) -> None:
        """As NodeProvider."""
        self._call("delete", group)
        own = self._group(group)
        going = [
            m
            for name in dict.fromkeys(instances)
            if (m := self.machines.get(name)) is not None and m.group == group and m.state is not InstanceState.DELETING
        ]
        if own.target - len(going) < own.minimum:
            raise Refused(f"{group} has a minimum of {own.minimum} machines")
        for machine in going:
            if serving := [p.name for p in self.pods.values() if p.node == machine.name and not p.daemon]:
                self.breaches.append(f"{self.now}: {machine.name} was deleted with {serving}")
            machine.state, machine.gone_at = InstanceState.DELETING, self.now + self.delete_takes
            own.target -= 1
        self._check(own)

    def cancel_pending(self, group: str, count: int, *, seen: int) -> int:
        """As NodeProvider."""
        self._call("cancel_pending", group)
        own = self._group(group)
        if own.target == seen - count:
            return 0
        if own.target != seen:
            raise Conflict(f"{group} has {own.target} machines, not {seen}")
        pending = [m for m in self.machines.values() if m.group == group and m.state is InstanceState.PENDING]
        taken = pending[: min(count, own.target - own.minimum)]
        for machine in taken:
            del self.machines[machine.name]
        own.target -= len(taken)
        return len(taken)

    def template(self, group: str) -> NodeTemplate | None:
        """As NodeProvider."""
        self._call("template", group)
        return self._group(group).template

    def _call(self, call: str, group: str) -> None:
        if (error := self.fault(call, group)) is not None:
            raise error

    def _group(self, group: str) -> VirtualGroup:
        if group not in self.groups_:
            raise Refused(f"there is no group {group}")
        return self.groups_[group]

    def _check(self, group: VirtualGroup) -> None:
        if not group.minimum <= group.target <= group.maximum:
            self.breaches.append(f"{self.now}: {group.name} has {group.target} machines")

    # The cluster's side

    def add_node(self, node: NodeInfo) -> None:
        """A machine whose node is Ready already."""
        assert node.group is not None
        self.machines[node.name] = Machine(node.name, node.group, self.now, InstanceState.RUNNING)
        self.groups_[node.group].target += 1
        self.nodes[node.name] = replace(node, instance=node.name)

    def advance(self, now: float) -> None:
        """Let time pass: machines come and go, pods end and are replaced, the scheduler binds what waits."""
        self.now = now
        for machine in list(self.machines.values()):
            if machine.gone_at is not None and machine.gone_at <= now:
                del self.machines[machine.name]
                self.nodes.pop(machine.name, None)
                for pod in [p for p in self.pods.values() if p.node == machine.name]:
                    del self.pods[pod.name]
            elif machine.state is InstanceState.PENDING and machine.ready_at is not None and machine.ready_at <= now:
                machine.state = InstanceState.RUNNING
                self._join(machine)
        for name, at in list(self.ended.items()):
            if at <= now:
                del self.ended[name]
                self._replace(name)
        self.schedule()

    def schedule(self) -> None:
        """Bind the pods that wait, largest first, each to the node where it leaves least."""
        waiting = [p for p in self.pods.values() if p.node is None]
        if not waiting:
            return
        board = Board(place(n, {}) for n in self._listed() if n.ready and not n.unschedulable)
        for pod in sorted(waiting, key=lambda p: (-p.priority, -p.cpu, p.name)):
            if (node := board.put(pod, pod.cpu)) is not None:
                self.pods[pod.name] = replace(pod, node=node)

    def observe(self, outcomes: Iterable[Outcome] = ()) -> Cluster:
        """What a source would see now. A provider call that fails leaves its group out."""
        if self.metrics:
            self.metrics_time = self.now
        views = {}
        try:
            sizes = {g.name: g for g in self.groups()}
        except ProviderError:
            sizes = {}
        for name, size in sizes.items():
            try:
                views[name] = GroupView(size, tuple(self.instances(name)), self.template(name))
            except ProviderError:
                continue
        return Cluster(
            time=self.now,
            nodes=tuple(self._listed()),
            groups=views,
            pending=tuple(p for p in self.pods.values() if p.node is None),
            disruption=tuple(self._disruption()),
            demand=dict(self.demand),
            outcomes=tuple(outcomes),
        )

    def apply(self, plan: NodePlan) -> list[Outcome]:
        """Carry a plan out; what failed is told with the next observation."""
        failed = []
        for action in plan.actions:
            try:
                self.act(action)
            except Conflict:
                continue
            except ProviderError as error:
                node = getattr(action, "node", None)
                step = _STEPS.get(type(action), Step.MARK)
                failed.append(Outcome(step, action.group, self.now, str(error), node, isinstance(error, Refused)))
        return failed

    def act(self, action: Action) -> None:
        """Carry one action out."""
        if isinstance(action, Increase):
            self.increase(action.group, action.count, seen=action.seen)
        elif isinstance(action, Cancel):
            self.cancel_pending(action.group, action.count, seen=action.seen)
        elif isinstance(action, Delete):
            self.delete(action.group, [action.instance])
        elif isinstance(action, Evict):
            self.evict(action.pod)
        else:
            self._touch(action)

    def evict(self, name: str) -> None:
        """The eviction API: PodDisruptionBudgets are checked here, whatever the plan thought."""
        pod = self.pods.get(name)
        if pod is None or pod.terminating:
            return
        for budget in self._disruption():
            if budget.covers(pod) and budget.allowed < 1:
                raise Unavailable(f"429: {budget.name} allows no disruption")
        self.pods[name] = replace(pod, terminating=True)
        self.ended[name] = self.now + min(pod.grace, 1.0)

    def _touch(self, action: Mark | Unmark | Cordon | Uncordon) -> None:
        node = self.nodes.get(action.node)
        if node is None:
            return
        self._call(type(action).__name__.lower(), action.group)
        changed = {
            Mark: replace(node, marked=True),
            Unmark: replace(node, marked=False),
            Cordon: replace(node, unschedulable=True, cordoned_by_us=True),
            Uncordon: replace(node, unschedulable=False, cordoned_by_us=False),
        }
        self.nodes[action.node] = changed[type(action)]

    def _listed(self) -> list[NodeInfo]:
        on: dict[str, list[PodInfo]] = {}
        for pod in self.pods.values():
            if pod.node is not None:
                on.setdefault(pod.node, []).append(pod)
        return [
            replace(
                node,
                pods=tuple(on.get(node.name, ())),
                usage=sum(self.usage.get(p.name, 0) for p in on.get(node.name, ())),
                usage_time=self.metrics_time,
            )
            for node in self.nodes.values()
        ]

    def _disruption(self) -> list[PodDisruptionBudget]:
        """Budgets whose `allowed` is what may be missing at once: what is missing already counts against it."""
        return [
            replace(
                b, allowed=b.allowed - sum(b.covers(p) and (p.terminating or not p.node) for p in self.pods.values())
            )
            for b in self.budgets
        ]

    def _join(self, machine: Machine) -> None:
        template = self.groups_[machine.group].template
        self.nodes[machine.name] = NodeInfo(
            name=machine.name,
            cpu=template.cpu,
            group=machine.group,
            instance=machine.name,
            created=self.now,
            memory=template.memory,
            pods_limit=template.pods,
            labels=template.labels,
            taints=template.taints,
        )

    def _replace(self, name: str) -> None:
        pod = self.pods.pop(name)
        if not pod.controlled:
            return
        self.count += 1
        new = f"{pod.name.rstrip('0123456789')}{self.count}"
        cpu = pod.cpu if pod.template_cpu is None else pod.template_cpu
        self.pods[new] = replace(
            pod,
            name=new,
            node=None,
            cpu=cpu,
            allocated=None,
            actual=None,
            resize=None,
            terminating=False,
            created=self.now,
        )
        self.usage[new] = self.usage.pop(name, 0)
