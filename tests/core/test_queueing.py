"""core.queueing against closed forms of queueing theory, and what must hold for any input."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from headgate.core.queueing import (
    Curves,
    Traffic,
    dropped,
    erlang_c,
    mean_wait,
    percentile,
    within,
)

STATIONARY = 1e12
"""A horizon in seconds over which a queue below capacity is in its stationary state."""


def exact_erlang_c(servers: int, load: float) -> float:
    """By the recursion for Erlang's B: B(0) = 1, B(i) = a B(i - 1) / (i + a B(i - 1))."""
    blocked = 1.0
    for i in range(1, servers + 1):
        blocked = load * blocked / (i + load * blocked)
    return blocked / (1 - load / servers * (1 - blocked))


@pytest.mark.parametrize(
    ("servers", "bound"), [(1, 0.001), (2, 0.00014), (3, 0.00014), (5, 1e-5), (10, 1e-5), (100, 1e-5), (5000, 1e-5)]
)
def test_erlang_c_keeps_its_documented_error(servers: int, bound: float) -> None:
    for utilisation in np.linspace(0.01, 0.999, 100):
        exact = exact_erlang_c(servers, utilisation * servers)
        assert erlang_c(servers, utilisation) == pytest.approx(exact, abs=bound)


@pytest.mark.parametrize("servers", [1.1, 1.5, 2.5, 7.3, 40.9])
def test_erlang_c_between_whole_servers_is_the_incomplete_gamma_function(servers: float) -> None:
    # 1 / B(m, a) = Gamma(m + 1, a) e^a / a^m, the continuation of a sum over whole m (Jagerman 1974).
    for utilisation in (0.1, 0.5, 0.8, 0.95):
        load = servers * utilisation
        log = special.gammaln(servers + 1) + load - servers * math.log(load)
        blocked = 1 / (math.exp(log) * special.gammaincc(servers + 1, load))
        exact = blocked / (1 - utilisation * (1 - blocked))
        assert erlang_c(servers, utilisation) == pytest.approx(exact, abs=0.001)


def test_erlang_c_is_monotone() -> None:
    utilisation = np.linspace(0, 1.1, 20_001)
    servers = np.array([1, 1.01, 1.5, 2, 7.3, 100, 1e4, 1e6])[:, None]
    assert (np.diff(erlang_c(servers, utilisation), axis=1) >= 0).all()
    assert (erlang_c(servers, 1.0) == 1).all()
    load = np.array([0.01, 0.5, 0.99, 3, 30, 1e4])[:, None]
    more = np.maximum(load, 1) * np.geomspace(1, 100, 20_001)
    assert (np.diff(erlang_c(more, load / more), axis=1) <= 0).all()


def test_one_server_is_m_m_1() -> None:
    # The sojourn time of M/M/1 is exponential with rate mu - lambda; C's error at one server bounds ours.
    rate, service, latency = 8.0, 0.1, np.array([0.05, 0.2, 0.5, 1.0, 3.0])
    expected = 1 - np.exp(-(1 / service - rate) * latency)
    assert within(Traffic(rate, service), 1.0, latency, horizon=STATIONARY) == pytest.approx(expected, abs=0.001)


@pytest.mark.parametrize("servers", [2, 4, 16, 64])
@pytest.mark.parametrize("utilisation", [0.3, 0.7, 0.95])
def test_many_servers_are_m_m_c(servers: int, utilisation: float) -> None:
    # R > t: a service alone, or, with probability C, an exponential wait of rate theta = c mu - lambda before it.
    mu = 10.0
    theta = servers * mu * (1 - utilisation)
    c = exact_erlang_c(servers, servers * utilisation)
    for t in (0.05, 0.1, 0.3, 0.6, 1.2):
        both = (mu * math.exp(-theta * t) - theta * math.exp(-mu * t)) / (mu - theta)
        expected = 1 - (1 - c) * math.exp(-mu * t) - c * both
        traffic = Traffic(servers * mu * utilisation, 1 / mu)
        assert within(traffic, servers, t, horizon=STATIONARY) == pytest.approx(expected, abs=0.0002)


