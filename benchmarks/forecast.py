"""How well each estimator foresees the load of real traces: CRPS, pinball loss and coverage at several horizons.

    python benchmarks/forecast.py [--days 9,10] [--interval 10] [--horizons 10,45,75] [--seed 1]

Reads ../shared/traces/ten_jobs_days1-10.csv (day,minute,job,requests; --trace for another of that form). Every day is
replayed alone, from nothing known: arrivals in each interval are Poisson at the minute's rate, and every interval each
estimator says how it expects the mean rate over the coming horizon to be distributed. That is judged against the true
rate, from the second half hour on. CRPS and the pinball loss at the 90th percentile are in percent of the job's mean
rate; coverage is the share of true rates below the 90th percentile, and between the lowest and the highest scenario.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from headgate.core.demand.arrivals import Counter, Seen
from headgate.core.demand.forecast import Ewma, Forecaster, Last, Peak
from headgate.core.demand.learned import default_estimator
from headgate.core.demand.margin import Margin, Outlook, crps
from headgate.core.demand.recent import Pool
from headgate.core.demand.select import Best
from headgate.core.model import Sample

TRACE = Path(__file__).resolve().parent.parent.parent / "shared" / "traces" / "ten_jobs_days1-10.csv"
WARM_UP = 1800.0


@dataclass
class Score:
    """Sums over the judged forecasts of one estimator."""

    crps: list[float] = field(default_factory=list)
    pinball: list[float] = field(default_factory=list)
    below: list[bool] = field(default_factory=list)
    inside: list[bool] = field(default_factory=list)

    def add(self, scenarios: tuple[float, ...], true: float, mean: float) -> None:
        high = float(np.quantile(scenarios, 0.9, method="hazen"))
        self.crps.append(crps(scenarios, true) / mean)
        self.pinball.append(max(0.9 * (true - high), 0.1 * (high - true)) / mean)
        self.below.append(true <= high)
        self.inside.append(scenarios[0] <= true <= scenarios[-1])


def read(path: Path) -> dict[tuple[int, str], list[float]]:
    """Requests per minute, by (day, job)."""
    series: dict[tuple[int, str], list[float]] = defaultdict(list)
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            series[int(row["day"]), row["job"]].append(float(row["requests"]))
    return dict(series)


def outlooks(interval: float, horizon: float) -> dict[str, Outlook]:
    """The default, what it is made of, and simpler ones to compare it with."""
    simple: dict[str, Forecaster] = {
        "last": Last(),
        "ewma 30 s": Ewma(3 * interval),
        "peak 60 s": Peak(Last(), 6 * interval),
    }
    default = default_estimator(interval, horizon - interval).outlook
    best = default.outlooks[0] if isinstance(default, Pool) else default
    assert isinstance(best, Best)
    named: dict[str, Outlook] = {name: Margin(f, span=horizon, every=5 * interval) for name, f in simple.items()}
    for margin in best.outlooks:
        assert isinstance(margin, Margin)
        named[_name(margin.inner)] = margin
    named["best of these"] = best
    return named | ({"with recent rates": default} if isinstance(default, Pool) else {})


def _name(forecaster: Forecaster) -> str:
    period = getattr(forecaster, "period", None)
    if period is not None:
        return f"seasonal {period / 60:.0f} min"
    drift = getattr(forecaster, "drift", None)
    return type(forecaster).__name__.lower() + (f" {drift:g}" if drift is not None else "")


def intervals(rates: np.ndarray, interval: float, span: float, rng: np.random.Generator) -> Iterator[Seen]:
    """Poisson arrivals of each interval at the minute's `rates`, as an estimator sees them."""
    counter, state = Counter(span=span), None
    for i in range(int(len(rates) * 60 / interval)):
        mean = float(rates[int(i * interval / 60)]) * interval
        sample = Sample("job", (i + 1) * interval, interval, arrivals=float(rng.poisson(mean)))
        state, seen = counter.update(state, sample)
        assert seen is not None
        yield seen


def true_rate(cumulative: np.ndarray, start: float, end: float) -> float:
    """Mean of the minutes' rates over (start, end] seconds."""
    minutes = np.arange(len(cumulative))
    at = np.interp([start / 60, end / 60], minutes, cumulative)
    return float(at[1] - at[0]) * 60 / (end - start)


def evaluate(
    series: dict[tuple[int, str], list[float]], interval: float, horizon: float, seed: int
) -> dict[str, dict[str, Score]]:
    """Scores by estimator and job."""
    scores: dict[str, dict[str, Score]] = defaultdict(lambda: defaultdict(Score))
    for (day, job), requests in series.items():
        rates = np.array(requests) / 60
        cumulative = np.concatenate([[0.0], np.cumsum(rates)])
        rng = np.random.default_rng([seed, day, int.from_bytes(job.encode())])
        compared = outlooks(interval, horizon)
        states: dict[str, Any] = dict.fromkeys(compared)
        for seen in intervals(rates, interval, horizon, rng):
            judged = WARM_UP <= seen.time <= len(rates) * 60 - horizon
            true = true_rate(cumulative, seen.time, seen.time + horizon) if judged else 0.0
            for name, outlook in compared.items():
                states[name] = outlook.update(states[name], seen)
                if judged and (scenarios := outlook.scenarios(states[name], seen.time)):
                    scores[name][job].add(scenarios, true, float(rates.mean()))
    return scores


def show(scores: dict[str, dict[str, Score]], names: list[str], horizon: float) -> None:
    """One row for each estimator; the last columns are the CRPS of each job."""
    jobs = sorted({job for by_job in scores.values() for job in by_job})
    print(f"\nhorizon {horizon:g} s{'CRPS':>17} {'pinball90':>10} {'below p90':>10} {'inside':>7}   " + " ".join(jobs))
    for name in names:
        by_job = scores[name]

        def mean(part: str, by_job: dict[str, Score] = by_job) -> float:
            return 100 * float(np.mean([np.mean(getattr(score, part)) for score in by_job.values()]))

        each = " ".join(f"{100 * np.mean(by_job[job].crps):4.1f}" if job in by_job else "   -" for job in jobs)
        parts = f"{mean('crps'):6.2f} % {mean('pinball'):8.2f} % {mean('below'):8.1f} % {mean('inside'):5.1f} %"
        print(f"{name:>20} {parts}   {each}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trace", type=Path, default=TRACE)
    parser.add_argument("--days", default="9,10")
    parser.add_argument("--jobs", default="")
    parser.add_argument("--interval", type=float, default=10.0)
    parser.add_argument("--horizons", default="10,45,75")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    if not arguments.trace.exists():
        print(f"skipped: {arguments.trace} is not there (the traces are not part of the repository)")
        sys.exit(0)
    days = {int(day) for day in arguments.days.split(",")}
    jobs = set(arguments.jobs.split(",")) - {""}
    chosen = {k: v for k, v in read(arguments.trace).items() if k[0] in days and (not jobs or k[1] in jobs)}
    for horizon in (float(h) for h in arguments.horizons.split(",")):
        scores = evaluate(chosen, arguments.interval, horizon, arguments.seed)
        names = [name for name in outlooks(arguments.interval, horizon) if name in scores]
        show(scores, names, horizon)


if __name__ == "__main__":
    main()
