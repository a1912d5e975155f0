"""How long one division of the budget takes: every policy, four sizes, and two general solvers on the same instances.

    python benchmarks/allocation.py                              # all of it, some minutes
    python benchmarks/allocation.py --quick                      # without the largest size, shorter limits
    python benchmarks/allocation.py --report docs/benchmarks.md  # the tables, and the plot beside them

Each size and policy runs in a process of its own, so that its peak memory is its own. Two times are measured:
`columns`, the decision alone on arrays, and `allocate`, the whole way from Pipeline and Demand objects to an
Allocation. Medians, and the fastest, of the runs after one that warms up. The solvers are in benchmarks/solvers.py.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from headgate.core.allocation import allocate, pose_columns, solve
from headgate.core.limits import columns
from headgate.core.model import Budget, Demand, Pipeline, Slo
from headgate.core.policies import POLICIES
from headgate.core.problem import Wants

SIZES = ((100, 400), (1_000, 10_000), (10_000, 100_000), (100_000, 1_000_000))
TARGETS = {100: 1e-3, 1_000: 10e-3, 10_000: 150e-3, 100_000: 3.0}
"""Seconds for each number of pipelines."""
MEMORY = 2.0
"""GB at the largest size."""
UTILISATION = 0.8
"""Offered load of all pipelines over the budget: enough for most of them, not for all."""

Row = dict[str, Any]


def instance(n: int, cpus: int, scenarios: int, seed: int) -> dict[str, np.ndarray]:
    """Pipelines as columns: loads spread over two orders of magnitude, services of 10 to 200 ms, SLOs of 3 to 12."""
    rng = np.random.default_rng(seed)
    service = np.exp(rng.uniform(math.log(0.01), math.log(0.2), n))
    load = rng.lognormal(0, 1, n)
    load *= UTILISATION * cpus / load.sum()
    spread = rng.lognormal(0, 0.2, (n, scenarios)) if scenarios > 1 else np.ones((n, 1))
    return {
        "arrivals": (load / service)[:, None] * spread,
        "service_time": service,
        "service_cv": rng.uniform(0.1, 1.2, n),
        "latency": service * rng.uniform(3, 12, n),
        "weight": rng.choice([1.0, 2.0, 4.0], n),
    }


def in_columns(part: dict[str, np.ndarray], cpus: int, step: int) -> tuple[Any, Wants]:
    """The instance as `core.limits.Limits` and `core.problem.Wants`."""
    n = len(part["latency"])
    limits = columns(
        cpus * 1000,
        np.zeros(n, dtype=np.int64),
        step=step,
        weight=part["weight"],
        latency=part["latency"],
        percentile=95.0,
    )
    known = np.ones(n, dtype=np.bool_)
    return limits, Wants(part["arrivals"], part["service_time"], part["service_cv"], np.zeros(n), known)


def in_objects(part: dict[str, np.ndarray], step: int) -> tuple[list[Pipeline], dict[str, Demand]]:
    """The instance as `core.model` has it."""
    latency, weight = part["latency"].tolist(), part["weight"].tolist()
    pipelines = [Pipeline(f"p{i}", step=step, weight=weight[i], slo=Slo(latency[i], 95.0)) for i in range(len(latency))]
    demands = {
        f"p{i}": Demand(tuple(rates), service, cv)
        for i, (rates, service, cv) in enumerate(
            zip(part["arrivals"].tolist(), part["service_time"].tolist(), part["service_cv"].tolist(), strict=True)
        )
    }
    return pipelines, demands


def measure(call: Callable[[], object], runs: int) -> tuple[float, float]:
    """Median and least seconds of `runs` calls after one."""
    call()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times), min(times)


def child(policy: str, n: int, cpus: int, step: int, scenarios: int, seed: int) -> Row:
    """One policy at one size, in this process."""
    part = instance(n, cpus, scenarios, seed)
    limits, wants = in_columns(part, cpus, step)
    chosen = POLICIES[policy]
    runs = 5 if n >= 10_000 else 200 if n <= 100 else 40
    decision, least = measure(lambda: solve(pose_columns(limits, wants), chosen), runs)
    # The decision alone: before the objects of the other path count as its memory.
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pipelines, demands = in_objects(part, step)
    whole, least_whole = measure(
        lambda: allocate(pipelines, demands, Budget(cpus * 1000), current={}, policy=policy), runs
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "policy": policy,
        "pipelines": n,
        "cpus": cpus,
        "scenarios": scenarios,
        "columns": decision,
        "allocate": whole,
        "least": {"columns": least, "allocate": least_whole},
        "columns_gb": memory / 2**20,
        "gb": peak / 2**20,
    }


def in_child(script: str, *arguments: object, limit: float) -> Row | None:
    """What a process of its own prints as JSON; None when it takes longer than `limit` seconds."""
    command = [sys.executable, str(Path(__file__).with_name(script)), "--child", *map(str, arguments)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return None
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    answer: Row = json.loads(done.stdout)
    return answer


def scaling(quick: bool, step: int, seed: int) -> Iterator[Row]:
    """All policies at all sizes; those by SLO also for five scenarios of the arrivals."""
    for n, cpus in SIZES[: 3 if quick else 4]:
        for policy in POLICIES:
            for scenarios in (1, 5) if policy == "slo" else (1,):
                row = in_child("allocation.py", policy, n, cpus, step, scenarios, seed, limit=600)
                if row:
                    print(line(row), flush=True)
                    yield row


def against_solvers(seed: int, limit: float) -> Iterator[Row]:
    """headgate, COBYLA and HiGHS on the same instances, each stopped after `limit` seconds."""
    for n, cpus in ((10, 40), (30, 120), (100, 400), (1_000, 10_000)):
        found = in_child("solvers.py", "headgate", n, cpus, seed, limit, limit=60)
        assert found is not None
        group = [found]
        for solver in ("COBYLA", "HiGHS"):
            other = in_child("solvers.py", solver, n, cpus, seed, limit, limit=limit + 30)
            group.append(other or {"solver": solver, "seconds": None, "note": "", "objective": 0.0, "bound": 0.0})
        best = max(*(row["objective"] for row in group if row["seconds"]), group[-1]["bound"])
        for row in group:
            row |= {"pipelines": n, "cpus": cpus, "base": found["seconds"], "limit": limit}
            row["share"] = row["objective"] / best
            taken = f"{seconds(row['seconds'])}, {row['share']:.4%} {row['note']}" if row["seconds"] else "stopped"
            print(f"{row['solver']:>14} {n:>8,} x {cpus:>9,} CPUs: {taken}", flush=True)
            yield row


def line(row: Row) -> str:
    return (
        f"{row['policy']:>14} x{row['scenarios']} {row['pipelines']:>8,} x {row['cpus']:>9,} CPUs: "
        f"columns {both(row, 'columns')}, allocate {both(row, 'allocate')}, "
        f"peak {row['columns_gb']:.2f} and {row['gb']:.2f} GB"
    )


def both(row: Row, key: str) -> str:
    return f"{seconds(row[key])} ({seconds(row['least'][key])})"


def seconds(value: float) -> str:
    return f"{value * 1e3:.3g} ms" if value < 1 else f"{value:.3g} s"


def exponent(rows: list[Row], key: str) -> float:
    """By how much time grows against n log n between the two largest sizes: 1 is as n log n."""
    last, first = rows[-1], rows[-2]
    work = [row["pipelines"] * math.log(row["pipelines"]) for row in (first, last)]
    return math.log(last["least"][key] / first["least"][key]) / math.log(work[1] / work[0])


def report(rows: list[Row], rivals: list[Row], command: str, load: str) -> str:
    """Tables in Markdown."""
    text = [
        "# Benchmarks: dividing the budget",
        "",
        f"`{command}` on {time.strftime('%Y-%m-%d')}, {machine()}.",
        "Medians, and in brackets the fastest run: far apart where other work ran on the machine, whose load average",
        f"was {load} at the end (this benchmark alone makes 1).",
        "",
        f"The instances are drawn at random with a fixed seed; the offered load is {UTILISATION:.0%} of the budget.",
        "`columns`: the decision on arrays. `allocate`: the whole way from pipelines and demands to grants by name.",
        "xN: N scenarios of the arrivals. Memory: the process's peak, interpreter and instance included.",
        "",
        "| policy | pipelines x CPUs | columns | allocate | wanted | peak memory (columns / allocate) |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        several = f" x{row['scenarios']}" if row["scenarios"] > 1 else ""
        text.append(
            f"| {row['policy']}{several} | {row['pipelines']:,} x {row['cpus']:,} | {both(row, 'columns')} | "
            f"{both(row, 'allocate')} | {seconds(TARGETS[row['pipelines']])} | "
            f"{row['columns_gb']:.2f} / {row['gb']:.2f} GB |"
        )
    text += ["", "Growth of the fastest between the two largest sizes, as an exponent of n log n (1: as n log n):", ""]
    for name, some in by_policy(rows).items():
        if len(some) > 1:
            text.append(f"- {name}: columns {exponent(some, 'columns'):.2f}, allocate {exponent(some, 'allocate'):.2f}")
    text += ["", "![time against n log n](benchmarks.svg)", *(solver_tables(rivals) if rivals else ())]
    return "\n".join(text) + "\n"


def solver_tables(rivals: list[Row]) -> list[str]:
    text = [
        "",
        "## Against general solvers",
        "",
        "Grants in whole CPUs, as Faro's replicas are, at least one each. COBYLA: `scipy.optimize.minimize` on Faro's",
        "relaxed M/D/c utilities, rounded to whole CPUs; HiGHS: `scipy.optimize.milp` on the exact problem, its table",
        "of utilities included (both as in benchmarks/solvers.py). Objective: weighted sum of expected utilities of",
        "`slo`, the same function for all, as a share of the largest known (HiGHS's own bound, where it finished).",
        "",
        "| pipelines x CPUs | solver | time | x headgate's | objective | note |",
        "|---|---|---|---|---|---|",
    ]
    for row in rivals:
        size = f"{row['pipelines']:,} x {row['cpus']:,}"
        if row["seconds"] is None:
            ratio = row["limit"] / row["base"]
            text.append(f"| {size} | {row['solver']} | > {row['limit']:g} s | > {ratio:,.0f} | | stopped |")
        else:
            text.append(
                f"| {size} | {row['solver']} | {seconds(row['seconds'])} | {row['seconds'] / row['base']:,.1f} | "
                f"{row['share']:.4%} | {row['note']} |"
            )
    return text


def by_policy(rows: list[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        name = row["policy"] + (f" x{row['scenarios']}" if row["scenarios"] > 1 else "")
        found.setdefault(name, []).append(row)
    return found


def plot(rows: list[Row], path: Path) -> None:
    """Fastest times against the number of pipelines, log-log, with n log n through the largest."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    for axes, key in zip(figure.subplots(1, 2, sharey=True), ("columns", "allocate"), strict=True):
        for name, some in by_policy(rows).items():
            axes.loglog([r["pipelines"] for r in some], [r["least"][key] for r in some], "o-", label=name)
        n = np.geomspace(rows[0]["pipelines"], rows[-1]["pipelines"], 50)
        top = max(rows, key=lambda row: row["least"][key])
        scale = top["least"][key] / (top["pipelines"] * math.log(top["pipelines"]))
        axes.loglog(n, n * np.log(n) * scale, "k:", label="n log n")
        axes.loglog(list(TARGETS), list(TARGETS.values()), "kx", label="wanted")
        axes.set(title=key, xlabel="pipelines")
        axes.grid(visible=True, which="both", alpha=0.2)
    axes.legend(fontsize="small")
    figure.supylabel("seconds")
    figure.savefig(path, metadata={"Date": None})


