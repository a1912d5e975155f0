"""Binds pods to nodes with room, counting as the scheduler does: the most of spec, allocated and actual."""

from __future__ import annotations

from typing import Any

from .client import Client, RequestError
from .double.pods import requested
from .double.quantities import parse

Object = dict[str, Any]
CORDONED = "node.kubernetes.io/unschedulable"


def taken(pod: Object) -> dict[str, Any]:
    """CPU and memory that a pod takes of its node; what an Infeasible resize asks for is not counted."""
    conditions = pod["status"].get("conditions") or []
    infeasible = any(one["type"] == "PodResizePending" and one.get("reason") == "Infeasible" for one in conditions)
    if not infeasible:
        return requested(pod, actual=True)
    statuses = {one["name"]: one for one in pod["status"].get("containerStatuses") or []}
    inside = [
        {"name": one["name"], "resources": statuses.get(one["name"], {}).get("resources") or {}}
        for one in pod["spec"]["containers"]
    ]
    return requested({"spec": {"containers": inside}, "status": pod["status"]}, actual=True)


def schedule(client: Client) -> None:
    """Bind what waits and fits, oldest first, each to the node with the most room."""
    pods = client.list("pods")
    waiting = [pod for pod in pods if not pod["spec"].get("nodeName") and not pod["metadata"].get("deletionTimestamp")]
    if not waiting:
        return
    room: dict[str, Any] = {}
    nodes = {node["metadata"]["name"]: node for node in client.list("nodes")}
    for name, node in nodes.items():
        room[name] = {k: parse(v) for k, v in node["status"]["allocatable"].items()}
    for pod in pods:
        free = room.get(pod["spec"].get("nodeName", ""))
        if free is not None and pod["status"].get("phase") not in ("Succeeded", "Failed"):
            for name, value in taken(pod).items():
                free[name] = free.get(name, 0) - value
    for pod in sorted(waiting, key=lambda pod: pod["metadata"]["creationTimestamp"]):
        asked = requested(pod)
        fitting = [
            name
            for name, free in room.items()
            if admits(nodes[name], pod) and all(free.get(each, 0) >= value for each, value in asked.items())
        ]
        if not fitting:
            continue
        chosen = max(fitting, key=lambda name: room[name]["cpu"])
        meta = {"name": pod["metadata"]["name"], "namespace": pod["metadata"]["namespace"]}
        body = {"apiVersion": "v1", "kind": "Binding", "metadata": meta, "target": {"kind": "Node", "name": chosen}}
        try:
            client.create("pods", body, meta["namespace"], "binding")
        except RequestError as error:
            if error.code not in (404, 409):
                raise
        for name, value in asked.items():
            room[chosen][name] = room[chosen].get(name, 0) - value


def admits(node: Object, pod: Object) -> bool:
    """Whether a node is one that the pod may be on, whatever room it has."""
    labels, spec = node["metadata"].get("labels") or {}, pod["spec"]
    if not (spec.get("nodeSelector") or {}).items() <= labels.items():
        return False
    return not node["spec"].get("unschedulable") or any(
        one.get("key") == CORDONED for one in spec.get("tolerations") or []
    )
