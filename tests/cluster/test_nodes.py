"""`headgate run` adds and removes nodes, whatever brings them, through crashes, and undoes what has become wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .harness import Cluster
from .infrastructure import AutoScalingGroup, MachineDeployment, NodePool, OwnAutoscaler
from .process import until
from .site import Site

if TYPE_CHECKING:
    from tests.contract.strict_aws import StrictAws

Make = Callable[..., Site]
KINDS = ("machine-deployment", "node-pool", "auto-scaling-group", "capacity-buffer", "placeholder")


@pytest.fixture
def site(closest: Cluster, tmp_path: Path) -> Iterator[Make]:
    made: list[Site] = []

    def make(size: int, **more: Any) -> Site:
        made.append(Site(closest, tmp_path, size, **more))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture(params=KINDS)
def build(request: pytest.FixtureRequest) -> Any:
    kinds: dict[str, Callable[[], Any]] = {
        "machine-deployment": lambda: MachineDeployment,
        "node-pool": lambda: NodePool,
        "auto-scaling-group": lambda: partial(AutoScalingGroup, aws=request.getfixturevalue("aws")),
        "capacity-buffer": lambda: partial(OwnAutoscaler, buffers=True),
        "placeholder": lambda: partial(OwnAutoscaler, buffers=False),
    }
    return kinds[request.param]()


def test_load_adds_a_node_and_quiet_drains_one_and_gives_it_up(site: Make, build: Any) -> None:
    it = site(2, build=build, web=4)
    # 4 pods of 500m and 5 CPUs are 7 of 8: at a utilisation of 0.7 they take 10, three nodes of 4.
    it.busy(5.0)
    it.start()
    until("a node more", lambda: len(it.stages()) == 3)
    assert it.seen == []
    it.busy(0.2)
    it.shrinks_to(2)
    assert it.seen[:2] == ["marked", "cordoned"]
    assert not it.wrong


def test_a_recommendation_writes_nothing_and_says_what_it_would_do(site: Make) -> None:
    it = site(1, mode="recommend")
    it.busy(5.0)
    it.start()
    until("a recommendation", lambda: "would be done: add 1 to the 1 machines of group pool" in it.log.read_text())
    command = [sys.executable, "-m", "headgate", "run", "run.yaml", "--dry-run"]
    found = subprocess.run(command, cwd=it.folder, capture_output=True, text=True, check=False)
    assert "nodes: recommend" in found.stdout, found.stderr
    assert "group pool: " in found.stdout
    assert it.size() == 1
    assert set(it.stages().values()) == {""}


def test_a_removal_is_undone_when_the_load_returns(site: Make) -> None:
    it = site(3, web=4)
    it.hold = True
    it.start()
    until("a node is cordoned", lambda: "cordoned" in it.stages().values())
    it.busy(9.0)
    until("everything is taken back", lambda: set(it.stages().values()) == {""})
    assert it.size() == 3
    assert "wrong" not in it.seen
    assert not it.wrong


def _handed_over(it: Site) -> None:
    """While a node is on its way out another autoscaler takes the group over."""
    it.hold = True
    it.start()
    until("a node is cordoned", lambda: "cordoned" in it.stages().values())
    owner = it.infrastructure.hand_over()
    until("everything is taken back", lambda: set(it.stages().values()) == {""})
    it.busy(9.0)
    found = json.loads(it.read("/status"))["nodes"]
    assert found["groups"]["pool"]["decision"] == "refused"
    assert found["groups"]["pool"]["reasons"] == [
        f"{owner} manages this group: one owner per group, exclude it there or here"
    ]
    turns = found["turns"]
    until("five turns more", lambda: json.loads(it.read("/status"))["nodes"]["turns"] > turns + 5)
    assert it.size() == 3
    assert not it.wrong


def test_a_group_that_cluster_autoscaler_manages_is_refused_and_given_back(site: Make) -> None:
    _handed_over(site(3, web=4))


def test_a_group_that_its_cloud_scales_is_refused_and_given_back(site: Make, aws: StrictAws) -> None:
    _handed_over(site(3, build=partial(AutoScalingGroup, aws=aws), web=4))


def test_a_removal_goes_on_through_a_crash_in_every_phase(site: Make) -> None:
    """Each phase lasts for one interval at least; kubelets and machines wait until the crash has come."""
    it = site(3, web=4, interval="1s", group={"minimum": 2})
    it.hold = it.infrastructure.slow = True
    for phase in ("marked", "shrinking", "cordoned", "draining", "deleting"):
        it.start()
        until(f"a node is {phase}", lambda phase=phase: it.phase() == phase)
        it.kill()
        it.hold = phase not in ("draining", "deleting")
    it.infrastructure.slow = False
    it.start()
    it.shrinks_to(2)
    until("nothing is left half done", lambda: set(it.stages().values()) == {""})
    assert it.seen == ["marked", "cordoned"]
    assert not it.wrong


def test_an_addition_goes_on_through_crashes_and_a_machine_that_failed(site: Make) -> None:
    it = site(1, group={"down_after": "1h"})
    it.infrastructure.failing = True
    it.busy(5.0)  # of which a node of 4 holds 4: 5 at a utilisation of 0.7 take two
    it.start()
    until("a machine failed", lambda: len(it.client.list("machines", "capi")) == 2)
    it.kill()
    it.infrastructure.failing, it.infrastructure.barren = False, True
    it.start()
    until("the one that failed is taken back", lambda: "no quota" in it.log.read_text())
    until("another was asked for", lambda: it.infrastructure.count == 3)
    it.kill()
    it.start()
    until("it is taken back as it never joined", lambda: "did not join within" in it.log.read_text())
    it.infrastructure.barren = False
    until("a node more", lambda: len(it.stages()) == 2)
    assert not it.wrong
