"""What others' documented rules do with the same load: replicas of one size by an HPA, nodes by their requests.

A replica asks for `unit` CPUs and uses no more. The HPA (documented defaults: tolerance 0.1, the highest recommendation
of the last 5 minutes when going down) aims at 70 % of the requests. The scheduler packs replicas onto the fullest node.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from headgate.controller.nodes.fluid import Figures, Floats, Queues, Record
from headgate.controller.nodes.simulate import TICK, Setting

HPA_TARGET, HPA_TOLERANCE, HPA_WINDOW = 0.7, 0.1, 300.0


@dataclass
class Machine:
    """A node of replicas."""

    ready_at: float
    replicas: list[int]
    """By pipeline."""
    unneeded_since: float | None = None
    tainted_at: float | None = None

    @property
    def used(self) -> int:
        """Replicas on it."""
        return sum(self.replicas)


@dataclass
class World:
    """Machines and the replicas that wait for one."""

    setting: Setting
    slots: int
    """Replicas that a node holds."""
    machines: list[Machine]
    pending: list[int]
    added: float = -1e9
    additions: int = 0
    removals: int = 0

    def ready(self, now: float) -> list[Machine]:
        """Nodes that have joined."""
        return [m for m in self.machines if m.ready_at <= now]

    def room(self, now: float) -> list[Machine]:
        """Nodes that take replicas, the fullest first."""
        free = [m for m in self.ready(now) if m.tainted_at is None and m.used < self.slots]
        return sorted(free, key=lambda m: -m.used)

    def schedule(self, now: float) -> None:
        """Bind what waits."""
        for machine in self.room(now):
            for index, count in enumerate(self.pending):
                take = min(count, self.slots - machine.used)
                machine.replicas[index] += take
                self.pending[index] -= take

    def add(self, count: int, now: float) -> None:
        """Ask for machines, up to the group's maximum."""
        most = self.setting.settings.groups[0].maximum - len(self.machines)
        for _ in range(min(count, most)):
            self.machines.append(Machine(now + self.setting.provision, [0] * len(self.pending)))
            self.additions += 1
            self.added = now

    def remove(self, machine: Machine) -> None:
        """Delete a machine; its replicas wait for another."""
        self.machines.remove(machine)
        self.pending = [p + r for p, r in zip(self.pending, machine.replicas, strict=True)]
        self.removals += 1


Rule = Callable[[World, float], None]


def cluster_autoscaler(world: World, now: float) -> None:
    """Cluster Autoscaler's defaults: nodes for pending pods at each scan; a node whose requests stay below 50 % for 10
    minutes goes when its pods fit elsewhere, one at a time unless empty, and not within 10 minutes of an addition.
    """
    coming = sum(m.ready_at > now for m in world.machines) * world.slots
    missing = sum(world.pending) - coming
    if missing > 0:
        world.add(math.ceil(missing / world.slots), now)
    ready = world.ready(now)
    for machine in ready:
        free = sum(world.slots - m.used for m in ready if m is not machine)
        unneeded = machine.used < 0.5 * world.slots and machine.used <= free
        machine.unneeded_since = (
            (machine.unneeded_since if machine.unneeded_since is not None else now) if unneeded else None
        )
    if now - world.added < 600:
        return
    drained = False
    for machine in sorted(ready, key=lambda m: m.used):
        if machine.unneeded_since is None or now - machine.unneeded_since < 600:
            continue
        if len(world.machines) <= world.setting.settings.groups[0].minimum or (drained and machine.used):
            break
        free = sum(world.slots - m.used for m in world.ready(now) if m is not machine)
        if machine.used <= free:
            drained = drained or bool(machine.used)
            world.remove(machine)


def escalator(world: World, now: float) -> None:
    """Escalator's documented example: above 70 % of the requests, pending ones included, add ceil(nodes * (used - 70) /
    70); below 40 % taint 2 nodes a scan, below 10 % 5, the oldest; a tainted one goes when it is empty for 5 minutes or
    after 15 in any case; nothing is evicted and no scan is waited for.
    """
    coming = sum(m.ready_at > now for m in world.machines)
    open_ = [m for m in world.ready(now) if m.tainted_at is None]
    slots = max(1, len(open_) * world.slots)
    share = 100 * (sum(m.used for m in open_) + sum(world.pending)) / slots
    minimum = world.setting.settings.groups[0].minimum
    if share > 70 and not coming:
        count = math.ceil(max(1, len(open_)) * (share - 70) / 70)
        for machine in [m for m in world.machines if m.tainted_at is not None][:count]:
            machine.tainted_at = None
            count -= 1
        world.add(count, now)
    elif share < 40 and not coming:
        rate = 5 if share < 10 else 2
        for machine in open_[: max(0, min(rate, len(open_) - minimum))]:
            machine.tainted_at = now
    for machine in [m for m in world.machines if m.tainted_at is not None]:
        since = now - (machine.tainted_at or now)
        if len(world.machines) > minimum and ((since >= 300 and not machine.used) or since >= 900):
            world.remove(machine)


RULES: dict[str, Rule] = {"cluster-autoscaler": cluster_autoscaler, "escalator": escalator}


@dataclass
class Hpa:
    """Replicas of each pipeline from its use of them."""

    history: list[tuple[float, list[int]]] = field(default_factory=list)

    def want(self, used: Floats, running: list[int], unit: float, now: float) -> list[int]:
        """Replicas that it asks for; `used` in CPUs."""
        wanted = []
        for use, count in zip(used, running, strict=True):
            ratio = use / (max(1, count) * unit * HPA_TARGET)
            wanted.append(max(1, count if abs(ratio - 1) <= HPA_TOLERANCE else math.ceil(max(1, count) * ratio)))
        self.history = [(t, w) for t, w in self.history if now - t <= HPA_WINDOW] + [(now, wanted)]
        return [max(w[i] for _, w in self.history) for i in range(len(wanted))]


def rival(name: str, setting: Setting) -> tuple[Figures, Record]:
    """Replay the load under a rule of RULES."""
    rule, pipelines = RULES[name], len(setting.trace.pipelines)
    unit, slots = setting.unit / 1000, max(1, setting.template.cpu // setting.unit)
    machines = [Machine(0.0, [0] * pipelines) for _ in range(setting.start)]
    world, hpa = World(setting, slots, machines, [1] * pipelines), Hpa()
    queues, record = Queues(setting.slo, setting.bound, np.zeros(pipelines)), Record(name)
    for now, load in setting.loads():
        world.schedule(now)
        running = [sum(m.replicas[i] for m in world.ready(now)) for i in range(pipelines)]
        late = float(queues.late.sum())
        used = queues.step(load, np.array(running) * unit, TICK) / TICK
        _resize(world, hpa.want(used, running, unit, now), running)
        world.schedule(now)  # nodes are for what fits on none of those that are there
        rule(world, now)
        ready = len(world.ready(now))
        record.note(
            now,
            len(world.machines),
            ready,
            ready * setting.template.cpu / 1000,
            float(load.sum()),
            float(queues.late.sum()) - late,
        )
    record.additions, record.removals = world.additions, world.removals
    return record.figures(queues, TICK), record


def _resize(world: World, wanted: list[int], running: list[int]) -> None:
    """Replicas as wanted: new ones wait for a node, surplus ones leave the emptiest."""
    for index, (want, have) in enumerate(zip(wanted, running, strict=True)):
        world.pending[index] = max(0, want - have)
        surplus = max(0, have - want)
        for machine in sorted(world.machines, key=lambda m: m.used):
            take = min(surplus, machine.replicas[index])
            machine.replicas[index] -= take
            surplus -= take
