from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from headgate.core.demand.cost import Cost, CostEstimate, CostState
from headgate.core.model import Sample


def rows(completions: list[float], base: float, cost: float, start: int = 0) -> list[Sample]:
    """One-second samples without any noise: cpu_seconds = base + cost * completions."""
    return [
        Sample("p", start + i + 1.0, 1.0, completions=n, cpu_seconds=base + cost * n) for i, n in enumerate(completions)
    ]


def learn(samples: list[Sample], state: CostState | None = None, cost: Cost | None = None) -> CostState:
    for sample in samples:
        state = (cost or Cost()).update(state, sample)
    assert state is not None
    return state


def estimate(state: CostState | None) -> CostEstimate:
    found = Cost().estimate(state)
    assert found is not None
    return found


def varied(count: int, seed: int = 0) -> list[float]:
    return [float(n) for n in np.random.default_rng(seed).integers(20, 200, count)]


def test_exact_linear_data_yield_base_and_cost() -> None:
    found = estimate(learn(rows(varied(400), base=0.2, cost=0.01)))
    assert found.per_request == pytest.approx(0.01, rel=0.01)
    assert found.base == pytest.approx(0.2, rel=0.03)


def test_a_prior_that_knows_nothing_gives_weighted_least_squares() -> None:
    # Without forgetting, clipping or a prior, RLS is the closed-form weighted regression of all rows.
    generator = np.random.default_rng(3)
    n = np.array(varied(60, seed=4))
    y = 0.3 + 0.02 * n + generator.normal(0, 0.01, 60)
    samples = [
        Sample("p", i + 1.0, 1.0, completions=a, cpu_seconds=b) for i, (a, b) in enumerate(zip(n, y, strict=True))
    ]
    plain = Cost(forgetting=1.0, clip=1e9, decision=1e9, base_prior=1e4)
    found = plain.estimate(learn(samples, cost=plain))
    design = np.stack([np.ones(60), n], axis=1) / np.sqrt(n)[:, None]
    base, cost = np.linalg.lstsq(design, y / np.sqrt(n), rcond=None)[0]
    assert found is not None
    assert found.per_request == pytest.approx(cost, rel=1e-4)
    assert found.base == pytest.approx(base, rel=1e-3)


def test_an_idle_pipeline_tells_its_base_apart_before_the_first_request() -> None:
    found = estimate(learn(rows([0.0] * 300 + [50.0], base=0.1, cost=0.02)))
    assert found.per_request == pytest.approx(0.02, rel=0.02)
    assert found.base == pytest.approx(0.1, rel=0.02)


def test_without_traffic_there_is_no_cost() -> None:
    assert Cost().estimate(None) is None
    assert Cost().estimate(learn(rows([0.0] * 100, base=0.1, cost=0.02))) is None


@pytest.mark.parametrize(("before", "after"), [(0.01, 0.02), (0.01, 0.005), (0.01, 0.1)])
def test_a_model_update_is_learned_within_ten_samples(before: float, after: float) -> None:
    state = learn(rows(varied(200), base=0.05, cost=before))
    assert estimate(state).per_request == pytest.approx(before, rel=0.03)
    state = learn(rows(varied(10, seed=1), base=0.05, cost=after, start=200), state)
    assert estimate(state).per_request == pytest.approx(after, rel=0.05)


def test_one_wild_sample_moves_the_cost_by_no_more_than_the_clipped_innovation() -> None:
    generator = np.random.default_rng(5)
    n = varied(200)
    noisy = [
        replace(s, cpu_seconds=0.01 * c + 0.01 * math.sqrt(c) * generator.normal())
        for s, c in zip(rows(n, 0.0, 0.01), n, strict=True)
    ]
    state = learn(noisy)
    before = estimate(state)
    wild = Sample("p", 201.0, 1.0, completions=100.0, cpu_seconds=1000.0)
    after = estimate(learn([wild], state))
    assert abs(after.per_request - before.per_request) < 3 * before.deviation


def test_resets_and_gaps_change_nothing() -> None:
    state = learn(rows(varied(100), base=0.1, cost=0.01))
    for cpu, completions in ((-5.0, 30.0), (None, 30.0), (0.4, None), (0.4, -900.0), (math.nan, 3.0), (0.4, math.inf)):
        assert learn([Sample("p", 101.0, 1.0, completions=completions, cpu_seconds=cpu)], state) == state


def test_hours_without_load_leave_the_cost_and_its_uncertainty_bounded() -> None:
    state = learn(rows(varied(200), base=0.1, cost=0.01))
    before = estimate(state)
    after = estimate(learn(rows([0.0] * 20_000, base=0.1, cost=0.01, start=200), state))
    assert after.per_request == pytest.approx(before.per_request, rel=0.02)
    assert after.base == pytest.approx(0.1, rel=0.01)
    assert after.deviation < 0.1 * after.per_request


@pytest.mark.parametrize("base", [0.0, 0.1])
def test_the_truth_is_within_three_deviations(base: float) -> None:
    # Exponential work per request: variance of a window's CPU seconds is completions * cost^2.
    generator = np.random.default_rng(6)
    hits, runs = 0, 60
    for _ in range(runs):
        state: CostState | None = None
        for t in range(150):
            n = int(generator.poisson(55 + 45 * math.sin(t / 20)))
            cpu = base + float(generator.gamma(n, 0.01)) if n else base
            state = Cost().update(state, Sample("p", t + 1.0, 1.0, completions=n, cpu_seconds=cpu))
        found = estimate(state)
        hits += abs(found.per_request - 0.01) <= 3 * found.deviation
    # At a true rate of 99.7 % fewer than 55 hits of 60 have a probability below 1e-8.
    assert hits >= 55


def test_requests_longer_than_an_interval_are_not_taken_for_base_load() -> None:
    # One request at a time, each 3 s of one CPU: in two of three seconds nothing completes.
    samples = [Sample("p", t, 1.0, completions=float(t % 3 == 0), cpu_seconds=1.0) for t in range(1, 901)]
    assert estimate(learn(samples)).per_request == pytest.approx(3.0, rel=0.05)


def test_a_cpu_counter_that_is_read_seldom_counts_with_the_requests_since() -> None:
    # Requests are counted every second, their CPU every tenth, all at once: 60 a second of 5 ms.
    samples = [
        Sample("p", float(t), 1.0, completions=60.0, cpu_seconds=3.0 if t % 10 == 0 else 0.0) for t in range(1, 301)
    ]
    state = None
    for sample in samples:
        state = Cost().update(state, sample)
        found = Cost().estimate(state)
        assert found is None or found.per_request == pytest.approx(0.005, rel=0.05)
    assert estimate(state).per_request == pytest.approx(0.005, rel=0.01)
