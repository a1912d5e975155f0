"""Whatever comes together, in whatever order, on a virtual clock: what must never happen does not, and it recovers."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from headgate.core.nodes.model import PodDisruptionBudget, PodInfo, Resize
from headgate.core.providers import InstanceState, NoCapacity, ProviderError, Refused, Unavailable

from .nodes_bench import MAXIMUM, Bench, bench

FAULTS: dict[str, ProviderError] = {
    "unavailable": Unavailable("503"),
    "no capacity": NoCapacity("no such machines"),
    "refused": Refused("forbidden"),
}
CALLS = (
    "groups",
    "instances",
    "template",
    "increase",
    "delete",
    "cancel_pending",
    "mark",
    "unmark",
    "cordon",
    "uncordon",
)


class Trouble(RuleBasedStateMachine):
    """Everything that goes wrong in a cluster, between turns ten seconds apart."""

    it: Bench

    @initialize(size=st.integers(1, 6), pods_each=st.integers(0, 2), leaving=st.integers(1, 3))
    def begin(self, size: int, pods_each: int, leaving: int) -> None:
        self.it = bench(size, pods_each, budgets=[{"nodes": leaving}])
        self.broken: dict[str, ProviderError] = {}
        self.it.world.fault = lambda call, group: self.broken.get(call)
        self.count = 0
        self.cordoned: set[str] = set()

    @rule(turns=st.integers(1, 12), share=st.sampled_from([0.0, 0.1, 0.3, 0.6, 0.9, 1.0]))
    def time_passes(self, turns: int, share: float) -> None:
        if self.it.world.pods and self.it.world.nodes:
            self.it.load(share)
        for _ in range(turns):
            self.it.turn()
            self.it.check()

    @rule(steps=st.integers(1, 6))
    def the_process_will_crash(self, steps: int) -> None:
        self.it.crash_at = self.it.steps + steps

    @rule(lost=st.booleans())
    def the_process_starts_anew(self, lost: bool) -> None:
        if lost:
            self.it.kept.clear()
        self.it.nodes = self.it.start()

    @rule(call=st.sampled_from(CALLS), fault=st.sampled_from(sorted(FAULTS)))
    def a_call_fails_from_now_on(self, call: str, fault: str) -> None:
        self.broken[call] = FAULTS[fault]

    @rule()
    def calls_succeed_again(self) -> None:
        self.broken.clear()

    @rule(seconds=st.none() | st.floats(1, 400))
    def machines_take_their_time(self, seconds: float | None) -> None:
        """None: they never join."""
        self.it.world.provision = lambda: seconds

    @rule()
    def a_machine_fails(self) -> None:
        for machine in self.it.world.machines.values():
            if machine.state is InstanceState.PENDING:
                machine.state, machine.ready_at = InstanceState.FAILED, None
                return

    @rule(there=st.booleans())
    def metrics_stop_or_return(self, there: bool) -> None:
        self.it.world.metrics = there

    @rule(index=st.integers(0, 9), ready=st.booleans())
    def a_node_is_ready_or_not(self, index: int, ready: bool) -> None:
        if names := sorted(self.it.world.nodes):
            name = names[index % len(names)]
            self.it.world.nodes[name] = replace(self.it.world.nodes[name], ready=ready)

    @rule(cpu=st.sampled_from([100, 500, 2000, 3900]), labels=st.sampled_from([{}, {"app": "a"}]))
    def a_pod_comes(self, cpu: int, labels: dict[str, str]) -> None:
        if len(self.it.world.pods) < 2 * MAXIMUM:
            self.count += 1
            name = f"ns/new{self.count}-0"
            self.it.world.pods[name] = PodInfo(name, cpu, None, created=self.it.world.now, labels=labels)

    @rule(index=st.integers(0, 9), more=st.sampled_from([500, 2000, 5000]), kind=st.sampled_from(Resize))
    def a_resize_waits(self, index: int, more: int, kind: Resize) -> None:
        if names := sorted(name for name, pod in self.it.world.pods.items() if pod.node):
            name = names[index % len(names)]
            pod = self.it.world.pods[name]
            template = pod.cpu if pod.template_cpu is None else pod.template_cpu
            self.it.world.pods[name] = replace(
                pod, cpu=pod.cpu + more, allocated=pod.cpu, resize=kind, template_cpu=template
            )

    @rule(index=st.integers(0, 9))
    def somebody_cordons_a_node(self, index: int) -> None:
        if names := sorted(name for name, node in self.it.world.nodes.items() if not node.unschedulable):
            name = names[index % len(names)]
            self.it.world.nodes[name] = replace(self.it.world.nodes[name], unschedulable=True)
            self.cordoned.add(name)

    @rule(owner=st.sampled_from([None, "Cluster Autoscaler"]))
    def somebody_else_takes_the_group_over_or_gives_it_back(self, owner: str | None) -> None:
        self.it.world.groups_["pool"].owner = owner

    @rule(allowed=st.integers(0, 2))
    def a_disruption_budget_changes(self, allowed: int) -> None:
        self.it.world.budgets = [PodDisruptionBudget("a", "ns", {"app": "a"}, allowed)]

    @invariant()
    def nothing_is_deleted_undrained_and_limits_hold(self) -> None:
        if hasattr(self, "it"):
            self.it.check()
            there = self.cordoned & self.it.world.nodes.keys()
            assert all(self.it.world.nodes[name].unschedulable for name in there)

    def teardown(self) -> None:
        """When all is well again nothing stays half done, every pod that any node could hold has one, and it rests."""
        if not hasattr(self, "it"):
            return
        it, world = self.it, self.it.world
        it.crash_at = -1
        self.broken.clear()
        world.provision, world.metrics, world.budgets = (lambda: 60.0), True, []
        world.groups_["pool"].owner = None
        for name, node in world.nodes.items():
            closed = node.unschedulable and node.cordoned_by_us
            world.nodes[name] = replace(node, ready=True, unschedulable=closed)
        if world.pods and world.nodes:
            it.load(0.1)
        it.until("rest", lambda: world.now > self._settled() and it.phase() is None and it.calm(), turns=600)
        it.check()
        assert all(pod.node for pod in world.pods.values()) or it.target == MAXIMUM
        taken = it.steps
        for _ in range(60):
            it.turn()
            it.check()
        # Each turn is written down, which is one step begun and one done.
        assert it.steps == taken + 2 * 60, it.nodes.view

    def _settled(self) -> float:
        """Nothing waits for so long: the longest timeout, and then a backoff."""
        if not hasattr(self, "_until"):
            self._until = self.it.world.now + 600
        return self._until


TestTrouble = Trouble.TestCase
TestTrouble.settings = settings(max_examples=25, stateful_step_count=25)
