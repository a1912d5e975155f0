"""CPUs that would meet every SLO, whatever the budget."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.core.model import Demand, Pipeline, Slo, Unknown
from headgate.core.nodes.needs import MOST, needs
from headgate.core.queueing import HORIZON, Traffic, within

PLAIN = Pipeline("a")
STRICT = Pipeline("a", slo=Slo(latency=0.2, percentile=95))


def need(pipeline: Pipeline, demand: Demand | Unknown, **current: int) -> int | None:
    return needs([pipeline], {"a": demand}, current)["a"]


def share_in_time(pipeline: Pipeline, demand: Demand, cpus: float) -> float:
    """Of the requests that are answered within the SLO's latency with `cpus` CPUs."""
    assert pipeline.slo is not None
    one = Traffic(
        arrival_rate=np.array([demand.arrival_rate]),
        service_time=np.array([demand.cpu_seconds_per_request]),
        service_cv=np.array([demand.service_cv]),
        queue=np.array([float(demand.queue)]),
        parallel_fraction=np.array([pipeline.parallel_fraction]),
    )
    return float(within(one, np.array([cpus]), np.array([pipeline.slo.latency]))[0])


def test_without_an_slo_it_is_the_offered_load_and_what_waits_within_a_minute() -> None:
    load = Demand((50.0,), cpu_seconds_per_request=0.03)  # 1.5 CPUs
    assert need(PLAIN, load) == 1500
    # 600 requests of 0.03 CPU seconds that wait: 18 CPU seconds.
    assert need(PLAIN, replace(load, queue=600)) == 1500 + round(18 / HORIZON * 1000)


def test_the_mean_of_the_scenarios_counts() -> None:
    assert need(PLAIN, Demand((10.0, 30.0), cpu_seconds_per_request=0.1)) == 2000


@given(rate=st.floats(1, 200), cost=st.floats(0.001, 0.1), percentile=st.sampled_from([50, 90, 99]))
def test_with_an_slo_it_is_the_fewest_cpus_that_keep_it(rate: float, cost: float, percentile: int) -> None:
    demand = Demand((rate,), cpu_seconds_per_request=cost)
    pipeline = Pipeline("a", slo=Slo(latency=4 * cost, percentile=percentile))
    found = need(pipeline, demand)
    assert found is not None
    load = rate * cost
    assert found >= int(load * 1000)
    if share_in_time(pipeline, demand, load * MOST + 1) < percentile / 100:
        assert found == pytest.approx(load * 1000, abs=1)
        return
    assert share_in_time(pipeline, demand, found / 1000) >= percentile / 100
    step = (load * MOST + 1) / 2**12  # what the search tells apart, and a millicore for rounding
    less = found / 1000 - step - 0.001
    assert less <= load or share_in_time(pipeline, demand, less) < percentile / 100


def test_a_stricter_slo_needs_more() -> None:
    demand = Demand((20.0,), cpu_seconds_per_request=0.05)
    loose, strict = (Pipeline("a", slo=Slo(latency=latency, percentile=95)) for latency in (1.0, 0.2))
    first, second = need(loose, demand), need(strict, demand)
    assert first is not None
    assert second is not None
    assert 1000 <= first < second


def test_an_slo_that_no_cpus_buy_asks_for_none() -> None:
    """One thread's work takes 50 ms, whatever stands beside it."""
    demand = Demand((20.0,), cpu_seconds_per_request=0.05)
    assert need(Pipeline("a", slo=Slo(latency=0.01, percentile=95), parallel_fraction=0.0), demand) == 1000


def test_where_only_cpu_is_known_an_slo_says_nothing() -> None:
    demand = Demand((1.0,), cpu_seconds_per_request=1.5, basis="cpu")
    assert need(STRICT, demand) == 1500


def test_floor_and_ceiling_hold() -> None:
    demand = Demand((20.0,), cpu_seconds_per_request=0.05)
    assert need(Pipeline("a", floor=1800), demand) == 1800
    assert need(replace(STRICT, ceiling=700), demand) == 700


def test_what_is_pinned_needs_what_it_has() -> None:
    demand = Demand((20.0,), cpu_seconds_per_request=0.05)
    assert need(replace(PLAIN, pinned=True), demand, a=300) == 300
    assert need(replace(PLAIN, pinned=True), Unknown("no sample")) == 0


def test_not_known_is_not_nought() -> None:
    assert need(replace(STRICT, floor=100), Unknown("no sample")) is None
    assert needs([PLAIN], {}, {"a": 500}) == {"a": None}
    assert need(replace(STRICT, floor=100), Demand((0.0,), cpu_seconds_per_request=0.05)) == 100


def test_each_pipeline_by_itself() -> None:
    demands = {name: Demand((rate,), cpu_seconds_per_request=0.05) for name, rate in (("a", 5.0), ("b", 60.0))}
    strict = [replace(STRICT, name=name) for name in demands]
    together = needs([*strict, Pipeline("c")], {**demands, "c": Unknown("no sample")}, {})
    alone = {p.name: needs([p], demands, {})[p.name] for p in strict}
    assert together == {**alone, "c": None}
