from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from headgate.controller.nodes.virtual import VirtualCluster, VirtualGroup
from headgate.core.nodes.actions import NodePlan
from headgate.core.nodes.model import Cluster, GroupDemand, NodeInfo, Outcome, PodInfo
from headgate.core.nodes.plan import plan_nodes
from headgate.core.nodes.settings import DisruptionBudget, GroupSettings, NodeSettings
from headgate.core.nodes.shadow import Shadow, no_allocator
from headgate.core.nodes.state import State
from headgate.core.providers import NodeTemplate

CPU = 4000
"""Millicores of every node in these tests, unless they say otherwise."""
LOWER, UPPER, TARGET = 0.5, 0.75, 0.7
UP_AFTER, DOWN_AFTER = 60, 600
"""The defaults that expected figures are derived from."""


@dataclass
class Lab:
    """A group "pool" of nodes of 4 CPUs in a virtual cluster, decided on every ten seconds."""

    settings: NodeSettings
    world: VirtualCluster
    state: State = field(default_factory=State)
    outcomes: Sequence[Outcome] = ()
    shadow: Shadow = no_allocator
    restart: bool = False
    """The controller starts anew before each decision, with nothing but the state that was written down."""
    plan: NodePlan | None = None
    plans: list[NodePlan] = field(default_factory=list)
    tamper: Callable[[Cluster], Cluster] = lambda cluster: cluster

    def tick(self, seconds: float = 10.0) -> NodePlan:
        self.world.advance(self.world.now + seconds)
        cluster = self.tamper(self.world.observe(self.outcomes))
        if self.restart:
            self.state = State.from_json(self.state.to_json())
        self.state, self.plan = plan_nodes(self.settings, cluster, self.state, self.world.now, self.shadow)
        self.outcomes = self.world.apply(self.plan)
        self.plans.append(self.plan)
        return self.plan

    def run(self, seconds: float) -> NodePlan:
        for _ in range(round(seconds / 10)):
            plan = self.tick()
        return plan

    def until(self, holds: Callable[[NodePlan], bool], within: float = 3600) -> NodePlan:
        for _ in range(round(within / 10)):
            if holds(plan := self.tick()):
                return plan
        raise AssertionError(f"not within {within} s; last reasons: {self.reasons}; {plan.nodes}")

    @property
    def reasons(self) -> str:
        assert self.plan is not None
        return "; ".join(self.plan.verdicts["pool"].reasons)

    def actions(self, kind: type) -> list[Any]:
        return [action for plan in self.plans for action in plan.actions if isinstance(action, kind)]

    def load(self, share: float) -> None:
        """Every pod uses `share` of its node's CPUs over the pods there are on it."""
        for pod in self.world.pods.values():
            beside = sum(p.node == pod.node for p in self.world.pods.values())
            self.world.usage[pod.name] = round(share * CPU / beside)


def pod(name: str, node: str | None = None, cpu: int = 500, **more: Any) -> PodInfo:
    return PodInfo(name=f"ns/{name}", cpu=cpu, node=node, **more)


def make(nodes: int, pods_each: int = 1, pod_cpu: int = 500, demand: int | None = None, **group: Any) -> Lab:
    ours = GroupSettings.__dataclass_fields__
    cluster_wide = {key: group.pop(key) for key in list(group) if key not in ours}
    defaults: dict[str, Any] = {"minimum": 1, "maximum": 10, "budgets": (DisruptionBudget(nodes=1),)}
    settings = NodeSettings((GroupSettings("pool", **(defaults | group)),), **cluster_wide)
    own = settings.groups[0]
    world = VirtualCluster({"pool": VirtualGroup("pool", NodeTemplate(CPU), own.minimum, own.maximum)})
    for index in range(nodes):
        world.add_node(NodeInfo(f"n{index}", CPU, "pool"))
        for number in range(pods_each):
            one = pod(f"p{index}-{number}", f"n{index}", pod_cpu)
            world.pods[one.name] = one
    if demand is not None:
        world.demand["pool"] = GroupDemand(10**9, demand)
    return Lab(settings, world)


@pytest.fixture
def lab() -> Callable[..., Lab]:
    return make


@pytest.fixture
def new_pod() -> Callable[..., PodInfo]:
    return pod


@pytest.fixture
def change() -> Callable[..., None]:
    """Change a pod or a node of a lab."""

    def do(lab: Lab, name: str, **changes: Any) -> None:
        if name in lab.world.nodes:
            lab.world.nodes[name] = replace(lab.world.nodes[name], **changes)
        else:
            lab.world.pods[f"ns/{name}"] = replace(lab.world.pods[f"ns/{name}"], **changes)

    return do
