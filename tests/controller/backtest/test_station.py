"""The queueing simulation against closed forms and conservation laws."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.controller.backtest.station import Station

REQUESTS = 400_000


def latencies(
    rate: float,
    services: np.ndarray,
    *,
    servers: int,
    bound: int = 10**6,
    in_flight: int = 1,
    cpus: float | None = None,
    deadline: float = math.inf,
) -> np.ndarray:
    random = np.random.default_rng(7)
    arrivals = np.cumsum(random.exponential(1 / rate, len(services)))
    station = Station(bound=bound, in_flight=in_flight, deadline=deadline)
    station.resize(open_servers=servers, cpus=servers if cpus is None else cpus)
    station.feed(arrivals, services)
    station.advance(arrivals[-1] + 1e6)
    result = station.settled(len(services))
    assert result is not None
    return result


def exponential(mean: float) -> np.ndarray:
    return np.random.default_rng(11).exponential(mean, REQUESTS)


def erlang_c(servers: int, load: float) -> float:
    last = load**servers / math.factorial(servers) / (1 - load / servers)
    return last / (sum(load**k / math.factorial(k) for k in range(servers)) + last)


def test_m_m_1_waits_as_the_formula_says() -> None:
    # Response time of M/M/1 is exponential with rate mu - lambda.
    found = latencies(0.7, exponential(1.0), servers=1)
    assert found.mean() == pytest.approx(1 / (1 - 0.7), rel=0.04)
    assert np.percentile(found, 95) == pytest.approx(-math.log(0.05) / 0.3, rel=0.05)


@pytest.mark.parametrize(("servers", "load"), [(2, 1.4), (8, 6.4)])
def test_m_m_c_waits_as_erlang_says(servers: int, load: float) -> None:
    expected = 1 + erlang_c(servers, load) / (servers - load)
    assert latencies(load, exponential(1.0), servers=servers).mean() == pytest.approx(expected, rel=0.03)


def test_m_d_1_waits_as_pollaczek_and_khinchine_say() -> None:
    found = latencies(0.8, np.ones(REQUESTS), servers=1)
    assert found.mean() == pytest.approx(1 + 0.8 / (2 * 0.2), rel=0.04)


def test_m_m_c_k_drops_as_erlang_says() -> None:
    # Room for c in service and bound + 1 in the queue: "finds more than bound queued" is dropped.
    servers, bound, load = 3, 4, 3.5
    weights = [load**k / math.factorial(k) for k in range(servers + 1)]
    weights += [weights[servers] * (load / servers) ** k for k in range(1, bound + 2)]
    found = latencies(load, exponential(1.0), servers=servers, bound=bound)
    assert np.isinf(found).mean() == pytest.approx(weights[-1] / sum(weights), rel=0.03)


@pytest.mark.parametrize(("deadline", "room"), [(6.1, 12), (0.1, 3)])
def test_shedding_refuses_who_comes_too_late_but_leaves_no_server_idle(deadline: float, room: int) -> None:
    # Mean and deviation of the services are 1: the n-th request at 3 servers takes (n - 3) / 3 + 1, and 2 for safety,
    # so that 6.1 s are enough for n = 12 (3 + 1 + 2 = 6) and not for n = 13. This is M/M/3/12; 0.1 s: M/M/3/3.
    servers, load = 3, 4.0
    weights = [load**k / math.factorial(k) for k in range(servers + 1)]
    weights += [weights[servers] * (load / servers) ** k for k in range(1, room - servers + 1)]
    found = latencies(load, exponential(1.0), servers=servers, deadline=deadline)
    assert np.isinf(found).mean() == pytest.approx(weights[-1] / sum(weights), rel=0.03)


def test_shedding_bounds_the_wait_and_wastes_no_cpu() -> None:
    # The tenth of 4 servers' requests is the last to be let in: (10 - 4) / 4 + 1 = 2.5. Six wait before or with it,
    # for the ends of two services of each server at the most.
    found = latencies(8.0, np.full(REQUESTS // 8, 1.0), servers=4, deadline=2.5)
    admitted = found[np.isfinite(found)][1000:]
    assert admitted.max() <= 3.0
    assert len(admitted) / len(found[1000:]) == pytest.approx(0.5, rel=0.03)  # 4 servers are always busy


def test_shared_cpus_are_a_slower_server() -> None:
    # One server on half a CPU serves at half the speed.
    whole = latencies(0.35, exponential(2.0), servers=1)
    half = latencies(0.35, exponential(1.0), servers=1, cpus=0.5)
    np.testing.assert_allclose(half, whole, rtol=1e-6)


def test_processor_sharing_of_two_requests() -> None:
    # Two servers on one CPU: alone from 0 to 1, shared from 1 to 5; 1 s and 2 s of 3 s done at 3, ...
    station = Station(bound=10)
    station.resize(open_servers=2, cpus=1.0)
    station.feed(np.array([0.0, 1.0]), np.array([3.0, 1.0]))
    station.advance(10.0)
    # The second needs 1 s of CPU at half speed: done at 3. The first has 1 s left then: done at 4.
    np.testing.assert_allclose(station.settled(2), [4.0, 2.0])


def test_round_robin_assigns_in_turn_and_waits_behind_the_earlier() -> None:
    station = Station(bound=10, in_flight=2)
    station.resize(open_servers=2, cpus=2.0)
    station.feed(np.array([0.0, 0.1, 0.2]), np.array([5.0, 1.0, 1.0]))
    station.advance(20.0)
    # The third goes to the first server, behind the first request, although the second is free at 1.1.
    np.testing.assert_allclose(station.settled(3), [5.0, 1.0, 5.8])


def test_the_router_is_crossed_twice() -> None:
    station = Station(bound=10, router=0.5)
    station.resize(open_servers=4, cpus=4.0)
    station.feed(np.array([0.0, 0.1]), np.array([1.0, 1.0]))
    station.advance(20.0)
    # In: 0 -> 0.5, 0.1 -> 1.0. Served until 1.5 and 2.0. Out: 1.5 -> 2.0, 2.0 -> 2.5.
    np.testing.assert_allclose(station.settled(2), [2.0, 2.4])


def test_a_closed_server_finishes_what_it_has() -> None:
    station = Station(bound=10)
    station.resize(open_servers=2, cpus=2.0)
    station.feed(np.array([0.0, 0.0, 1.0]), np.array([4.0, 4.0, 1.0]))
    station.advance(2.0)
    station.resize(open_servers=1, cpus=1.0)
    station.advance(20.0)
    # From 2 on both share one CPU: 2 s left each, done at 6. Then the third.
    np.testing.assert_allclose(station.settled(3), [6.0, 6.0, 6.0])


def test_without_cpus_nothing_happens() -> None:
    station = Station(bound=1)
    station.resize(open_servers=0, cpus=0.0)
    station.feed(np.array([1.0, 2.0, 3.0]), np.ones(3))
    station.advance(100.0)
    seen = station.counters()
    assert (seen.arrivals, seen.waiting, seen.dropped, seen.cpu_seconds) == (3, 2, 1, 0.0)
    assert station.settled(3) is None
    np.testing.assert_array_equal(station.abandon(3), [np.inf, np.inf, np.inf])


@given(
    seed=st.integers(0, 2**32 - 1),
    bound=st.integers(0, 5),
    in_flight=st.integers(1, 4),
    sizes=st.lists(st.tuples(st.integers(0, 5), st.floats(0, 5)), min_size=1, max_size=8),
)
def test_no_request_is_lost_and_no_cpu_second_invented(
    seed: int, bound: int, in_flight: int, sizes: list[tuple[int, float]]
) -> None:
    random = np.random.default_rng(seed)
    station = Station(bound=bound, in_flight=in_flight)
    capacity = 0.0
    total = 0
    for step, (servers, cpus) in enumerate(sizes):
        station.resize(open_servers=servers, cpus=cpus)
        count = int(random.integers(0, 20))
        station.feed(np.sort(random.uniform(step, step + 1, count)), random.exponential(0.3, count))
        total += count
        station.advance(step + 1.0)
        capacity += cpus
        seen = station.counters()
        assert seen.arrivals == total
        assert seen.arrivals == seen.completions + seen.dropped + seen.waiting + seen.running
        assert seen.cpu_seconds <= capacity + 1e-9
    station.resize(open_servers=1, cpus=1.0)
    station.advance(1e4)
    seen = station.counters()
    assert (seen.waiting, seen.running) == (0, 0)
    assert seen.cpu_seconds == pytest.approx(seen.work)
    found = station.settled(total)
    assert found is not None
    assert int(np.isinf(found).sum()) == seen.dropped


def test_feeding_minute_by_minute_changes_nothing() -> None:
    random = np.random.default_rng(3)
    arrivals = np.sort(random.uniform(0, 100, 3000))
    services = random.exponential(0.06, 3000)
    whole, parts = Station(bound=20, in_flight=3), Station(bound=20, in_flight=3)
    for station in (whole, parts):
        station.resize(open_servers=2, cpus=2.0)
    whole.feed(arrivals, services)
    whole.advance(1000.0)
    collected = []
    pending: list[int] = []
    for minute in range(10):
        now = (arrivals >= 10 * minute) & (arrivals < 10 * minute + 10)
        parts.feed(arrivals[now], services[now])
        pending.append(int(now.sum()))
        parts.advance(10.0 * minute + 10)
        while pending and (settled := parts.settled(pending[0])) is not None:
            collected.append(settled)
            pending.pop(0)
    parts.advance(1000.0)
    collected += [part for count in pending if (part := parts.settled(count)) is not None]
    np.testing.assert_allclose(np.concatenate(collected), whole.settled(3000))