def test_where_wait_and_service_have_the_same_rate_the_sojourn_is_gamma() -> None:
    # theta = c mu (1 - rho) = mu at c = 2, rho = 1/2: R > t is (1 + C mu t) e^(-mu t), no division by 0.
    mu, t = 10.0, np.array([0.05, 0.1, 0.4])
    expected = 1 - (1 + exact_erlang_c(2, 1.0) * mu * t) * np.exp(-mu * t)
    assert within(Traffic(10.0, 0.1), 2.0, t, horizon=STATIONARY) == pytest.approx(expected, abs=0.0002)


@pytest.mark.parametrize("cv", [0.0, 0.215, 1.0, 2.0])
@pytest.mark.parametrize("utilisation", [0.1, 0.5, 0.9])
def test_the_mean_wait_of_one_server_is_pollaczek_khinchine(cv: float, utilisation: float) -> None:
    service = 0.2
    expected = utilisation * service * (1 + cv * cv) / (2 * (1 - utilisation))
    # C at one server is the utilisation with a relative error of up to 0.0028.
    found = mean_wait(Traffic(utilisation / service, service, cv), 1.0, horizon=STATIONARY)
    assert found == pytest.approx(expected, rel=0.0028)


@pytest.mark.parametrize("utilisation", [0.3, 0.6, 0.9])
def test_a_constant_service_is_m_d_1(utilisation: float) -> None:
    # Erlang's and Crommelin's distribution of the wait: P(W <= t) = (1 - r) sum_k (-u_k)^k e^(u_k) / k!,
    # u_k = lambda (t - k s) >= 0. Its tail is exponential only asymptotically, hence 0.06.
    service = 0.1
    rate = utilisation / service
    for wait in np.array([0.0, 0.5, 1.0, 2.0, 4.0]) * service:
        u = [rate * (wait - k * service) for k in range(int(wait / service + 1e-9) + 1)]
        expected = (1 - utilisation) * sum((-x) ** k * math.exp(x) / math.factorial(k) for k, x in enumerate(u))
        found = within(Traffic(rate, service, 0.0), 1.0, service + wait, horizon=STATIONARY)
        assert found == pytest.approx(expected, abs=0.06)
    assert within(Traffic(rate, service, 0.0), 1.0, service * 0.999, horizon=STATIONARY) == 0


def test_without_load_only_the_service_takes_time() -> None:
    t = np.array([0.05, 0.1, 0.2])
    assert within(Traffic(0.0, 0.1, 1.0), 3.0, t) == pytest.approx(1 - np.exp(-t / 0.1))
    assert (within(Traffic(0.0, 0.1, 0.0), 3.0, t) == [0, 1, 1]).all()
    assert mean_wait(Traffic(0.0, 0.1), 3.0) == pytest.approx(0, abs=1e-9)


def test_a_service_that_takes_no_time_is_always_in_time() -> None:
    assert within(Traffic(100.0, 0.0), [0.0, 0.5, 4.0], 0.01) == pytest.approx(1)
    assert (dropped(Traffic(100.0, 0.0), [0.0, 0.5, 4.0]) == 0).all()


def test_a_share_of_a_cpu_is_a_slower_server() -> None:
    # At a quarter of the speed everything takes four times as long, arrivals included.
    slow = within(Traffic(2.0, 0.1, 0.5), 0.25, 1.6, horizon=240)
    assert slow == pytest.approx(within(Traffic(8.0, 0.1, 0.5), 1.0, 0.4, horizon=60), rel=1e-12)


