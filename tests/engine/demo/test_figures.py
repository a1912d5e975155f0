import math

import numpy as np
import pytest

from headgate.engine.demo.client import ERROR, TIMEOUT, UNSENT
from headgate.engine.demo.figures import grant_lags, ideal_grants, missed, outcome, timeline, verdicts
from headgate.engine.demo.server import CONTROLS, Look

EVERY = 140
# The flood of a 14 s day is a seventh of it around a third of it: 11/3 to 17/3, so requests 37 to 56.
FLOODED = range(37, 57)


def good():
    return np.full(EVERY, 0.05), np.full(EVERY, 200)


def test_percentiles_and_throughput(make_run, plan):
    latency, status = good()
    latency[:] = np.arange(EVERY) / 1000
    got = outcome(make_run("headgate", latency, status), plan).total
    assert got.requests == got.answered == EVERY
    assert got.p50 == pytest.approx(0.0695)  # the median of 0 to 139 ms
    assert got.p95 == pytest.approx(0.139 * 0.95)
    assert got.p99 == pytest.approx(0.139 * 0.99)
    assert got.misses == 39  # 101 to 139 ms; 100 ms is still in time
    assert got.throughput == pytest.approx(10)
    assert got.good_throughput == pytest.approx(101 / 14)
    assert got.accuracy == pytest.approx(3 / 4)


def test_every_kind_of_failure_is_a_miss(make_run, plan):
    latency, status = good()
    status[0], status[1], status[2], status[3] = 503, TIMEOUT, ERROR, 500
    latency[4] = 0.2
    run = make_run("headgate", latency, status)
    got = outcome(run, plan).total
    assert (got.misses, got.refused, got.failed, got.answered) == (5, 1, 3, EVERY - 4)
    assert list(np.flatnonzero(missed(run.records, plan))) == [0, 1, 2, 3, 4]


def test_what_was_never_sent_is_not_counted(make_run, plan):
    latency, status = good()
    status[100:] = UNSENT
    got = outcome(make_run("headgate", latency, status), plan).total
    assert (got.requests, got.misses, got.failed) == (100, 0, 0)


def test_the_flood_is_counted_apart(make_run, plan):
    latency, status = good()
    for index in FLOODED:
        latency[index] = 0.5
    got = outcome(make_run("headgate", latency, status), plan)
    of_flooder = [index for index in FLOODED if index % 3 == 1]
    assert got.total.misses == len(FLOODED)
    assert got.total_outside.misses == 0
    assert got.total_outside.requests == EVERY - len(FLOODED)
    assert got.flood["b"].misses == len(of_flooder)
    assert got.others_in_flood.misses == len(FLOODED) - len(of_flooder)
    assert got.sustainable.misses == len(FLOODED) - len(of_flooder)
    assert got.sustainable.requests == EVERY - len(of_flooder)


def test_wrong_answers_are_seen(make_run, plan):
    run = make_run("headgate", *good())
    run.records.same[7] = False
    assert outcome(run, plan).total.wrong == 1


def test_nothing_answered_has_no_percentiles(make_run, plan):
    latency, status = good()
    status[:] = TIMEOUT
    got = outcome(make_run("none", latency, status), plan).total
    assert math.isnan(got.p50)
    assert math.isnan(got.accuracy)
    assert got.miss_rate == 1


def test_grants_off_the_budget_are_seen(make_run, plan):
    run = make_run("headgate", *good())
    wrong = {"pipelines": {name: {"granted": 600, "used": 0} for name in plan.names}}
    run.looks.append(Look(1013.0, wrong))
    got = outcome(run, plan).status
    assert (got.samples, got.off_budget) == (57, 1)


@pytest.mark.parametrize("lag", [0.0, 1.0, 2.5])
def test_lag_of_grants_that_copy_the_ideal(plan, lag):
    control = CONTROLS[-1]
    times = np.arange(2.5, 14, 0.25)
    grants = ideal_grants(times - lag, plan, control)
    assert grant_lags(times, grants, plan, control) == pytest.approx([lag] * 3, abs=0.1)


def test_the_ideal_is_proportional_to_the_load_above_the_floors(plan):
    # At the start a is at its peak, 70 %, and b and c at 15 % would get 300m of 2 CPUs: less than their floors.
    first = ideal_grants(np.array([0.0]), plan, CONTROLS[-1])[:, 0]
    assert first == pytest.approx([1200, 400, 400], abs=1)


def test_a_grant_that_never_moves_has_no_lag(plan):
    times = np.arange(2, 14, 0.25)
    still = np.full((3, len(times)), 667.0)
    assert all(math.isnan(lag) for lag in grant_lags(times, still, plan, CONTROLS[-1]))


def test_verdicts_hold_and_fail(make_run, plan):
    latency, status = good()
    late = latency.copy()
    late[:60] = 0.5
    best = outcome(make_run("headgate", latency, status), plan)
    worse = outcome(make_run("static", late, status), plan)
    claims = verdicts({"none": worse, "static": worse, "headgate": best}, "b")
    # Its grants are constant here, so nothing can be said about how they follow.
    assert [claim.holds for claim in claims] == [True, True, True, True, True, False]
    turned = verdicts({"none": best, "static": best, "headgate": worse}, "b")
    assert [claim.holds for claim in turned] == [False, False, False, True, True, False]


def test_timeline(make_run, plan):
    latency, status = good()
    latency[0:10] = 0.3
    lines = timeline(make_run("headgate", latency, status).records, plan, 1.0)
    assert lines.times[0] == 0.5
    assert lines.arrivals.shape == (3, 14)
    assert lines.arrivals.sum(axis=0) == pytest.approx(np.full(14, 10.0))
    assert lines.p95[:, 0] == pytest.approx([0.3] * 3)
    assert lines.misses[:, 0] == pytest.approx([1.0] * 3)
    assert np.nansum(lines.misses[:, 1:]) == 0
