"""The node scaler's part of the loop over a cluster on a virtual clock, with a crash at any step that it takes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from headgate.controller.nodes.virtual import VirtualCluster, VirtualGroup
from headgate.controller.run.nodes import Nodes
from headgate.controller.run.settings import NodesSettings
from headgate.core.hosting import Sized
from headgate.core.nodes.actions import Cordon, Evict, Mark, Uncordon, Unmark
from headgate.core.nodes.model import Cluster, NodeInfo, PodInfo
from headgate.core.nodes.state import Phase
from headgate.core.providers import Instance, InstanceState, NodeTemplate, ProviderGroup

CPU = 4000
MINIMUM, MAXIMUM = 1, 6


class Crash(BaseException):
    """The process is gone: nothing of it catches this."""


@dataclass
class Bench:
    """A group "pool"; `turn` is one turn of the process, and of the next one where it crashed."""

    world: VirtualCluster
    settings: NodesSettings
    kept: dict[str, str] = field(default_factory=dict)
    steps: int = 0
    """Steps that were begun or done so far; each is two places to crash at."""
    crash_at: int = -1
    crashes: int = 0
    events: list[tuple[str, str, str]] = field(default_factory=list)
    touched: dict[str, set[str]] = field(default_factory=dict)
    """What was done to each node."""

    def __post_init__(self) -> None:
        self.nodes = self.start()

    def start(self) -> Nodes:
        """A new process, with what was written down."""
        nodes = Nodes(self.settings, Provider(self), Host(self), lambda: self.world.now, applies=True)
        nodes.recall({key: json.loads(text) for key, text in self.kept.items()})
        return nodes

    def step(self, what: str, do: Callable[[], Any]) -> Any:
        """`do`, unless the process ends before it; or it does right after."""
        self._may_crash(f"before {what}")
        found = do()
        self._may_crash(f"after {what}")
        return found

    def _may_crash(self, where: str) -> None:
        self.steps += 1
        if self.steps == self.crash_at:
            raise Crash(where)

    def save(self, state: Mapping[str, Any]) -> bool:
        def write() -> None:
            self.kept |= {key: json.dumps(value, allow_nan=False) for key, value in state.items()}

        self.step("save", write)
        return True

    def turn(self, seconds: float = 10.0) -> None:
        self.world.advance(self.world.now + seconds)
        try:
            self.nodes.turn((), None, lambda: True, self.save)
        except Crash:
            self.crashes += 1
            self.nodes = self.start()
            self.nodes.turn((), None, lambda: True, self.save)

    def until(self, what: str, holds: Callable[[], bool], turns: int = 400) -> None:
        for _ in range(turns):
            if holds():
                return
            self.turn()
        raise AssertionError(f"never: {what}; {self.nodes.view and self.nodes.view.plan}")

    def load(self, share: float) -> None:
        """Pods use so much of all nodes together."""
        total = sum(node.cpu for node in self.world.nodes.values())
        for name in self.world.pods:
            self.world.usage[name] = round(share * total / len(self.world.pods))

    # What the tests look at

    @property
    def target(self) -> int:
        return self.world.groups_["pool"].target

    def phase(self) -> Phase | None:
        view = self.nodes.view
        removals = view.state.removals.values() if view is not None else ()
        return next((removal.phase for removal in removals), None)

    def calm(self) -> bool:
        """Nothing is left half done."""
        marks = any(node.marked or node.unschedulable for node in self.world.nodes.values())
        return not marks and len(self.world.nodes) == self.target == len(self.world.machines)

    def check(self) -> None:
        """What must hold at any time. A Ready node whose machine was deleted was tainted and cordoned before."""
        assert self.world.breaches == []
        assert MINIMUM <= self.target <= MAXIMUM
        for name, done in self.touched.items():
            assert "delete" not in done or {"mark", "cordon"} <= done, f"{name}: {done}"


class Host:
    """NodeHost of the virtual cluster."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def observe_nodes(self, sized: Mapping[str, Sized]) -> Cluster:
        seen = self._bench.world.observe()
        return replace(seen, groups={}, demand={})

    def mark(self, node: str) -> None:
        self._touch("mark", Mark("pool", node, ""))

    def unmark(self, node: str) -> None:
        self._touch("unmark", Unmark("pool", node, ""))

    def cordon(self, node: str) -> None:
        self._touch("cordon", Cordon("pool", node, ""))

    def uncordon(self, node: str) -> None:
        self._touch("uncordon", Uncordon("pool", node, ""))

    def evict(self, pod: str, grace: float) -> None:
        self._bench.step("evict", lambda: self._bench.world.act(Evict("pool", "", pod, grace, "")))

    def serving(self, node: str) -> Sequence[str]:
        return [pod.name for pod in self._bench.world.pods.values() if pod.node == node and not pod.daemon]

    def tell(self, node: str, kind: str, reason: str, message: str) -> None:
        self._bench.events.append((node, reason, message))

    def _touch(self, what: str, action: Mark | Unmark | Cordon | Uncordon) -> None:
        def do() -> None:
            self._bench.world.act(action)
            self._bench.touched.setdefault(action.node, set()).add(what)

        self._bench.step(what, do)


class Provider:
    """NodeProvider of the virtual cluster."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._world = bench.world

    def groups(self) -> Sequence[ProviderGroup]:
        return self._world.groups()

    def instances(self, group: str) -> Sequence[Instance]:
        return self._world.instances(group)

    def template(self, group: str) -> NodeTemplate | None:
        return self._world.template(group)

    def increase(self, group: str, count: int, *, seen: int) -> None:
        self._bench.step("increase", lambda: self._world.increase(group, count, seen=seen))

    def delete(self, group: str, instances: Sequence[str]) -> None:
        for name in instances:
            machine, node = self._world.machines.get(name), self._world.nodes.get(name)
            if node is not None and node.ready and machine is not None and machine.state is not InstanceState.DELETING:
                self._bench.touched.setdefault(name, set()).add("delete")
        self._bench.step("delete", lambda: self._world.delete(group, instances))

    def cancel_pending(self, group: str, count: int, *, seen: int) -> int:
        return int(self._bench.step("cancel", lambda: self._world.cancel_pending(group, count, seen=seen)))


def bench(size: int, pods_each: int = 2, crash_at: int = -1, **group: Any) -> Bench:
    """`size` nodes of 4 CPUs with pods of 500m, a group in a hurry."""
    hurry = {"up_after": 20, "down_after": 20, "window": 40, "delay_after_add": 20, "delay_after_failure": 20}
    patience = {"provisioning_timeout": 200, "backoff": 60, "backoff_most": 60, "budgets": [{"nodes": 1}]}
    settings = NodesSettings.model_validate(
        {
            "mode": "apply",
            "interval": 1,
            "soak": 10,
            "provider": {"kind": "virtual"},
            "groups": [
                {"name": "pool", "minimum": MINIMUM, "maximum": MAXIMUM, "signals": ["usage"], **hurry, **patience}
                | group
            ],
        }
    )
    world = VirtualCluster({"pool": VirtualGroup("pool", NodeTemplate(CPU), MINIMUM, MAXIMUM)})
    for index in range(size):
        world.add_node(NodeInfo(f"n{index}", CPU, "pool"))
        for number in range(pods_each):
            world.pods[f"ns/p{index}-{number}"] = PodInfo(f"ns/p{index}-{number}", 500, f"n{index}")
    return Bench(world, settings, crash_at=crash_at)