def test_amdahl_limits_what_more_cpus_serve() -> None:
    # f = 0.9: 4 CPUs do the work of 4 / (0.1 * 4 + 0.9) servers; below one CPU nothing is lost.
    partly = Traffic(30.0, 0.1, parallel_fraction=0.9)
    assert within(partly, 4.0, 0.5) == pytest.approx(float(within(Traffic(30.0, 0.1), 4 / 1.3, 0.5)))
    few = Traffic(3.0, 0.1, parallel_fraction=0.9)
    assert within(few, 0.5, 0.5) == pytest.approx(float(within(Traffic(3.0, 0.1), 0.5, 0.5)))
    # No more than 1 / (1 - f) = 10 servers with any number of CPUs, so half of a load of 20 is dropped.
    assert dropped(Traffic(200.0, 0.1, parallel_fraction=0.9), 1e9) == pytest.approx(0.5, abs=1e-6)


def test_overload_drops_what_exceeds_the_capacity() -> None:
    # 60 requests of 0.1 s: a load of 6 CPUs.
    assert dropped(Traffic(60.0, 0.1), [3.0, 6.0, 9.0, 1.5]) == pytest.approx([0.5, 0.0, 0.0, 0.75])


def test_deep_overload_follows_the_fluid_queue() -> None:
    # The queue grows to (r - 1) H seconds: t / ((r - 1) H) of the requests wait less than t, half of it is the mean.
    traffic, cpus, horizon, wait = Traffic(30.0, 0.1, 0.0), 2.0, 100.0, 0.5
    assert within(traffic, cpus, 0.1 + wait, horizon=horizon) == pytest.approx(wait / (0.5 * horizon), rel=0.02)
    assert mean_wait(traffic, cpus, horizon=horizon) == pytest.approx(0.25 * horizon, rel=0.01)


def test_full_load_is_no_edge() -> None:
    cpus = 4 + np.array([-1e-6, 0, 1e-6])
    low, middle, high = within(Traffic(40.0, 0.1), cpus, 1.0)
    assert low <= middle <= high
    assert high - low < 1e-4
    below, at, above = mean_wait(Traffic(40.0, 0.1), cpus)
    assert below >= at >= above
    assert below - above < 1e-3


def test_a_waiting_queue_delays_newcomers_until_it_has_drained() -> None:
    # 100 requests of 0.1 s before 4 servers are 2.5 s of backlog; at half load they drain in 5 s of the 50 s.
    alone, behind = (Traffic(20.0, 0.1, 0.0, queue) for queue in (0, 100))
    extra = mean_wait(behind, 4.0, horizon=50) - mean_wait(alone, 4.0, horizon=50)
    assert extra == pytest.approx(2.5 / 2 * 5 / 50)
    # Newcomers of the first 5 s - 2 * (t - s) wait more than t - s; 0.02 for the random part of the wait.
    late = (5 - 2 * 0.5) / 50
    assert within(behind, 4.0, 0.6, horizon=50) == pytest.approx(1 - late, abs=0.02)


def test_the_percentile_is_the_inverse_of_the_share() -> None:
    rng = np.random.default_rng(1)
    traffic = Traffic(rng.uniform(0, 60, (50, 1)), 0.1, rng.uniform(0.1, 2, (50, 1)), rng.integers(0, 50, (50, 1)))
    cpus = rng.uniform(0.2, 8, (50, 7))
    for percent in (50.0, 95.0, 99.9):
        assert within(traffic, cpus, percentile(traffic, cpus, percent)) == pytest.approx(percent / 100, abs=1e-6)
    for wrong in (0.0, 100.0, math.nan):
        with pytest.raises(ValueError, match="percentile"):
            percentile(traffic, cpus, wrong)


def test_many_pipelines_at_once_are_the_same_as_each_alone() -> None:
    rng = np.random.default_rng(2)
    n, k = 3000, 20
    columns = [rng.uniform(0, 100, (n, 1)), rng.uniform(0.001, 0.1, (n, 1)), rng.uniform(0, 2, (n, 1)),
               rng.integers(0, 3, (n, 1)) * 10.0, rng.uniform(0.8, 1, (n, 1))]  # fmt: skip
    cpus, latency = rng.uniform(0.1, 20, (n, k)), rng.uniform(0.05, 1, (n, 1))
    together = within(Traffic(*columns), cpus, latency)
    assert together.shape == (n, k)
    for i in (0, 1, 1234, 2999):
        alone = within(Traffic(*(column[i] for column in columns)), cpus[i], latency[i])
        assert together[i] == pytest.approx(alone, abs=1e-12)


