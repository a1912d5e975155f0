"""`headgate run` as a process against a cluster: CPUs move in place, also when the process is killed half-way."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.cluster import builders as make
from tests.cluster.harness import Cluster
from tests.cluster.process import Headgate, Load, budget, until
from tests.cluster.recorder import Recorder, committed

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
