"""What a turn of the controller costs: 300 InferenceServices with 1,000 pods on 40 nodes, on a double of the API.

    python benchmarks/cluster.py [--slo] [--intervals 12] [--parts]

`headgate run --apply` as a process of its own, every 10 s, and kubelets that put every resize in force a second after
it was accepted; the load moves to other services in the middle. CPU, memory and requests are those of that process, of
an interval each: the turn, the looks at what is under way between two turns, lease, state and status. `--parts` shows
instead what of a turn observing, deciding and applying cost. The double runs in another process.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
SERVICES, PODS, NODES = 300, 1000, 40
NAMESPACES = 10
TOTAL = 600
"""CPUs; all pods together begin with 500."""
INTERVAL = 10.0


def serve(pipe: Connection, parts: bool, slo: bool) -> None:
    """The cluster: everything runs, and whatever is resized is in force by the next look."""
    sys.path.insert(0, str(ROOT))
    from tests.cluster import builders as make
    from tests.cluster.harness import Cluster, Double
    from tests.cluster.recorder import committed

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
    cluster.space("headgate")
    rules = [{"selector": {}, "namespaces": ["*"], "floor": "50m", **({"slo": {"latency": "500ms"}} if slo else {})}]
    budget = {
        "apiVersion": "headgate.dev/v1alpha1",
        "kind": "CPUBudget",
        "metadata": {"name": "all", "namespace": "headgate"},
        "spec": {"total": str(TOTAL), "mode": "Apply", "pipelines": rules},
    }
    cluster.client.create("cpubudgets", budget)
    cluster.kubelets.step(1)
    pipe.send(cluster.kubeconfig())
    most, last = 0, time.monotonic()
    while True:
        asked = pipe.recv() if parts or pipe.poll(0.5) else "step"
        if asked == "stop":
            break
        for _ in range(3 if parts else 1):
            now = time.monotonic()
            cluster.kubelets.step(1 if parts else now - last)
            last = now
        most = max(most, sum(committed(pod, ("kserve-container",)) for pod in cluster.pods()))
        if parts or asked == "tell":
            pipe.send(most)
    cluster.close()
    plane.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", action="store_true", help="the adapter and the decision, in this process")
    parser.add_argument("--slo", action="store_true", help="divide by SLO rather than in proportion to the load")
    parser.add_argument("--intervals", type=int, default=12)
    chosen = parser.parse_args()
    here, there = multiprocessing.Pipe()
    other = multiprocessing.get_context("spawn").Process(target=serve, args=(there, chosen.parts, chosen.slo))
    other.start()
    print(f"{SERVICES} services, {PODS} pods, {NODES} nodes, {TOTAL} CPUs", flush=True)
    try:
        if chosen.parts:
            measure(here, chosen.intervals, chosen.slo)
        else:
            with tempfile.TemporaryDirectory() as folder:
                run(here, chosen.intervals, Path(folder))
    finally:
        here.send("stop")
        other.join()


class Process:
    """`headgate run --apply`, its load, and what it has used."""

    def __init__(self, kubeconfig: Any, folder: Path) -> None:
        (folder / "kubeconfig").write_text(json.dumps(kubeconfig))
        access = {"kubeconfig": "kubeconfig"}
        settings = {
            "interval": f"{INTERVAL}s",
            "listen": "127.0.0.1:0",
            "host": {"kind": "kserve", **access},
            "home": {"kind": "kubernetes", "namespace": "headgate", **access},
            "sources": [{"kind": "file", "path": "samples.json", "every": "5s"}],
        }
        (folder / "run.yaml").write_text(yaml.safe_dump(settings))
        self._samples = folder / "samples.json"
        self.busy = 0
        """Every tenth service, counted from this one, has ten times the load of the others."""
        self._stop = threading.Event()
        self._write()
        self._load = threading.Thread(target=self._keep, daemon=True)
        self._load.start()
        command = [sys.executable, "-m", "headgate", "run", "run.yaml", "--apply"]
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self._process.stdout is not None
        self._url = self._process.stdout.readline().split()[-1]

    def used(self) -> tuple[float, int]:
        """CPU seconds so far, and MiB of memory at the most."""
        at = Path("/proc", str(self._process.pid))
        fields = (at / "stat").read_text().rpartition(")")[2].split()
        status = dict(line.split(":", 1) for line in (at / "status").read_text().splitlines())
        ticks = int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK"), int(status["VmHWM"].split()[0]) // 1024

    def counters(self) -> Counter[str]:
        """Its metrics of these names, by name, for requests also by verb and code."""
        with urllib.request.urlopen(f"{self._url}/metrics", timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        found: Counter[str] = Counter()
        for line in lines:
            name, _, value = line.rpartition(" ")
            if name.startswith("headgate_api_requests_total{"):
                labels = dict(part.split("=") for part in name.partition("{")[2].rstrip("}").split(","))
                verb, code = labels["verb"].strip('"'), labels["code"].strip('"')
                found["reads" if verb == "GET" else "writes"] += int(float(value))
                # 404: no pause switch, or a kind that is not installed.
                found["errors"] += 0 if code in ("200", "201", "404") else int(float(value))
            elif name.partition("{")[0] in ("headgate_turns_total", "headgate_moves_total", "headgate_pending_changes"):
                found[name.partition("{")[0]] += int(float(value))
        return found

    def close(self) -> None:
        self._stop.set()
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(60)
        self._load.join()

    def _keep(self) -> None:
        while not self._stop.wait(2):
            self._write()

    def _write(self) -> None:
        rows = []
        for index in range(SERVICES):
            busy = 10 if index % 10 == self.busy else 1
            row = {"pipeline": f"team-{index % NAMESPACES}/s{index}", "window": 60, "cpu_seconds": 60.0 * busy}
            rows.append({**row, "arrivals": 600 * busy, "completions": 600 * busy})
        fresh = self._samples.with_suffix(".new")
        fresh.write_text(json.dumps(rows))
        fresh.replace(self._samples)


def run(pipe: Connection, intervals: int, folder: Path) -> None:
    """Print what each interval cost the process."""
    process = Process(pipe.recv(), folder)
    print("interval turns     CPU  reads writes  moves pending errors", flush=True)
    before, spent = process.counters(), process.used()[0]
    most = 0.0
    try:
        for interval in range(1, intervals + 1):
            process.busy = 0 if interval <= intervals // 2 else 5
            time.sleep(INTERVAL)
            after, now = process.counters(), process.used()[0]
            made = Counter({name: after[name] - before[name] for name in after})
            turns, moves = made["headgate_turns_total"], made["headgate_moves_total"]
            print(
                f"{interval:>8} {turns:>5} {now - spent:6.2f}s {made['reads']:>6} {made['writes']:>6} {moves:>6}"
                f" {after['headgate_pending_changes']:>7} {made['errors']:>6}",
                flush=True,
            )
            most, before, spent = max(most, now - spent), after, now
        print(f"at most {most:.2f} s of CPU in an interval of {INTERVAL:g} s; peak memory {process.used()[1]} MiB")
        pipe.send("tell")
        print(f"most that all pods had taken at a look: {pipe.recv() / 1000:g} of {TOTAL} CPUs")
    finally:
        process.close()


def measure(pipe: Connection, turns: int, slo: bool) -> None:
    """Print what each part of a turn costs."""
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
    rules = [{"selector": {}, "namespaces": ["*"], "floor": "50m", **({"slo": {"latency": "500ms"}} if slo else {})}]
    spec = BudgetSpec.model_validate({"total": str(TOTAL), "pipelines": rules, "mode": "Apply"})
    budget = CPUBudget("all", "team-0", spec)
    state, now = State(), 1_800_000_000.0
    counted: Counter[tuple[str, str]] = Counter()
    print(f"at most {chosen.requests} resizes in a call")
    print(
        f"{'turn':>4}  {'observe':>8} {'decide':>8} {'apply':>8} {'CPU':>8}  {'reads':>5} {'writes':>6} pending  over"
    )
    for turn in range(1, turns + 1):
        began = time.process_time()
        seen = host.observe([budget])[budget.key]
        observed = time.process_time()
        found = Config(seen.pipelines, Budget(seen.total, 0, (), seen.nodes), "slo" if slo else "proportional")
        # Every tenth service has ten times the load of the others, another tenth of them in the second half.
        busy = 0 if turn <= turns // 2 else 5
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
