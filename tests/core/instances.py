"""Random instances for the allocation tests, and the limits checked from first principles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from hypothesis import strategies as st

from headgate.core.model import Budget, Demand, Demands, Group, Node, Pipeline, Replica, Slo, Unknown


@dataclass(frozen=True)
class Instance:
    pipelines: tuple[Pipeline, ...]
    demands: Demands
    budget: Budget
    current: Mapping[str, int]


@st.composite
def instances(
    draw: st.DrawFn,
    *,
    most: int = 6,
    unit: int = 1,
    groups: bool = True,
    nodes: bool = True,
    unknown: bool = True,
    priorities: bool = True,
    same_step: bool = False,
) -> Instance:
    """Feasible ones: the floors are lowered until they fit. `unit`: every amount is a multiple of this."""
    count = draw(st.integers(1, most))
    names = [f"p{i}" for i in range(count)]
    total = draw(st.integers(0, 40)) * max(unit, 100)
    made_groups = []
    for i in range(draw(st.integers(0, 3)) if groups else 0):
        parent = draw(st.sampled_from([None, *(g.name for g in made_groups)]))
        made_groups.append(Group(f"g{i}", draw(st.integers(0, 25)) * max(unit, 100), parent))
    made_nodes = [
        Node(f"n{i}", draw(st.integers(0, 20)) * max(unit, 100)) for i in range(draw(st.integers(0, 4)) if nodes else 0)
    ]
    pipelines, demands, current = [], {}, {}
    common = draw(st.sampled_from([unit, 10 * unit])) if same_step else 0
    for name in names:
        step = common or draw(st.sampled_from([1, 10, 100, 250])) * unit
        floor = draw(st.integers(0, 8)) * step
        ceiling = draw(st.none() | st.integers(0, 30).map(lambda k, s=step, f=floor: f + k * s))
        replicas = ()
        if made_nodes and draw(st.booleans()):
            places = draw(st.lists(st.sampled_from([None, *(n.name for n in made_nodes)]), min_size=1, max_size=3))
            replicas = tuple(Replica(f"{name}-{k}", node) for k, node in enumerate(places))
        pipelines.append(
            Pipeline(
                name=name,
                floor=floor,
                ceiling=ceiling,
                step=step,
                weight=draw(st.sampled_from([0.5, 1.0, 1.0, 2.0, 3.0])),
                priority=draw(st.integers(0, 2)) if priorities else 0,
                slo=draw(st.none() | st.sampled_from([Slo(0.1, 95), Slo(0.5, 99)])),
                group=draw(st.sampled_from([None, *(g.name for g in made_groups)])),
                replicas=replicas,
            )
        )
        if unknown and draw(st.integers(0, 5)) == 0:
            demands[name] = Unknown("no sample yet")
        else:
            rate = draw(st.sampled_from([0.0, 1.0, 5.0, 20.0]) | st.floats(0, 100))
            demands[name] = Demand(
                (rate,), draw(st.sampled_from([0.01, 0.05, 0.2])), draw(st.sampled_from([0, 0.5, 1]))
            )
        if draw(st.booleans()):
            current[name] = draw(st.integers(0, 40)) * step
    instance = Instance(tuple(pipelines), demands, Budget(total, 0, tuple(made_groups), tuple(made_nodes)), current)
    while not feasible(instance, {p.name: p.floor for p in instance.pipelines}):
        instance = replace(
            instance,
            pipelines=tuple(replace(p, floor=p.floor // 2 // p.step * p.step) for p in instance.pipelines),
        )
    return instance


def feasible(instance: Instance, grants: Mapping[str, int]) -> bool:
    """Whether budgets, groups and nodes can hold the grants: Hall's condition over every set of nodes."""
    if sum(grants.values()) > instance.budget.total - instance.budget.reserve:
        return False
    parents = {g.name: g.parent for g in instance.budget.groups}
    for group in instance.budget.groups:
        inside = 0
        for p in instance.pipelines:
            above = p.group
            while above is not None:
                inside += grants[p.name] * (above == group.name)
                above = parents[above]
        if inside > group.budget:
            return False
    nodes = instance.budget.nodes
    for subset in range(1 << len(nodes)):
        chosen = {node.name for bit, node in enumerate(nodes) if subset >> bit & 1}
        confined = sum(
            grants[p.name] for p in instance.pipelines if p.replicas and all(r.node in chosen for r in p.replicas)
        )
        if confined > sum(node.free for node in nodes if node.name in chosen):
            return False
    return True
