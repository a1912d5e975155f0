"""A whole life of a group on every provider: load adds machines, quiet drains one and deletes it by its name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from headgate.controller.nodes.virtual import VirtualCluster, VirtualGroup
from headgate.core.nodes.actions import Delete, Increase
from headgate.core.nodes.model import NodeInfo, PodInfo
from headgate.core.nodes.plan import plan_nodes
from headgate.core.nodes.settings import GroupSettings, NodeSettings
from headgate.core.nodes.state import Phase, State
from headgate.core.providers import Instance, InstanceState, NodeTemplate, ProviderGroup

CPU = 4000


class Backed(VirtualCluster):
    """Nodes and pods are virtual, machines are the provider's: a machine that runs has a Ready node."""

    provider: Any = None

    def groups(self) -> Sequence[ProviderGroup]:
        return self.provider.groups()  # type: ignore[no-any-return]

    def instances(self, group: str) -> Sequence[Instance]:
        return self.provider.instances(group)  # type: ignore[no-any-return]

    def increase(self, group: str, count: int, *, seen: int) -> None:
        self.provider.increase(group, count, seen=seen)

    def delete(self, group: str, instances: Sequence[str]) -> None:
        for name in instances:
            if serving := [p.name for p in self.pods.values() if p.node == name]:
                self.breaches.append(f"{name} was deleted with {serving}")
        self.provider.delete(group, instances)

    def follow(self) -> None:
        running = {i.name for i in self.provider.instances("pool") if i.state is InstanceState.RUNNING}
        for name in running - set(self.nodes):
            self.nodes[name] = NodeInfo(name, CPU, "pool", name)
        for name in set(self.nodes) - {i.name for i in self.provider.instances("pool")}:
            del self.nodes[name]


def test_load_adds_machines_and_quiet_takes_the_drained_one_away(harness: Callable[[int], Any]) -> None:
    it = harness(2)
    world = Backed({"pool": VirtualGroup("pool", NodeTemplate(CPU))})
    world.provider = it.provider
    world.follow()
    for index, name in enumerate(sorted(world.nodes)):
        world.pods[f"ns/p-{index}"] = PodInfo(f"ns/p-{index}", 500, name)
    own = GroupSettings("pool", minimum=1, maximum=5, template=NodeTemplate(CPU), delay_after_add=60.0)
    settings, state, outcomes = NodeSettings((own,)), State(), []
    seen: list[Any] = []

    def run(share: float, until: Callable[[], bool]) -> None:
        nonlocal state, outcomes
        for _ in range(300):
            world.advance(world.now + 10)
            world.follow()
            each = round(share * CPU * len(world.nodes) / len(world.pods))
            world.usage = dict.fromkeys(world.pods, each)
            state, plan = plan_nodes(settings, world.observe(outcomes), state, world.now)
            outcomes = world.apply(plan)
            seen.extend(plan.actions)
            assert not outcomes
            if until():
                return
        raise AssertionError(plan.verdicts["pool"].reasons)

    run(0.9, lambda: any(isinstance(a, Increase) for a in seen))
    # 0.9 of two nodes is 0.7 of 2.6.
    (size,) = it.provider.groups()
    assert size.target == 3
    it.settle()
    world.follow()
    assert len(world.nodes) == 3
    run(0.1, lambda: any(r.phase is Phase.DELETING for r in state.removals.values()))
    gone = next(a.instance for a in seen if isinstance(a, Delete))
    (size,) = it.provider.groups()
    assert size.target == 2
    it.settle()
    world.follow()
    assert gone not in world.nodes
    assert len(world.nodes) == 2
    run(0.1, lambda: gone not in state.removals)
    assert all(p.node in world.nodes for p in world.pods.values() if p.node)
    assert not world.breaches
