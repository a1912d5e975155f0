"""What the records of a run say: latency percentiles, SLO misses, throughput, and how the grants followed the load."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headgate.core.allocation import allocate
from headgate.core.model import Budget, Demand, Pipeline, Slo
from headgate.engine.demo.client import UNSENT
from headgate.engine.demo.loadgen import Records
from headgate.engine.demo.machine import Disturbance
from headgate.engine.demo.models import Model
from headgate.engine.demo.server import Control, Look, floor_of
from headgate.engine.demo.traffic import Array, Day, Schedule

Mask = npt.NDArray[np.bool_]

OK, REFUSED = 200, 503
_LONGEST_LAG = 8.0
_LAG_STEP = 0.1
_SETTLED = 2.0


@dataclass(frozen=True, slots=True)
class Run:
    """One run as it was recorded."""

    control: Control
    records: Records
    looks: Sequence[Look]
    disturbance: Disturbance
    server_cpu_seconds: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What all runs have in common."""

    models: Sequence[Model]
    slos: Array
    """Seconds; one for each model."""
    day: Day
    schedule: Schedule
    budget: int
    """Millicores."""

    @property
    def names(self) -> list[str]:
        """The pipelines, in the order of the schedule's numbers."""
        return [model.name for model in self.models]


@dataclass(frozen=True, slots=True)
class Slice:
    """Some of the requests of a run. Latencies in seconds, of the answered ones; NaN without any."""

    requests: int
    answered: int
    misses: int
    """Requests that were not answered within the SLO: late, refused or failed."""
    refused: int
    failed: int
    """Any other outcome: no answer in time, a broken connection, an HTTP error."""
    wrong: int
    """Answers that differ from a direct run of the model."""
    p50: float
    p95: float
    p99: float
    accuracy: float
    """Share of the answered rows whose label is the true one."""
    throughput: float
    """Answers per second of the slice's span."""
    good_throughput: float
    """Answers within the SLO per second of the slice's span."""

    @property
    def miss_rate(self) -> float:
        """Misses per request."""
        return self.misses / self.requests if self.requests else 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """The figures of one run."""

    whole: Mapping[str, Slice]
    """By pipeline."""
    outside: Mapping[str, Slice]
    """By pipeline, outside the flood."""
    flood: Mapping[str, Slice]
    """By pipeline, during the flood."""
    total: Slice
    total_outside: Slice
    others_in_flood: Slice
    """All pipelines but the flooding one, during the flood."""
    sustainable: Slice
    """Everything but the flooding pipeline's requests during the flood: what the budget can serve."""
    status: StatusFigures
    send_lag_p99: float
    """Seconds by which the load generator was late."""


@dataclass(frozen=True, slots=True)
class StatusFigures:
    """What the samples of the server's status say."""

    samples: int
    off_budget: int
    """Samples in which the grants do not sum to the budget."""
    lag: Mapping[str, float]
    """Seconds by which each pipeline's grant trails its offered load; NaN where the grant never moves."""


def outcome(run: Run, plan: Plan) -> Outcome:
    """All figures of `run`."""
    regions, times, flood = plan.schedule.regions, plan.schedule.times, plan.day.flood
    inside = flood.covers(times)
    spell = flood.end - flood.start
    seconds = plan.day.seconds

    def cut(mask: Mask, span: float) -> Slice:
        return slice_of(run.records, plan, mask, span)

    def each(mask: Mask, span: float) -> dict[str, Slice]:
        return {name: cut(mask & (regions == number), span) for number, name in enumerate(plan.names)}

    everything = np.ones(len(times), dtype=np.bool_)
    flooder = regions == flood.region
    lag = run.records.sent - times
    return Outcome(
        whole=each(everything, seconds),
        outside=each(~inside, seconds - spell),
        flood=each(inside, spell),
        total=cut(everything, seconds),
        total_outside=cut(~inside, seconds - spell),
        others_in_flood=cut(inside & ~flooder, spell),
        sustainable=cut(~(inside & flooder), seconds),
        status=status_figures(run.looks, plan, run.control, run.records.started),
        send_lag_p99=float(np.nanpercentile(lag, 99)) if np.isfinite(lag).any() else math.nan,
    )


