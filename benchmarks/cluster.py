"""What a turn of the controller costs: 300 InferenceServices with 1,000 pods on 40 nodes, on a double of the API.

    python benchmarks/cluster.py

The double runs in a process of its own; CPU, memory and requests are those of the process that would be headgate.
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
import time
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SERVICES, PODS, NODES = 300, 1000, 40
NAMESPACES = 10


def serve(pipe: Connection) -> None:
    """The cluster: everything runs, and whatever is resized is in force by the next look."""
    sys.path.insert(0, str(ROOT))
    from tests.cluster import builders as make
    from tests.cluster.harness import Cluster, Double

    plane = Double()
    cluster = Cluster(plane)
    cluster.install()
    for index in range(NAMESPACES):
        cluster.space(f"team-{index}")
    for index in range(NODES):
        cluster.client.create("nodes", make.node(f"n{index}", cpu="32"))
    external = {"serving.kserve.io/autoscalerClass": "external"}
    for index in range(SERVICES):
        space = f"team-{index % NAMESPACES}"
        body = make.inference_service(f"s{index}", space, make.guaranteed("500m"), annotations=external)
        cluster.client.create("inferenceservices", body)
    for index in range(PODS):
        service = index % SERVICES
        labels = {"serving.kserve.io/inferenceservice": f"s{service}", "component": "predictor"}
        main = make.container("kserve-container", make.guaranteed("500m"))
        side = make.container("queue-proxy", make.resources("25m", "25m", "64Mi", "64Mi"))
        body = make.pod(
            f"s{service}-predictor-{index}",
            main,
            side,
            namespace=f"team-{service % NAMESPACES}",
            node=f"n{index % NODES}",
            labels=labels,
        )
        cluster.client.create("pods", body)
    cluster.kubelets.step(1)
    pipe.send(cluster.kubeconfig())
    while pipe.recv() == "step":
        for _ in range(3):
            cluster.kubelets.step(1)
        pipe.send("done")
    cluster.close()
    plane.close()


def main() -> None:
    here, there = multiprocessing.Pipe()
    other = multiprocessing.get_context("spawn").Process(target=serve, args=(there,))
    other.start()
    try:
        measure(here)
    finally:
        here.send("stop")
        other.join()


def measure(pipe: Connection) -> None:
    from kubernetes import client, config

    from headgate.adapters.kserve.adapter import KserveAdapter
    from headgate.adapters.kserve.settings import KserveSettings
    from headgate.adapters.kubernetes.api import Api, Rate
    from headgate.core.budgets import BudgetSpec, CPUBudget
    from headgate.core.decision import Config, State, decide
    from headgate.core.hosting import Order
    from headgate.core.model import Budget, Observation, Sample

    settings = client.Configuration()
    config.load_kube_config_from_dict(pipe.recv(), client_configuration=settings)
    chosen = KserveSettings()
    api = Api(client.ApiClient(settings), 30, Rate(chosen.rate, int(2 * chosen.rate)))
    host = KserveAdapter(api, chosen)
    rules = [{"selector": {}, "namespaces": ["*"], "floor": "50m"}]
    spec = BudgetSpec.model_validate({"total": "600", "pipelines": rules, "mode": "Apply"})
    budget = CPUBudget("all", "team-0", spec)
    state, now = State(), 1_800_000_000.0
    counted: Counter[tuple[str, str]] = Counter()
    print(f"{SERVICES} services, {PODS} pods, {NODES} nodes; at most {chosen.requests} resizes in a call")
    print(
        f"{'turn':>4}  {'observe':>8} {'decide':>8} {'apply':>8} {'CPU':>8}  {'reads':>5} {'writes':>6} pending  over"
    )
    for turn in range(1, 13):
        began = time.process_time()
        seen = host.observe([budget])[budget.key]
        observed = time.process_time()
        found = Config(seen.pipelines, Budget(seen.total, 0, (), seen.nodes), "proportional")
        # Every tenth service has ten times the load of the others, another tenth of them after turn 6.
        busy = 0 if turn <= 6 else 5
        samples = {
            p.name: Sample(
                p.name, now, 60, arrivals=600.0, completions=600.0, cpu_seconds=60.0 * (1 + 9 * (i % 10 == busy))
            )
            for i, p in enumerate(seen.pipelines)
        }
        state, decision = decide(state, Observation(samples, seen.granted), found, now)
        decided = time.process_time()
        order = Order(budget, seen.total, decision.allocation.grants, decision.allocation.replicas)
        applied = host.apply([order], lambda: True, dry_run=turn == 1)[budget.key]
        ended = time.process_time()
        made = Counter(host.requests()) - counted
        counted = Counter(host.requests())
        writes = sum(n for (verb, _), n in made.items() if verb == "PATCH")
        over = max(0, sum(applied.granted.values()) - seen.total)
        print(
            f"{turn:>4}  {observed - began:7.2f}s {decided - observed:7.2f}s {ended - decided:7.2f}s"
            f" {ended - began:7.2f}s  {sum(made.values()) - writes:>5} {writes:>6} {len(applied.pending):>7} {over:>5}"
        )
        pipe.send("step")
        pipe.recv()
        now += 15
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    failed: dict[Any, int] = {key: n for key, n in counted.items() if key[1] != "200"}
    print(
        f"peak memory {memory:.0f} MiB; {sum(counted.values())} requests,"
        f" answered otherwise than 200: {failed or 'none'}"
    )


if __name__ == "__main__":
    main()