@pytest.mark.parametrize("scenarios", [1, 5])
def test_curves_are_the_mean_over_the_scenarios(scenarios: int) -> None:
    rng = np.random.default_rng(3)
    n, k = 3000, 12
    rates, cpus, latency = rng.uniform(0, 100, (n, scenarios)), rng.uniform(0.5, 12, (n, k)), rng.uniform(0.1, 1, n)
    columns = 0.1, rng.uniform(0, 1.5, n), rng.integers(0, 3, n) * 10.0, rng.uniform(0.8, 1, n)
    found = Curves.of(rates, Traffic(0.0, *columns), latency)(cpus)
    upright = [np.asarray(column).reshape(-1, 1) for column in columns]
    each = [within(Traffic(rates[:, [i]], *upright), cpus, latency[:, None]) for i in range(scenarios)]
    assert found == pytest.approx(np.mean(each, axis=0), abs=1e-12)


amounts = st.one_of(st.just(0.0), st.floats(1e-6, 1e6), st.floats(0, 1e300))
TINY_NOISE = 1e-8


@st.composite
def traffics(draw: st.DrawFn) -> Traffic:
    cv = st.one_of(st.sampled_from([0.0, 0.5, 1.0, 2.0]), st.floats(0, 1e6))
    return Traffic(
        draw(amounts), draw(amounts), draw(cv), draw(amounts), draw(st.floats(0, 1)), draw(st.sampled_from([0, 1, 2]))
    )


@settings(max_examples=400)
@given(traffics(), st.lists(amounts, min_size=2, max_size=6), amounts)
def test_any_input_has_a_finite_answer_that_more_cpus_do_not_worsen(t: Traffic, some: list[float], x: float) -> None:
    cpus = np.sort(some)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        share, wait, lost = within(t, cpus, x), mean_wait(t, cpus), dropped(t, cpus)
    assert ((share >= 0) & (share <= 1)).all()
    assert ((lost >= 0) & (lost <= 1)).all()
    assert (wait >= 0).all()
    assert np.isfinite(wait).all()
    assert (np.diff(share) >= -TINY_NOISE).all()
    assert (np.diff(lost) <= TINY_NOISE).all()
    assert (np.diff(wait) <= TINY_NOISE * (1 + wait[:-1])).all()


@settings(max_examples=400)
@given(traffics(), st.lists(amounts, min_size=2, max_size=6), amounts, amounts)
def test_more_load_never_improves(t: Traffic, some: list[float], cpus: float, latency: float) -> None:
    more = np.sort(some)
    for busier in (
        Traffic(more, t.service_time, t.service_cv, t.queue, t.parallel_fraction, t.arrival_cv),
        Traffic(t.arrival_rate, t.service_time, t.service_cv, more, t.parallel_fraction, t.arrival_cv),
    ):
        assert (np.diff(within(busier, cpus, latency)) <= TINY_NOISE).all()
        wait = mean_wait(busier, cpus)
        assert (np.diff(wait) >= -TINY_NOISE * (1 + wait[:-1])).all()
        assert (np.diff(dropped(busier, cpus)) >= 0).all()


@settings(max_examples=400)
@given(traffics(), st.lists(amounts, min_size=2, max_size=6), amounts)
def test_more_time_never_means_fewer_in_time(t: Traffic, some: list[float], cpus: float) -> None:
    assert (np.diff(within(t, cpus, np.sort(some))) >= -TINY_NOISE).all()


@settings(max_examples=200)
@given(traffics(), amounts, st.floats(0.1, 99.9))
def test_every_percentile_is_finite(t: Traffic, cpus: float, percent: float) -> None:
    found = percentile(t, cpus, percent)
    assert np.isfinite(found)
    assert found >= 0
