"""Two general solvers on the problem that the policy `slo` solves, for benchmarks/allocation.py.

The problem: n pipelines, whole CPUs, at least one each, a budget; the largest weighted sum of utilities.

*COBYLA on Faro's formulation*, as read from "A House United Within Itself" (EuroSys'25), objective Sum: replicas are
relaxed to real numbers x >= 1 with sum x <= budget; a pipeline's utility is min(1, SLO / latency) where latency is
the SLO's percentile of an M/D/c queue, taken as the service time plus half the wait of M/M/c (the leading
term of Cosmetatos 1975), and beyond a utilisation of 0.95 the latency there times utilisation / 0.95, so that
overload keeps a slope. Erlang's C is continued to real x. Start: an equal share, as Faro starts from what runs. The
answer is rounded down and the CPUs left over go to the largest remainders.

*HiGHS on the exact problem*: a binary variable for each pipeline and number of CPUs from 1 to where one more gains
less than 1e-6 (a multiple-choice knapsack), utilities from headgate's own function, to a relative gap of 1e-9. The
time includes the table of utilities, as headgate's does.

All three answers are valued by headgate's utility, which both HiGHS and headgate maximise and COBYLA does not know:
its loss is the relaxation's, the rounding's and the solver's together.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
from allocation import in_columns, instance
from scipy import optimize, sparse

from headgate.core.allocation import pose_columns, solve
from headgate.core.policies import POLICIES
from headgate.core.problem import Problem
from headgate.core.queueing import erlang_c

PERCENTILE = 0.95
FULL = 0.95
"""Utilisation beyond which Faro's latency is relaxed."""


def problem_of(n: int, cpus: int, seed: int) -> Problem:
    part = instance(n, cpus, 1, seed)
    limits, wants = in_columns(part, cpus, 1000)
    limits.floor[:] = 1000
    return pose_columns(limits, wants)


def utilities(problem: Problem, cpus: np.ndarray) -> np.ndarray:
    """Weighted utilities, n x k, of n x k CPUs; weights are scaled to a mean of 1, as the policy does."""
    weight = problem.limits.weight / problem.limits.weight.mean()
    found = POLICIES["slo"].utility(problem, np.arange(len(weight)))((cpus * 1000).astype(np.int64))
    return weight[:, None] * np.asarray(found)


def headgate(problem: Problem, cpus: int, limit: float) -> tuple[np.ndarray, str, float]:
    del cpus, limit
    return solve(problem, POLICIES["slo"]).division.grants / 1000, "", 0.0


def cobyla(problem: Problem, cpus: int, limit: float) -> tuple[np.ndarray, str, float]:
    rate, service = problem.wants.arrivals[:, 0], problem.wants.service_time
    slo, weight = problem.limits.latency, problem.limits.weight / problem.limits.weight.mean()
    n = len(rate)
    deadline = time.perf_counter() + limit

    def loss(x: np.ndarray) -> float:
        if time.perf_counter() > deadline:
            raise TimeoutError
        servers = np.maximum(x, 1)
        utilisation = rate * service / servers
        calm = np.minimum(utilisation, FULL)
        tail = np.log(np.maximum(erlang_c(servers, calm) / (1 - PERCENTILE), 1))
        latency = service + tail * service / (servers * (1 - calm)) / 2
        latency *= np.maximum(utilisation / FULL, 1)
        return -float(weight @ np.minimum(1, slo / latency))

    constraints = [optimize.LinearConstraint(np.ones((1, n)), -np.inf, cpus)]
    start = np.full(n, cpus / n)
    try:
        found = optimize.minimize(
            loss, start, method="COBYLA", bounds=[(1, cpus)] * n, constraints=constraints,
            options={"rhobeg": 2.0, "tol": 1e-3, "maxiter": 100 * n + 1000},
        )  # fmt: skip
    except TimeoutError:
        return start, "stopped", 0.0
    x = np.clip(found.x, 1, None)
    x *= min(1.0, cpus / x.sum())
    whole = np.maximum(np.floor(x), 1)
    for i in np.argsort(whole - x, kind="stable")[: max(0, int(cpus - whole.sum()))]:
        whole[i] += 1
    return whole, f"{found.nfev:,} evaluations", 0.0


def highs(problem: Problem, cpus: int, limit: float) -> tuple[np.ndarray, str, float]:
    n = len(problem.load)
    most = int(np.ceil((problem.load + 4 * np.sqrt(problem.load) + 4).max()))
    grid = np.broadcast_to(np.arange(1, most + 1), (n, most))
    worth = utilities(problem, grid)
    # A grant beyond the first that is as good as the largest is no choice.
    useful = np.ones(worth.shape, dtype=np.bool_)
    useful[:, 1:] = worth[:, :-1] < worth[:, -1:] - 1e-6
    rows, ks = np.nonzero(useful)
    one = sparse.csr_array((np.ones(len(rows)), (rows, np.arange(len(rows)))), shape=(n, len(rows)))
    size = (ks + 1).astype(float)
    found = optimize.milp(
        -worth[rows, ks],
        integrality=np.ones(len(rows)),
        bounds=optimize.Bounds(0, 1),
        constraints=[
            optimize.LinearConstraint(one, 1, 1),
            optimize.LinearConstraint(sparse.csr_array(size[None, :]), 0, cpus),
        ],
        options={"time_limit": limit, "mip_rel_gap": 1e-9},
    )
    if found.x is None:
        return np.full(n, cpus / n), "stopped", 0.0
    chosen = np.round(found.x) > 0
    grants = np.zeros(n)
    grants[rows[chosen]] = size[chosen]
    note = f"{len(rows):,} binary variables" + (", optimal" if found.status == 0 else f", gap {found.mip_gap:.1e}")
    return grants, note, -float(found.mip_dual_bound)


SOLVERS: dict[str, tuple[Callable[[Problem, int, float], tuple[np.ndarray, str, float]], int]] = {
    "headgate": (headgate, 20),
    "COBYLA": (cobyla, 1),
    "HiGHS": (highs, 1),
}


def main() -> None:
    name, n, cpus, seed, limit = sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]), float(sys.argv[6])
    problem = problem_of(n, cpus, seed)
    solver, runs = SOLVERS[name]
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        grants, note, bound = solver(problem, cpus, limit)
        times.append(time.perf_counter() - start)
    assert grants.sum() <= cpus + 1e-6
    objective = float(utilities(problem, grants[:, None]).sum())
    taken = None if note == "stopped" else statistics.median(times)
    print(json.dumps({"solver": name, "seconds": taken, "note": note, "objective": objective, "bound": bound}))


if __name__ == "__main__":
    main()
