"""A recorded load through allocator and node scaler together, on a virtual clock; machines take time to come."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from headgate.controller.backtest.grid import Trace
from headgate.controller.nodes.fluid import Figures, Floats, Queues, Record
from headgate.controller.nodes.virtual import VirtualCluster, VirtualGroup
from headgate.core.decision import Config, Decision, State, decide
from headgate.core.model import Budget, Observation, Pipeline, Replica, Sample, Unknown
from headgate.core.nodes.actions import Delete, Increase, NodePlan
from headgate.core.nodes.model import GroupDemand, NodeInfo, Outcome, PodInfo
from headgate.core.nodes.plan import plan_nodes
from headgate.core.nodes.settings import NodeSettings
from headgate.core.nodes.shadow import AllocatorShadow, Shadow, no_allocator
from headgate.core.nodes.state import State as NodeState
from headgate.core.providers import NodeTemplate

GROUP = "pool"
TICK = 10.0
"""Seconds between decisions and of a step of the load."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What is the same for every node scaler of a comparison."""

    trace: Trace
    cost: float
    """CPU seconds of a request."""
    settings: NodeSettings
    """With one group, named `pool`, whose template says what a node offers."""
    start: int
    """Nodes at the beginning."""
    provision: float = 120.0
    """Seconds until a new machine's node is Ready."""
    slo: float = 1.0
    bound: float = 10.0
    unit: int = 1000
    """Millicores of a replica under the scalers that know replicas of one size only."""

    @property
    def template(self) -> NodeTemplate:
        """What a node offers."""
        template = self.settings.groups[0].template
        assert template is not None
        return template

    def loads(self) -> Iterator[tuple[float, Floats]]:
        """Time and CPUs of work that arrive for each pipeline, step by step, straight lines between the minutes."""
        rates = self.trace.requests / 60 * self.cost
        minutes = np.arange(len(rates)) * 60.0 + 30.0
        for step in range(round(len(rates) * 60 / TICK)):
            time = (step + 0.5) * TICK
            yield step * TICK, np.array([np.interp(time, minutes, rates[:, i]) for i in range(rates.shape[1])])


def headgate(setting: Setting, policy: str = "proportional") -> tuple[Figures, Record]:
    """Both of headgate's loops: CPUs by the allocator at every step, nodes by plan_nodes.

    A pipeline has a replica on every node that takes pods, as an engine on each node or a Deployment spread over
    them; its CPUs follow its grant in place.
    """
    run = _Headgate(setting, policy)
    for time, load in setting.loads():
        run.step(time, load)
    return run.record.figures(run.queues, TICK), run.record


