"""headgate in the reference setting of Faro (EuroSys'25): SLO violation % / lost utility, by day and budget.

`python benchmarks/faro.py FOLDER`, with the request traces in FOLDER; see `--help`. Days 1 to 8 are for choosing
defaults, 9 and 10 for checking them. The published figures are of an evaluation day that is not among the traces;
those of days 8 to 10 were measured with the authors' simulator. `--live` lets CPUs move at once, with decisions every
second, as headgate's own engine does. The table is Markdown.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from headgate.controller.backtest.contenders import contender
from headgate.controller.backtest.figures import Figures, average, figures
from headgate.controller.backtest.grid import Trace
from headgate.controller.backtest.service import Laws, parse_law
from headgate.controller.backtest.simulation import simulate
from headgate.controller.backtest.traces import read_trace
from headgate.controller.backtest.world import World

TRACES = Path(__file__).parents[2] / "shared" / "traces"
FILE = "ten_jobs_days1-10.csv"
LAW = "lognormal:79.3ms,68.6ms,0.4225"
EVALUATION = {
    "Faro-FairSum": {32: (3.14, 0.776), 36: (1.33, 0.368), 40: (0.85, 0.235), 44: (0.65, 0.176)},
    "Faro-FairSum, true future": {32: (2.69, 0.717), 36: (1.15, 0.346)},
    "clairvoyant that pays for its moves": {32: (1.7, 0.536), 36: (0.57, 0.178)},
    "bound: clairvoyant, free moves": {32: (0.64, 0.131), 36: (0.07, 0.012), 40: (0.03, 0.003), 44: (0.0, 0.0)},
}
"""On the evaluation day of its authors: {who: {CPUs: (SLO violation %, lost utility)}}."""
BY_DAY = {
    8: {32: (3.34, 0.766), 36: (1.34, 0.376)},
    9: {32: (1.17, 0.353), 36: (0.62, 0.174)},
    10: {32: (1.32, 0.398), 36: (0.75, 0.208)},
}
"""Faro-FairSum with a re-trained forecaster, in its authors' simulator: {day: {CPUs: ...}}."""


@dataclass(frozen=True)
class Task:
    """One simulation. Picklable, so that several may run at once."""

    folder: Path
    day: int
    jobs: int
    policy: str
    cpus: int
    seed: int
    live: bool
    law: str
    shed: bool
    arrivals: Literal["poisson", "counted"]


def jobs_of(trace: Trace, jobs: int) -> Trace:
    """The first `jobs` of the trace; beyond them the same again, each time shifted by some hours."""
    width = len(trace.pipelines)
    copies = [np.roll(trace.requests, 137 * copy, axis=0) for copy in range(-(-jobs // width))]
    names = [f"{name}{f'-{copy}' if copy else ''}" for copy in range(len(copies)) for name in trace.pipelines]
    return Trace(tuple(names[:jobs]), np.hstack(copies)[:, :jobs])


def world(task: Task) -> World:
    """The reference setting: replicas of one CPU that take 35 s to start and 30 s to go; live: CPUs move at once."""
    setting = World(Laws(parse_law(task.law), {}), task.cpus * 1000, latency=0.72, in_flight=4, router=0.0046)
    setting = replace(setting, shed=task.shed, arrivals=task.arrivals, seed=task.seed)
    return setting if task.live else replace(setting, step=1000, start=35.0, release=30.0)


def run(task: Task) -> Figures:
    trace = jobs_of(read_trace(str(task.folder / FILE), days=[task.day]), task.jobs)
    setting = world(task)
    interval, floor = (1.0, 100) if task.live else (10.0, 1000)
    found = contender(task.policy, trace, setting, interval=interval, floor=floor)
    return figures(simulate(trace, found.world, found.policy), setting)


def numbers(text: str) -> list[int]:
    """`1-3,8` is 1, 2, 3, 8."""
    spans = [part.partition("-") for part in text.split(",")]
    return [number for first, _, last in spans for number in range(int(first), int(last or first) + 1)]


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=TRACES, help=f"that holds {FILE}")
    parser.add_argument("--days", default="8-10")
    parser.add_argument("--mean", action="store_true", help="one row for all days: their mean")
    parser.add_argument("--cpus", default="32,36,40,44")
    parser.add_argument("--policies", default="slo")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--live", action="store_true")
    parser.add_argument("--service", default=LAW, help="the law of service times, as of headgate backtest")
    parser.add_argument("--jobs", type=int, default=10, help="the first so many; above ten the same again, shifted")
    parser.add_argument("--shed", action="store_true", help="refuse at once what will miss the SLO in all likelihood")
    parser.add_argument(
        "--arrivals",
        choices=["poisson", "counted"],
        default="poisson",
        help="counted: exactly a minute's requests, one after another, as Faro's load generator sends them",
    )
    parser.add_argument("--processes", type=int, default=1, help="simulations at once")
    return parser.parse_args()


def main() -> None:
    chosen = options()
    if not (chosen.folder / FILE).exists():
        sys.exit(f"{chosen.folder / FILE} is not here: it holds the request traces")
    days, budgets, policies = numbers(chosen.days), numbers(chosen.cpus), chosen.policies.split(",")
    settings = (chosen.live, chosen.service, chosen.shed, chosen.arrivals)
    tasks = [
        Task(chosen.folder, day, chosen.jobs, policy, cpus, seed, *settings)
        for day in days
        for policy in policies
        for cpus in budgets
        for seed in range(chosen.seeds)
    ]
    reference = chosen.jobs == 10 and chosen.service == LAW
    heading = "".join(f" {cpus} CPUs |" for cpus in budgets)
    print(f"| day | policy |{heading} CPUs moved | ms a decision |\n|---|---|{'---|' * (len(budgets) + 2)}")
    for who, known in EVALUATION.items() if reference else ():
        row("eval.", who, [known.get(cpus) for cpus in budgets])
    with ProcessPoolExecutor(chosen.processes) as pool:
        results = {task: pool.submit(run, task) for task in tasks}
        for some in [days] if chosen.mean else [[day] for day in days]:
            if reference and len(some) == 1 and some[0] in BY_DAY:
                row(str(some[0]), "Faro-FairSum", [BY_DAY[some[0]].get(cpus) for cpus in budgets])
            for policy in policies:
                found = [
                    average(
                        [
                            results[task].result()
                            for task in tasks
                            if (task.policy, task.cpus) == (policy, cpus) and task.day in some
                        ]
                    )
                    for cpus in budgets
                ]
                rates = [(100 * f.slo_violation_rate, f.lost_utility) for f in found]
                row(chosen.days if chosen.mean else str(some[0]), policy, rates, found)


def row(day: str, name: str, rates: Sequence[tuple[float, float] | None], found: Sequence[Figures] = ()) -> None:
    cells = "".join(f" {f'{rate[0]:.2f} / {rate[1]:.3f}' if rate else ''} |" for rate in rates)
    moved = ", ".join(f"{f.moves:.0f}" for f in found)
    median = f"{max(f.decision_median_ms for f in found):.1f}" if found else ""
    print(f"| {day} | {name} |{cells} {moved} | {median} |", flush=True)


if __name__ == "__main__":
    main()