def machine() -> str:
    model = platform.machine()
    for entry in Path("/proc/cpuinfo").read_text().splitlines():
        if entry.startswith("model name"):
            model = entry.partition(":")[2].strip()
            break
    return (
        f"{len(os.sched_getaffinity(0))} cores of {model}, Python {platform.python_version()}, numpy {np.__version__}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="without the largest size, shorter limits")
    parser.add_argument("--report", type=Path, metavar="FILE.md", help="write the tables here and the plot beside it")
    parser.add_argument("--step", type=int, default=10, help="millicores of a step at the four sizes (10)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--limit", type=float, default=60, help="seconds that a solver may take (60)")
    parser.add_argument("--child", nargs=6, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        policy, *numbers = options.child
        print(json.dumps(child(policy, *map(int, numbers))))
        return
    rows = list(scaling(options.quick, options.step, options.seed))
    limit = min(options.limit, 10) if options.quick else options.limit
    rivals = list(against_solvers(options.seed, limit)) if "slo" in POLICIES else []
    if options.report:
        command = f"python benchmarks/allocation.py{' --quick' if options.quick else ''} --limit {options.limit:g}"
        command += f" --report {options.report}"
        options.report.parent.mkdir(exist_ok=True)
        options.report.write_text(report(rows, rivals, command, f"{os.getloadavg()[1]:.1f}"))
        plot(rows, options.report.with_suffix(".svg"))


if __name__ == "__main__":
    main()