class _Headgate:
    def __init__(self, setting: Setting, policy: str) -> None:
        self.setting = setting
        self.names = setting.trace.pipelines
        own = setting.settings.groups[0]
        self.world = VirtualCluster({GROUP: VirtualGroup(GROUP, setting.template, own.minimum, own.maximum)})
        self.world.provision = lambda: setting.provision
        for index in range(setting.start):
            self.world.add_node(NodeInfo(f"start-{index}", setting.template.cpu, GROUP))
        self.floor = min(100, setting.template.cpu // (4 * len(self.names)))
        self.policy = policy
        self.queues = Queues(setting.slo, setting.bound, np.zeros(len(self.names)))
        self.record = Record("headgate")
        self.learned, self.nodes = State(), NodeState()
        self.outcomes: list[Outcome] = []
        self.plan: NodePlan | None = None
        self.cpus = np.zeros(len(self.names))
        self.samples: dict[str, Sample] = {}

    def step(self, time: float, load: Floats) -> None:
        self.world.advance(time)
        self._replicas()
        shadow = self._allocate(time) if self.samples or time == 0 else no_allocator
        self._serve(time, load)
        self._scale(time, shadow, load)

    def _replicas(self) -> None:
        """One replica of each pipeline on each node that takes pods; what evictions replace beyond that goes again."""
        world = self.world
        present: set[tuple[str | None, str]] = set()
        for pod in list(world.pods.values()):
            if pod.node is None or (pod.pipeline, pod.node) in present:
                del world.pods[pod.name]
                world.ended.pop(pod.name, None)
            else:
                present.add((pod.pipeline, pod.node))
        for node in world.nodes.values():
            if not node.ready or node.unschedulable:
                continue
            for name in self.names:
                if (name, node.name) not in present:
                    pod = PodInfo(
                        name=f"sim/{name}-on-{node.name}",
                        cpu=self.floor,
                        node=node.name,
                        pipeline=name,
                        floor=self.floor,
                        template_cpu=self.floor,
                    )
                    world.pods[pod.name] = pod

    def _pods(self) -> dict[str, list[PodInfo]]:
        found: dict[str, list[PodInfo]] = {name: [] for name in self.names}
        for pod in self.world.pods.values():
            if pod.node is not None and not pod.terminating and pod.pipeline is not None:
                found[pod.pipeline].append(pod)
        return found

    def _allocate(self, time: float) -> Shadow:
        """Divide what the node plan leaves, and resize the pods to it at once."""
        pods = self._pods()
        free = {n.name: n.free for n in self.plan.capacity} if self.plan else {}
        free = {n.name: free.get(n.name, n.cpu) for n in self.world.nodes.values() if n.ready}
        total = sum(free.values())
        replicas = {name: tuple(Replica(p.name, p.node) for p in own) for name, own in pods.items()}
        pipelines = tuple(
            Pipeline(name, floor=self.floor * len(replicas[name]), replicas=replicas[name]) for name in self.names
        )
        config = Config(tuple(replace(p, replicas=()) for p in pipelines), Budget(total), policy=self.policy)
        # Nothing is known at first: equal shares, as an operator would start.
        equal = total // len(self.names)
        current = {n: sum(p.cpu for p in own) if self.samples else equal for n, own in pods.items()}
        self.learned, decision = decide(self.learned, Observation(self.samples, current), config, time)
        self._resize(decision.allocation.grants, pods, free, total)
        needs = self._needs(decision)
        self.world.demand[GROUP] = GroupDemand(
            time, sum(needs.values()), sum(max(0, need - decision.allocation.grants[n]) for n, need in needs.items())
        )
        if not self.samples:
            del self.world.demand[GROUP]
        nodes = tuple(n for n in (self.plan.capacity if self.plan else ()) if n.name in free)
        budget = Budget(sum(n.free for n in nodes), nodes=nodes)
        bare = [replace(p, replicas=tuple(Replica(r.name) for r in p.replicas)) for p in pipelines]
        return AllocatorShadow(bare, decision.demands, budget, current, needs, self.policy)

    def _needs(self, decision: Decision) -> dict[str, int]:
        """Millicores that each pipeline needs before the budget cuts: its offered load, and what waits in a minute."""
        needs = {}
        for index, name in enumerate(self.names):
            demand = decision.demands[name]
            if isinstance(demand, Unknown):
                needs[name] = round(self.cpus[index] * 1000)
            else:
                waiting = demand.queue * demand.cpu_seconds_per_request / 60
                needs[name] = round(1000 * (demand.offered_load + waiting))
        return needs

    def _resize(
        self, grants: Mapping[str, int], pods: Mapping[str, list[PodInfo]], free: Mapping[str, int], total: int
    ) -> None:
        for index, name in enumerate(self.names):
            self.cpus[index] = grants[name] / 1000
            for pod in pods[name]:
                share = free.get(pod.node or "", 0) / total if total else 0.0
                size = max(self.floor, int(grants[name] * share))
                self.world.pods[pod.name] = replace(pod, cpu=size)

    def _serve(self, time: float, load: Floats) -> None:
        late = float(self.queues.late.sum())
        used = self.queues.step(load, self.cpus, TICK)
        cost = self.setting.cost
        for index, name in enumerate(self.names):
            self.samples[name] = Sample(
                name,
                time + TICK,
                TICK,
                arrivals=float(load[index] * TICK / cost),
                completions=float(used[index] / cost),
                cpu_seconds=float(used[index]),
                queue=float(self.queues.backlog[index] / cost),
            )
            own = [p for p in self.world.pods.values() if p.pipeline == name and p.node is not None]
            for pod in own:
                self.world.usage[pod.name] = round(1000 * used[index] / TICK / len(own))
        ready = [n for n in self.world.nodes.values() if n.ready]
        self.record.note(
            time,
            len(self.world.machines),
            len(ready),
            sum(n.cpu for n in ready) / 1000,
            float(load.sum()),
            float(self.queues.late.sum()) - late,
        )

    def _scale(self, time: float, shadow: Shadow, load: Floats) -> None:  # noqa: ARG002 - the load is not known to it
        cluster = self.world.observe(self.outcomes)
        self.nodes, self.plan = plan_nodes(self.setting.settings, cluster, self.nodes, time, shadow)
        before = self.world.groups_[GROUP].target
        self.outcomes = self.world.apply(self.plan)
        self.record.additions += sum(a.count for a in self.plan.actions if isinstance(a, Increase))
        gone = any(isinstance(a, Delete) for a in self.plan.actions)
        self.record.removals += max(0, before - self.world.groups_[GROUP].target) if gone else 0