def missed(records: Records, plan: Plan) -> Mask:
    """Which requests were not answered within their SLO."""
    latency = records.done - plan.schedule.times
    in_time = (records.status == OK) & (latency <= plan.slos[plan.schedule.regions])
    late: Mask = ~in_time & (records.status != UNSENT)
    return late


def slice_of(records: Records, plan: Plan, mask: Mask, span: float) -> Slice:
    """The figures of the requests in `mask`, to be sent within `span` seconds. What was never sent is out."""
    mask = mask & (records.status != UNSENT)
    answered = mask & (records.status == OK)
    refused = mask & (records.status == REFUSED)
    misses = mask & missed(records, plan)
    latency = (records.done - plan.schedule.times)[answered]
    p50, p95, p99 = np.percentile(latency, (50, 95, 99)) if latency.size else (math.nan,) * 3
    rows = np.array([model.inputs.shape[1] for model in plan.models])[plan.schedule.regions[answered]].sum()
    count = int(answered.sum())
    return Slice(
        requests=int(mask.sum()),
        answered=count,
        misses=int(misses.sum()),
        refused=int(refused.sum()),
        failed=int(mask.sum()) - count - int(refused.sum()),
        wrong=int((answered & ~records.same).sum()),
        p50=float(p50),
        p95=float(p95),
        p99=float(p99),
        accuracy=float(records.right[answered].sum() / rows) if rows else math.nan,
        throughput=count / span if span else 0.0,
        good_throughput=int((mask & ~misses).sum()) / span if span else 0.0,
    )


def status_figures(looks: Sequence[Look], plan: Plan, control: Control, started: float) -> StatusFigures:
    """Whether the grants sum to the budget, and how far they trail the load."""
    sums = [sum(pipeline["granted"] for pipeline in look.status["pipelines"].values()) for look in looks]
    inside = [look for look in looks if _SETTLED <= look.time - started <= plan.day.seconds]
    times = np.array([look.time - started for look in inside])
    grants = np.array(
        [[look.status["pipelines"][name]["granted"] for look in inside] for name in plan.names], dtype=np.float64
    )
    return StatusFigures(
        len(looks),
        sum(total != plan.budget for total in sums),
        dict(zip(plan.names, grant_lags(times, grants, plan, control), strict=True)),
    )


def grant_lags(times: Array, grants: Array, plan: Plan, control: Control) -> list[float]:
    """Seconds by which each pipeline's `grants` (pipelines, times) trail its load; NaN where they never move.

    The load is known from the day itself. What the same policy would grant at every moment if it knew it too, later by
    the lag, is nearest to the real grants (least squares).
    """
    if len(times) < 8:
        return [math.nan] * len(grants)
    grid = np.arange(0.0, plan.day.seconds + _LAG_STEP, _LAG_STEP)
    lags = np.arange(0.0, _LONGEST_LAG, _LAG_STEP)
    found = []
    for wanted, real in zip(ideal_grants(grid, plan, control), grants, strict=True):
        errors = [np.mean((np.interp(times - lag, grid, wanted) - real) ** 2) for lag in lags]
        found.append(float(lags[int(np.argmin(errors))]) if np.ptp(real) else math.nan)
    return found


def ideal_grants(times: Array, plan: Plan, control: Control) -> Array:
    """Millicores that the policy of `control` would grant at `times` if it knew the load, shape (pipelines, times)."""
    floor = floor_of(plan.budget)
    pipelines = [
        Pipeline(name, floor=floor, slo=Slo(float(slo))) for name, slo in zip(plan.names, plan.slos, strict=True)
    ]
    policy = str(control.settings.get("policy", "proportional"))
    grants = []
    for loads in plan.day.offered(times).T:
        demands = {
            name: Demand((load / cost,), cost)
            for name, load, cost in zip(plan.names, loads, plan.day.costs, strict=True)
        }
        found = allocate(pipelines, demands, Budget(plan.budget), current={}, policy=policy).grants
        grants.append([found[name] for name in plan.names])
    return np.array(grants, dtype=np.float64).T


