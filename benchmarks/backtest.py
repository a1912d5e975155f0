"""Speed of the backtest: seconds for each policy, on a synthetic day. `python benchmarks/backtest.py [POLICY ...]`

Ten pipelines over six hours with 2.7 million requests, and a hundred with 27 million; replicas that take 35 s to start,
decisions every 10 s. CPU seconds of this process, which works on one core at a time.
"""

from __future__ import annotations

import argparse
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from headgate.controller.backtest.contenders import contender, names
from headgate.controller.backtest.figures import figures
from headgate.controller.backtest.grid import Trace
from headgate.controller.backtest.service import Laws, parse_law
from headgate.controller.backtest.simulation import simulate
from headgate.controller.backtest.world import World

MINUTES = 360
RATE = 2.7e6 / 10 / MINUTES
"""Requests a minute and pipeline."""


def trace(pipelines: int) -> Trace:
    """Days in different time zones, with noise."""
    random = np.random.default_rng(0)
    phase = np.arange(MINUTES)[:, None] / MINUTES + np.arange(pipelines) / pipelines
    shape = 1 + 0.6 * np.sin(2 * np.pi * phase)
    noise = random.lognormal(0, 0.15, shape.shape)
    return Trace(tuple(f"p{i}" for i in range(pipelines)), RATE * shape * noise / (shape * noise).mean())


def world(pipelines: int) -> World:
    law = parse_law("lognormal:79.3ms,68.6ms,0.4225")
    cpus = round(3.6 * pipelines) * 1000
    return World(Laws(law, {}), cpus, latency=0.72, step=1000, start=35, release=30, in_flight=4, router=0.0046)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("policies", nargs="*", default=[name for name in names() if name != "oracle-free"])
    parser.add_argument("--pipelines", type=int, nargs="+", default=[10, 100])
    chosen = parser.parse_args()
    short = Trace(("a",), np.array([[10.0]]))
    simulate(short, world(1), contender("equal", short, world(1), interval=10, floor=1000).policy)  # compiles
    print(f"{'pipelines':>9} {'requests':>11} {'policy':<14} {'CPU s':>8} {'decision (median, p99)':>24}")
    for pipelines in chosen.pipelines:
        load, setting = trace(pipelines), world(pipelines)
        for name in chosen.policies:
            begin = time.process_time()
            found = contender(name, load, setting, interval=10, floor=1000)
            result = figures(simulate(load, found.world, found.policy), setting)
            seconds = time.process_time() - begin
            decision = f"{result.decision_median_ms:.2f} ms, {result.decision_p99_ms:.2f} ms"
            print(f"{pipelines:>9} {result.requests:>11,} {name:<14} {seconds:>8.1f} {decision:>24}", flush=True)


if __name__ == "__main__":
    main()
