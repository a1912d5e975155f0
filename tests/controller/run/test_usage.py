"""Budgets whose only source says how much CPU is in use, as the metrics API does."""

from __future__ import annotations

import pytest

from headgate.controller.run.grants import Grants
from headgate.core.budgets import CPUBudget
from headgate.core.model import Sample

from .conftest import Bench, MemoryHome, budget
from .memory_host import MemoryHost, Service


class Metered(MemoryHost):
    """Tells CPU in use only, `late` seconds after it was measured, and nothing once `silent`."""

    late = 0.0
    silent_since: float | None = None

    def sample(self, name: str) -> Sample | None:
        service = self.services[name]
        assert service.rate is not None
        used = min(service.rate * service.cost, service.actual / 1000)
        time = self.clock() if self.silent_since is None else self.silent_since
        return Sample(name, time - self.late, 10.0, cpu_seconds=used * 10)


def metered(busy: float, other: float, **spec: object) -> tuple[Bench, Metered]:
    """Two services with 2 CPUs each of a budget of 4, which need so many."""
    host = Metered({"a/busy": Service(2000, rate=busy * 10), "a/other": Service(2000, rate=other * 10)}, limit=4000)
    return Bench(host, MemoryHome([budget(**spec)])), host


@pytest.mark.parametrize("late", [0.0, 20.0])
def test_cpus_move_to_who_uses_all_it_has(late: float) -> None:
    bench, host = metered(3.0, 0.3)
    host.late = late
    bench.turns(20)
    # It needs 3 of the 4 CPUs and has them; the other keeps more than its 0.3.
    assert bench.asked()["a/busy"] >= 3000
    assert bench.asked()["a/other"] >= 300
    assert host.highest == 4000
    (status,) = [p for p in bench.home.reports["a/main"][-1]["pipelines"] if p["name"] == "a/busy"]
    assert "by the CPU in use alone" in status["reason"]


def test_two_that_use_all_they_have_keep_their_proportion() -> None:
    bench, host = metered(9.0, 9.0)
    bench.turns(10)
    assert bench.asked() == {"a/busy": 2000, "a/other": 2000}
    assert host.writes == []


def test_samples_that_grow_old_move_nothing() -> None:
    bench, host = metered(3.0, 0.3)
    bench.turns(20)
    host.silent_since, host.writes = bench.now - bench.interval, []  # what was measured for the last turn
    host.services["a/other"].rate, host.services["a/busy"].rate = 30.0, 3.0
    bench.turns(20)
    assert host.writes == []
    reasons = [p["reason"] for p in bench.home.reports["a/main"][-1]["pipelines"]]
    assert all("s old" in reason for reason in reasons)


def test_counted_requests_win() -> None:
    bench, host = metered(3.0, 0.3)
    bench.turns(20)
    bench.home.found = [budget(generation=2)]
    host.__class__ = MemoryHost  # now it counts requests, too
    bench.turns(3)
    # Loads of 3 and 0.3: 4 * 3 / 3.3.
    assert abs(bench.asked()["a/busy"] - 3636) <= 10
    reasons = [p["reason"] for p in bench.home.reports["a/main"][-1]["pipelines"]]
    assert not any("CPU in use" in reason for reason in reasons)


def test_slo_falls_back_to_the_load() -> None:
    slo = {"pipelines": [{"selector": {}, "slo": {"latency": "1ms", "percentile": 99}}]}
    bench, _ = metered(3.0, 0.3, **slo)
    assert isinstance(bench.home.found[0], CPUBudget)
    bench.turns(20)
    assert bench.asked()["a/busy"] >= 3000
    assert bench.home.condition("a/main", "Ready") == ("True", "Decided")


def test_a_sample_is_told_what_was_granted_in_its_window() -> None:
    grants = Grants()
    for time, granted in ((100.0, 1000), (110.0, 1000), (120.0, 3000)):
        grants.note({"p": granted}, time)
    # 5 s with 1000m and 10 s with 3000m.
    found = grants.beside(Sample("p", 130.0, 15.0))
    assert found.granted == round((5 * 1000 + 10 * 3000) / 15)
    assert grants.beside(Sample("p", 110.0, 50.0)).granted == 1000, "as when it was first seen"
    assert grants.beside(Sample("p", 130.0, 15.0, granted=7)).granted == 7
    assert grants.beside(Sample("other", 130.0, 15.0)).granted is None
    grants.note({}, 140.0)
    assert grants.beside(Sample("p", 130.0, 15.0)).granted is None