@dataclass(frozen=True, slots=True)
class Verdict:
    """One claim, and whether this measurement bears it out."""

    claim: str
    measured: str
    holds: bool


def verdicts(outcomes: Mapping[str, Outcome], flooder: str) -> list[Verdict]:
    """What headgate is for, held against the runs. Needs all three."""
    none, static, live = outcomes["none"], outcomes["static"], outcomes["headgate"]
    lags = [lag for lag in live.status.lag.values() if not math.isnan(lag)]
    slowest = max(lags, default=math.nan)
    refused = sum(cut.refused for name, cut in live.whole.items() if name != flooder)
    errors = live.total.failed + live.total.wrong + refused
    return [
        Verdict(
            "at most a third of the SLO misses of equal static shares, at no less throughput "
            "(the flooding region's requests during the flood aside)",
            f"{live.sustainable.misses} against {static.sustainable.misses} misses; "
            f"{live.total.throughput:.0f} against {static.total.throughput:.0f} answers per second",
            3 * live.sustainable.misses <= static.sustainable.misses
            and live.total.throughput >= 0.99 * static.total.throughput,
        ),
        Verdict(
            "during the flood the other regions miss at most a third as often as without control",
            f"{live.others_in_flood.miss_rate:.1%} against {none.others_in_flood.miss_rate:.1%}",
            3 * live.others_in_flood.miss_rate <= none.others_in_flood.miss_rate,
        ),
        Verdict(
            "outside the flood no more misses than without control",
            f"{live.total_outside.miss_rate:.2%} against {none.total_outside.miss_rate:.2%}",
            live.total_outside.misses <= none.total_outside.misses,
        ),
        Verdict(
            "no request fails, none is answered wrongly, only the flooding region is refused",
            f"{live.total.failed} failed, {live.total.wrong} wrong, {refused} refused elsewhere",
            errors == 0,
        ),
        Verdict(
            "the grants sum to the budget in every sample of the status",
            f"{live.status.samples - live.status.off_budget} of {live.status.samples} samples",
            live.status.samples > 0 and live.status.off_budget == 0,
        ),
        Verdict(
            "a region's grant follows its load within 3 seconds",
            "cannot be told: no grant moved for long enough"
            if math.isnan(slowest)
            else f"{slowest:.1f} s behind (the slowest region)",
            slowest <= 3.0,
        ),
    ]


@dataclass(frozen=True, slots=True)
class Timeline:
    """A run over time in steps of `width` seconds; every array has the shape (pipelines, steps)."""

    times: Array
    """Middle of each step."""
    arrivals: Array
    """Requests per second that were to be sent."""
    p95: Array
    """Seconds, by scheduled moment; NaN where nothing was answered."""
    misses: Array
    """Share of the requests that missed their SLO; NaN without requests."""


def timeline(records: Records, plan: Plan, width: float) -> Timeline:
    """Arrivals, latency and misses of each pipeline over time."""
    steps = max(1, math.ceil(plan.day.seconds / width - 1e-9))
    step = np.minimum((plan.schedule.times / width).astype(int), steps - 1)
    late = missed(records, plan)
    latency = records.done - plan.schedule.times
    shape = (len(plan.models), steps)
    arrivals, p95, misses = np.zeros(shape), np.full(shape, np.nan), np.full(shape, np.nan)
    for region in range(shape[0]):
        for index in range(steps):
            here = (plan.schedule.regions == region) & (step == index)
            arrivals[region, index] = here.sum() / width
            answered = latency[here & (records.status == OK)]
            if answered.size:
                p95[region, index] = np.percentile(answered, 95)
            if here.any():
                misses[region, index] = late[here].mean()
    middles: Array = np.arange(0.5, steps) * width
    return Timeline(middles, arrivals, p95, misses)
