"""One node decision at scale: 1,000 nodes, 30,000 pods. `python benchmarks/nodes.py [NODES] [PODS_PER_NODE]`

Three decisions: nothing to do; a low that has lasted, so that victims are chosen and their drains simulated; and one
with 3,000 pods that wait for nodes. Prints the median time of each and the process's peak memory.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time

from headgate.core.nodes.actions import Increase
from headgate.core.nodes.model import Cluster, GroupView, NodeInfo, PodDisruptionBudget, PodInfo
from headgate.core.nodes.plan import plan_nodes
from headgate.core.nodes.settings import GroupSettings, NodeSettings
from headgate.core.nodes.state import GroupState, Peak, State
from headgate.core.providers import Instance, InstanceState, NodeTemplate, ProviderGroup

CPU, MEMORY = 16_000, 64 * 2**30
NOW = 10_000.0


def cluster(nodes: int, pods_each: int, pending: int = 0, usage: int = 4000) -> Cluster:
    labels = [{"app": f"app-{number}"} for number in range(50)]

    def pod(index: int, number: int, node: str | None) -> PodInfo:
        cpu = 100 + 25 * ((index * 7 + number * 13) % 8)
        app = labels[(index + number) % 50]
        return PodInfo(f"ns-{number % 10}/p-{index}-{number}", cpu, node, memory=2**28, labels=app)

    members = tuple(
        NodeInfo(
            name=f"n{index}",
            cpu=CPU,
            group="pool",
            instance=f"i{index}",
            memory=MEMORY,
            usage=usage,
            usage_time=NOW,
            pods=tuple(pod(index, number, f"n{index}") for number in range(pods_each)),
        )
        for index in range(nodes)
    )
    machines = tuple(Instance(f"i{index}", InstanceState.RUNNING, f"n{index}") for index in range(nodes))
    view = GroupView(ProviderGroup("pool", nodes, 0, 2 * nodes), machines, NodeTemplate(CPU, MEMORY))
    budgets = tuple(PodDisruptionBudget(f"b{i}", f"ns-{i % 10}", labels[i], 2) for i in range(50))
    waiting = tuple(
        PodInfo(f"ns-0/w-{number}", 4000 + 10 * (number % 50), None, memory=2**30) for number in range(pending)
    )
    return Cluster(NOW, members, {"pool": view}, pending=waiting, disruption=budgets)


def run(nodes: int = 1000, pods_each: int = 30, repeat: int = 5) -> dict[str, float]:
    settings = NodeSettings((GroupSettings("pool", maximum=2 * nodes),))
    low = GroupState(below_since=NOW - 1000, peaks=(Peak(NOW - 500, 4000 * nodes),))
    cases = {
        "keep": (cluster(nodes, pods_each, usage=10_000), State()),
        "remove": (cluster(nodes, pods_each), State({"pool": low})),
        "pending": (cluster(nodes, pods_each, 3 * nodes, usage=10_000), State()),
    }
    result: dict[str, float] = {"nodes": nodes, "pods": nodes * pods_each}
    for name, (seen, state) in cases.items():
        times = []
        for _ in range(repeat):
            fresh = Cluster(
                seen.time,
                tuple(NodeInfo(**{f: getattr(n, f) for f in NodeInfo.__dataclass_fields__}) for n in seen.nodes),
                seen.groups,
                seen.pending,
                seen.disruption,
            )  # nothing cached from the run before
            start = time.perf_counter()
            after, plan = plan_nodes(settings, fresh, state, NOW)
            times.append(time.perf_counter() - start)
        result[f"{name}_seconds"] = round(statistics.median(times), 4)
        if name == "remove":
            result["marked"] = len(after.removals)
        if name == "pending":
            result["added"] = sum(a.count for a in plan.actions if isinstance(a, Increase))
    result["peak_rss_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return result


if __name__ == "__main__":
    print(json.dumps(run(*(int(argument) for argument in sys.argv[1:3])), indent=2))
