"""What is particular to groups sized through the API server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from headgate.core.providers import InstanceState, Refused

pytestmark = pytest.mark.parametrize("harness", ["machine-deployment"], indirect=True)

VERSION = "cluster.x-k8s.io/v1beta2"
Make = Callable[[int], Any]


def running(it: Any) -> list[str]:
    return sorted(i.name for i in it.provider.instances("pool") if i.state is InstanceState.RUNNING)


def test_a_status_that_changes_all_the_time_does_not_stand_in_the_way(harness: Make) -> None:
    it = harness(3)
    left = [6]

    def busy(method: str, path: str) -> None:
        # The group's controller writes its status just before two of three patches.
        if method == "PATCH" and "machinedeployments" in path and left[0]:
            left[0] -= 1
            if left[0] % 3:
                it.server.serve(
                    "PATCH", f"/apis/{VERSION}/namespaces/capi/machinedeployments/md", {"status": {"n": left[0]}}, MERGE
                )

    it.server.fault = busy
    it.provider.increase("pool", 1, seen=3)
    it.settle()
    name = running(it)[0]
    it.provider.delete("pool", [name])
    it.settle()
    assert name not in running(it)
    assert len(running(it)) == 3


MERGE = "application/merge-patch+json"


def test_a_deletion_that_was_given_up_leaves_no_mark_for_the_next_one_to_fall_on(harness: Make) -> None:
    it = harness(4)
    first, second, *_ = running(it)
    patches = []

    def forbid(method: str, path: str) -> int | None:
        if method == "PATCH":
            patches.append(path)
        return 403 if method == "PATCH" and len(patches) == 3 else None

    it.server.fault = forbid
    with pytest.raises(Refused, match=first):
        it.provider.delete("pool", [first])
    machine = it.server.get(VERSION, "machines", first, "capi")
    assert machine["metadata"]["annotations"] == {"cluster.x-k8s.io/delete-machine": "headgate"}
    # The removal is undone, pods run on the first machine again, and another one is deleted.
    it.server.fault = lambda *_: None
    it.provider.delete("pool", [second])
    it.settle()
    assert first in running(it)
    assert second not in running(it)
    assert len(running(it)) == 3


def test_each_change_is_a_compare_and_set_with_a_resource_version(harness: Make) -> None:
    it = harness(3)
    bodies: list[Any] = []
    serve = it.server.serve

    def watch(method: str, target: str, body: Any, kind: str) -> Any:
        if method == "PATCH" and "machinedeployments" in target:
            bodies.append((target, body))
        return serve(method, target, body, kind)

    it.server.serve = watch
    it.provider.increase("pool", 1, seen=3)
    it.settle()
    it.provider.delete("pool", [running(it)[0]])
    assert bodies[0][0].endswith("/machinedeployments/md/scale")
    assert all(body["metadata"]["resourceVersion"] for _, body in bodies)
