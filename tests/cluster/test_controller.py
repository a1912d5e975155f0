"""`headgate run` as a process against a cluster: CPUs move in place, also when the process is killed half-way."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from tests.cluster import builders as make
from tests.cluster.harness import Cluster
from tests.cluster.process import INTERVAL, Headgate, Load, budget, until
from tests.cluster.recorder import Recorder, committed
from tests.controller.sources.conftest import Answer, Asked, Web, web

__all__ = ["web"]

NOTE = {"serving.kserve.io/autoscalerClass": "external"}
NEVER = 1e9

Start = Callable[[], Headgate]


@pytest.fixture
def served(cluster: Cluster) -> Cluster:
    """Services "a" with 1500m and "b" with 500m on one node; the kubelets need half a second."""
    cluster.space("headgate")
    cluster.client.create("nodes", make.node("n1"))
    cluster.plane.settle()
    for name, cpu in (("a", "1500m"), ("b", "500m")):
        service = make.inference_service(name, "models", make.guaranteed(cpu), annotations=NOTE)
        cluster.client.create("inferenceservices", service)
    cluster.settle()
    cluster.client.create("cpubudgets", budget())
    cluster.kubelets.default.delay = 0.5
    cluster.kubelets.start()
    return cluster


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Load]:
    """ "a" has almost nothing to do, "b" more than it has CPUs."""
    made = Load(tmp_path, {"models/a": 0.1, "models/b": 1.4})
    yield made
    made.close()


@pytest.fixture
def start(served: Cluster, load: Load, tmp_path: Path) -> Iterator[Start]:
    made: list[Headgate] = []

    def start() -> Headgate:
        made.append(Headgate(served, tmp_path, load))
        return made[-1]

    yield start
    for one in made:
        one.close()


def cpus(cluster: Cluster, name: str) -> int:
    return sum(committed(pod) for pod in cluster.of(name))


def asked(cluster: Cluster, name: str) -> str:
    (pod,) = cluster.of(name)
    return str(pod["spec"]["containers"][0]["resources"]["requests"]["cpu"])


def moved(cluster: Cluster) -> bool:
    return cpus(cluster, "b") >= 1200 and cpus(cluster, "a") <= 800


def test_a_killed_controllers_change_is_finished_by_the_next_one(served: Cluster, start: Start) -> None:
    recorder = Recorder(served)
    served.kubelets.default.delay = NEVER
    first = start()
    until("the shrink is asked for", lambda: asked(served, "a") != "1500m")
    first.kill()
    assert (asked(served, "b"), cpus(served, "a")) == ("500m", 1500), "nothing grew before anything was given up"
    served.kubelets.default.delay = 0.5
    start()
    until("the next one goes on", lambda: moved(served))
    recorder.check(2000)


def test_a_stop_half_way_leaves_nothing_that_may_never_happen(served: Cluster, start: Start) -> None:
    recorder = Recorder(served)
    served.kubelets.default.delay = 1.5
    running = start()
    until("the shrink is asked for", lambda: asked(served, "a") != "1500m")
    assert running.end() == 0
    for name in ("a", "b"):
        (pod,) = served.of(name)
        waits = [one for one in pod["status"]["conditions"] if one["type"] == "PodResizePending"]
        assert not waits  # what a kubelet has accepted it will do, also without headgate
    recorder.check(2000)


def test_one_that_was_stopped_for_long_does_not_write_beside_the_next(served: Cluster, start: Start) -> None:
    recorder = Recorder(served)
    first = start()
    until("the first one leads", lambda: bool(_holder(served)))
    holder = _holder(served)
    first.signal(signal.SIGSTOP)
    second = start()
    until("the second one leads", lambda: _holder(served) not in ("", holder))
    first.signal(signal.SIGCONT)
    until("CPUs move", lambda: moved(served))
    assert second.end() == 0
    until("the first one takes over again", lambda: _holder(served) == holder)
    recorder.check(2000)


def _holder(cluster: Cluster) -> str:
    found = cluster.client.find("leases", "headgate", "headgate")
    return str(((found or {}).get("spec") or {}).get("holderIdentity") or "")


class Renamed:
    """A Prometheus that has KServe's metrics until they get other names; CPU and its own health it always knows."""

    def __init__(self, web: Web, busy: dict[str, float]) -> None:
        self.renamed = False
        self.busy = busy
        web.answer = self._answer

    def _answer(self, asked: Asked) -> Answer:
        query = parse_qs(urlsplit(asked.path).query).get("query", [""])[0]
        values: dict[str, float] = {}
        if "request_predict_seconds_count" in query and not self.renamed:
            values = dict.fromkeys(self.busy, 0.5) if "timestamp(" in query else dict.fromkeys(self.busy, 20.0)
        elif "container_cpu_usage_seconds_total" in query and "request_predict" not in query:
            values = self.busy
        rows = [{"metric": {"pipeline": name}, "value": [time.time(), str(value)]} for name, value in values.items()]
        body = {"status": "success", "data": {"resultType": "vector", "result": rows}}
        return Answer(json.dumps(body), kind="application/json")


def test_metrics_that_get_other_names_are_not_known_rather_than_zero(served: Cluster, web: Web, tmp_path: Path) -> None:
    metrics = Renamed(web, {"models/a": 0.1, "models/b": 1.4})
    source = {"kind": "prometheus", "url": web.url, "recipe": "kserve", "stale": "1s"}
    running = Headgate(served, tmp_path, source)
    try:
        until("CPUs move", lambda: moved(served))
        before = cpus(served, "a"), cpus(served, "b")
        metrics.renamed = True
        until("nothing is known", lambda: not any("used" in each for each in _pipelines(served)))
        metrics.busy = {"models/a": 1.4, "models/b": 0.1}
        time.sleep(2 * INTERVAL)
        assert (cpus(served, "a"), cpus(served, "b")) == before, "not known is not zero"
        metrics.renamed = False
        until("CPUs move again", lambda: cpus(served, "a") >= 1200)
    finally:
        running.close()


def _pipelines(cluster: Cluster) -> list[dict[str, Any]]:
    return list(cluster.client.get("cpubudgets", "shared", "models")["status"]["pipelines"])
