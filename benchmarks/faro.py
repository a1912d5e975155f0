"""headgate in the reference setting of Faro (EuroSys'25): SLO violation % / lost utility, by day and budget.

`python benchmarks/faro.py --help`. Reads the traces that stand beside the repository in ../shared/traces: days 1 to 8
are for choosing defaults, 9 and 10 for checking them. The published figures are of an evaluation day that is not among
the traces; those of days 8 to 10 were measured with the authors' simulator. `--live` lets CPUs move at once, with
decisions every second, as headgate's own engine does.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from headgate.controller.backtest.contenders import contender
from headgate.controller.backtest.figures import Figures, average, figures
from headgate.controller.backtest.grid import Trace
from headgate.controller.backtest.service import Laws, parse_law
from headgate.controller.backtest.simulation import simulate
from headgate.controller.backtest.traces import read_trace
from headgate.controller.backtest.world import World

TRACES = Path(__file__).parents[2] / "shared" / "traces" / "ten_jobs_days1-10.csv"
LAW = "lognormal:79.3ms,68.6ms,0.4225"
EVALUATION = {32: (3.14, 0.776), 36: (1.33, 0.368), 40: (0.85, 0.235), 44: (0.65, 0.176)}
"""Faro-FairSum as published by its authors, on their evaluation day: {CPUs: (SLO violation %, lost utility)}."""
BY_DAY = {
    (8, 32): (3.34, 0.766),
    (8, 36): (1.34, 0.376),
    (9, 32): (1.17, 0.353),
    (9, 36): (0.62, 0.174),
    (10, 32): (1.32, 0.398),
    (10, 36): (0.75, 0.208),
}
"""Faro-FairSum with a re-trained forecaster, in its authors' simulator."""


def world(cpus: int, *, live: bool = False, seed: int = 0) -> World:
    """The reference setting: replicas of one CPU that take 35 s to start and 30 s to go; `live`: CPUs move at once."""
    setting = World(Laws(parse_law(LAW), {}), cpus * 1000, latency=0.72, in_flight=4, router=0.0046, seed=seed)
    return setting if live else replace(setting, step=1000, start=35.0, release=30.0)


def run(trace: Trace, name: str, cpus: int, *, live: bool, seeds: int) -> Figures:
    runs = []
    for seed in range(seeds):
        setting = world(cpus, live=live, seed=seed)
        found = contender(name, trace, setting, interval=1.0 if live else 10.0, floor=100 if live else 1000)
        runs.append(figures(simulate(trace, found.world, found.policy), setting))
    return average(runs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", default="8,9,10")
    parser.add_argument("--cpus", default="32,36,40,44")
    parser.add_argument("--policies", default="slo")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--live", action="store_true")
    arguments = parser.parse_args()
    if not TRACES.exists():
        sys.exit(f"{TRACES} is not here: it holds the request traces")
    budgets = [int(cpus) for cpus in arguments.cpus.split(",")]
    print(
        f"{'day':>4} {'policy':<14}" + "".join(f"{f'{cpus} CPUs':>16}" for cpus in budgets) + f"{'moved':>8} {'ms':>6}"
    )
    _row("eval", "Faro-FairSum", [EVALUATION.get(cpus) for cpus in budgets])
    for day in map(int, arguments.days.split(",")):
        trace = read_trace(str(TRACES), days=[day])
        if day >= min(BY_DAY)[0]:
            _row(str(day), "Faro-FairSum", [BY_DAY.get((day, cpus)) for cpus in budgets])
        for name in arguments.policies.split(","):
            found = [run(trace, name, cpus, live=arguments.live, seeds=arguments.seeds) for cpus in budgets]
            rates = [(100 * f.slo_violation_rate, f.lost_utility) for f in found]
            _row(str(day), name, rates, f"{found[0].moves:>8.0f} {found[0].decision_median_ms:>6.2f}")


def _row(
    day: str, name: str, rates: list[tuple[float, float]] | list[tuple[float, float] | None], more: str = ""
) -> None:
    cells = "".join(f"{f'{rate[0]:.2f}/{rate[1]:.3f}' if rate else '':>16}" for rate in rates)
    print(f"{day:>4} {name:<14}{cells}{more}", flush=True)


if __name__ == "__main__":
    main()
