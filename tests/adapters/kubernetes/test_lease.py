"""Leader election against the double of the API server: never two who may write, whatever fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.cluster.double.faults import matching
from tests.cluster.harness import Cluster

from headgate.adapters.kubernetes.api import Api, ApiError
from headgate.adapters.kubernetes.lease import Lease
from headgate.adapters.kubernetes.settings import LeaseSettings

WHERE = "/leases/"


class Candidate:
    """A process of the election, on a clock that the test moves."""

    def __init__(self, cluster: Cluster, name: str, **terms: float) -> None:
        self.now = 100.0
        self.api = Api(cluster.connection(), timeout=5)
        self.lease = Lease(self.api, cluster.namespace, name, LeaseSettings.model_validate(terms), lambda: self.now)

    def step(self, seconds: float = 0.0) -> bool:
        self.now += seconds
        with suppress(ApiError):
            self.lease.step()
        return self.lease.leads()


@pytest.fixture
def pair(double: Cluster) -> tuple[Candidate, Candidate]:
    return Candidate(double, "one"), Candidate(double, "two")


def test_a_term_after_another_on_whichever_server(cluster: Cluster) -> None:
    one, two = Candidate(cluster, "one"), Candidate(cluster, "two")
    assert one.step()
    assert one.step(2)
    assert not two.step(2)
    one.lease.close()
    assert two.step(2)
    assert not one.lease.leads()
    two.step(2)
    spec = cluster.client.get("leases", "headgate", cluster.namespace)["spec"]
    assert (spec["holderIdentity"], spec["leaseTransitions"]) == ("two", 1)


def test_the_first_one_leads_and_stays(pair: tuple[Candidate, Candidate]) -> None:
    one, two = pair
    assert one.step()
    for _ in range(20):
        assert one.step(2)
        assert not two.step(2)


def test_the_object_is_as_others_expect_it(double: Cluster, pair: tuple[Candidate, Candidate]) -> None:
    one, two = pair
    one.step()
    spec = double.client.get("leases", "headgate", double.namespace)["spec"]
    assert (spec["holderIdentity"], spec["leaseDurationSeconds"], spec["leaseTransitions"]) == ("one", 15, 0)
    two.step()
    for _ in range(8):
        two.step(2)
    spec = double.client.get("leases", "headgate", double.namespace)["spec"]
    assert (spec["holderIdentity"], spec["leaseTransitions"]) == ("two", 1)


def test_a_dead_leader_is_followed_after_its_lease_and_not_before(pair: tuple[Candidate, Candidate]) -> None:
    one, two = pair
    one.step()
    two.step()  # sees the lease; 15 s from here on it must stay silent
    for _ in range(7):
        assert not two.step(2)
    assert two.step(2)


def test_who_cannot_renew_stops_long_before_another_may_lead(
    double: Cluster, pair: tuple[Candidate, Candidate]
) -> None:
    one, _ = pair
    one.step()
    double.faults.fail(matching("PATCH", WHERE), 503, times=-1)
    # Held for 15 s from the renewal; the last write must begin 10 s, a request's time, before that.
    assert one.step(2)
    assert one.step(3)
    assert not one.step(0.1)
    double.faults.heal()
    assert one.step(2), "nobody took it meanwhile: it goes on"


def test_a_lost_answer_is_no_lost_lease(double: Cluster, pair: tuple[Candidate, Candidate]) -> None:
    one, two = pair
    one.step()
    double.faults.drop(matching("PATCH", WHERE), times=1)
    one.step(2)
    assert one.step(2), "its own renewal is found, under a version that it did not know"
    assert not two.step()


def test_giving_it_up_lets_another_lead_at_once(pair: tuple[Candidate, Candidate]) -> None:
    one, two = pair
    one.step()
    two.step()
    one.lease.close()
    assert not one.lease.leads()
    assert two.step(2)


def test_of_two_who_take_it_at_the_same_moment_one_leads(double: Cluster) -> None:
    crowd = [Candidate(double, f"c{i}") for i in range(6)]
    crowd[0].step()
    crowd[0].lease.close()
    start = threading.Barrier(len(crowd) - 1)

    def compete(candidate: Candidate) -> None:
        start.wait()
        candidate.step()

    threads = [threading.Thread(target=compete, args=(candidate,)) for candidate in crowd[1:]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(candidate.lease.leads() for candidate in crowd) <= 1


def test_without_the_right_to_it_nobody_leads(double: Cluster) -> None:
    candidate = Candidate(double, "one")
    double.faults.fail(matching(path=WHERE), 403, "leases is forbidden", times=-1)
    assert not candidate.step()


FATES = st.sampled_from(["well", "refused", "lost", "asleep", "partitioned"])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.integers(0, 2), FATES, st.sampled_from([0.5, 2.0, 2.0, 2.0, 6.0, 16.0])), min_size=5, max_size=40
    )
)
def test_never_two_at_any_instant(double: Cluster, story: list[tuple[int, str, float]]) -> None:
    """Three candidates on one true time, each step of one of them with some fate; asked after every step."""
    if double.client.find("leases", "headgate", double.namespace) is not None:
        double.client.delete("leases", "headgate", double.namespace)
    crowd = [Candidate(double, f"c{i}") for i in range(3)]
    for who, fate, seconds in story:
        for candidate in crowd:
            candidate.now += seconds
        if fate == "refused":
            double.faults.fail(matching("write", WHERE), 503, times=1)
        elif fate == "lost":
            double.faults.drop(matching("write", WHERE), times=1)
        elif fate == "partitioned":
            double.faults.fail(matching(path=WHERE), 503, times=-1)
        if fate != "asleep":
            crowd[who].step()
        double.faults.heal()
        # A write that begins now may last as long as the deadline, and must be over before another may begin.
        leading = [candidate for candidate in crowd if candidate.lease.leads()]
        assert len(leading) <= 1
        held = [candidate for candidate in crowd if candidate.lease._until > candidate.now]
        assert not leading or held == leading, "nobody else may believe to hold it while one may write"


@pytest.fixture
def live(double: Cluster) -> Iterator[list[Lease]]:
    """Two candidates with threads of their own and short terms."""
    terms = LeaseSettings(duration=3, deadline=1, retry=0.2)
    made = [Lease(Api(double.connection(), 1), double.namespace, name, terms) for name in ("one", "two")]
    yield made
    for lease in made:
        lease.close()


def until(condition: Any) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "never happened"
        time.sleep(0.01)


def test_two_real_contenders_the_second_takes_over_when_the_first_is_cut_off(
    double: Cluster, live: list[Lease]
) -> None:
    one, two = live
    both: list[float] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            if one.leads() and two.leads():
                both.append(time.monotonic())
            time.sleep(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    one.start()
    until(one.leads)
    two.start()
    # Cut off for good: the first one's requests fail, the second one's do not.
    one._api = Api(_nowhere(), 1)
    until(two.leads)
    assert not one.leads()
    done.set()
    watcher.join()
    assert both == []


def _nowhere() -> Any:
    from kubernetes import client

    found = client.Configuration(host="http://127.0.0.1:1")
    found.retries = False
    return client.ApiClient(found)
