"""Replays every write to the pods since a moment, and asserts what must hold at each instant in between."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .double.quantities import milli
from .harness import Cluster

Object = dict[str, Any]

SERVICE = "serving.kserve.io/inferenceservice"
MAIN = ("kserve-container", "transformer-container", "worker-container")


@dataclass(frozen=True)
class Instant:
    """After one write: what all managed pods had taken together, and who was written."""

    revision: int
    pod: str
    taken: int
    added: bool


def committed(pod: Mapping[str, Any], containers: tuple[str, ...] = MAIN) -> int:
    """Millicores of the main container that count: the most of asked for (unless Infeasible), set aside, in force."""
    status = pod.get("status") or {}
    if status.get("phase") in ("Succeeded", "Failed"):
        return 0
    generation = pod["metadata"].get("generation", 1)
    infeasible = any(
        one["type"] == "PodResizePending"
        and one.get("reason") == "Infeasible"
        and one.get("observedGeneration", generation) == generation
        for one in status.get("conditions") or []
    )
    states = {one["name"]: one for one in status.get("containerStatuses") or []}
    for container in pod["spec"]["containers"]:
        if container["name"] in containers:
            state = states.get(container["name"], {})
            asked = ((container.get("resources") or {}).get("requests") or {}).get("cpu", "0")
            values = [
                (state.get("allocatedResources") or {}).get("cpu", "0"),
                ((state.get("resources") or {}).get("requests") or {}).get("cpu", "0"),
                *(() if infeasible and state else (asked,)),
            ]
            return max(milli(value) for value in values)
    return 0


class Recorder:
    """From its making on."""

    def __init__(self, cluster: Cluster, manages: Callable[[Object], bool] | None = None) -> None:
        self.cluster = cluster
        self._manages = manages or (lambda pod: SERVICE in (pod["metadata"].get("labels") or {}))
        code, found = cluster.client.send("GET", "/api/v1/pods", None, "application/json")
        assert code == 200, found
        self._revision = int(found["metadata"]["resourceVersion"])
        self._first = {one["metadata"]["uid"]: one for one in found["items"]}

    def instants(self) -> Iterator[Instant]:
        """What every write led to, in order."""
        pods = {uid: committed(one) for uid, one in self._first.items() if self._manages(one)}
        for kind, pod in self._events():
            uid = pod["metadata"]["uid"]
            known = uid in pods
            if kind == "DELETED":
                pods.pop(uid, None)
            elif self._manages(pod):
                pods[uid] = committed(pod)
            name = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
            yield Instant(int(pod["metadata"]["resourceVersion"]), name, sum(pods.values()), not known)

    def check(self, total: int, excused: tuple[str, ...] = ()) -> list[Instant]:
        """The sum is within `total`, or not above what it was; new pods and those `excused` may raise it.

        Also that no container restarted. What was seen comes back.
        """
        before = sum(committed(one) for one in self._first.values() if self._manages(one))
        seen = list(self.instants())
        for instant in seen:
            free = instant.added or instant.pod.partition("/")[2] in excused
            assert instant.taken <= max(total, before) or free, (
                f"{instant.taken} of {total} millicores after {instant.pod} was written (revision {instant.revision}); "
                f"{before} before"
            )
            before = instant.taken
        assert self.restarts() == {}
        return seen

    def restarts(self) -> dict[str, int]:
        """Pods whose containers have ever restarted since."""
        found: dict[str, int] = {}
        for _, pod in self._events():
            for state in (pod.get("status") or {}).get("containerStatuses") or []:
                if state["restartCount"] and self._manages(pod):
                    found[pod["metadata"]["name"]] = state["restartCount"]
        return found

    def _events(self) -> Iterator[tuple[str, Object]]:
        if self.cluster.real:
            yield from self._watched()
            return
        store = self.cluster.plane.server.store
        for event in store.since(self._revision):
            if event.kind == ("", "pods"):
                yield ("DELETED" if event.new is None else "MODIFIED"), event.last

    def _watched(self) -> list[tuple[str, Object]]:
        """All events up to now; a slow server gets more time to tell them."""
        now = {pod["metadata"]["uid"]: pod["metadata"]["resourceVersion"] for pod in self.cluster.pods()}
        for seconds in (1, 2, 4, 8):
            query = f"watch=true&resourceVersion={self._revision}&timeoutSeconds={seconds}"
            code, text = self.cluster.client.send("GET", f"/api/v1/pods?{query}", None, "application/json")
            assert code == 200, text
            lines = [text] if isinstance(text, dict) else [json.loads(line) for line in (text or "").splitlines()]
            told = {uid: one["metadata"]["resourceVersion"] for uid, one in self._first.items()}
            for line in lines:
                assert line["type"] != "ERROR", line
                told[line["object"]["metadata"]["uid"]] = line["object"]["metadata"]["resourceVersion"]
            if all(int(told.get(uid, "0")) >= int(version) for uid, version in now.items()):
                return [(line["type"], line["object"]) for line in lines]
        raise AssertionError("the server does not tell all events")
