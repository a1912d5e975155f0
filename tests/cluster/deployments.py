"""What the Deployment controller does: ReplicaSets by template, pods by ReplicaSet, rolling updates, garbage."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from .client import Client, RequestError
from .double.objects import clone

Object = dict[str, Any]
HASH = "pod-template-hash"


class Deployments:
    """Reconciles all Deployments once by `sync`; a rolling update adds one pod more than wanted at the most."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._count = 0

    def sync(self) -> None:
        deployments = {one["metadata"]["uid"]: one for one in self.client.list("deployments")}
        sets: dict[str, list[Object]] = {uid: [] for uid in deployments}
        for found in self.client.list("replicasets"):
            owner = owner_of(found)
            if owner in sets:
                sets[owner].append(found)
            elif owner:
                self._gone("replicasets", found)
        pods: dict[str, list[Object]] = {one["metadata"]["uid"]: [] for owned in sets.values() for one in owned}
        for pod in self.client.list("pods"):
            owner = owner_of(pod)
            if owner in pods:
                pods[owner].append(pod)
            elif owner and not pod["metadata"].get("deletionTimestamp"):
                self._gone("pods", pod)
        for uid, deployment in deployments.items():
            self._roll(deployment, sets[uid], pods)

    def _gone(self, plural: str, found: Object) -> None:
        self.client.delete(plural, found["metadata"]["name"], found["metadata"]["namespace"])

    def _roll(self, deployment: Object, sets: list[Object], pods: dict[str, list[Object]]) -> None:
        meta, wanted = deployment["metadata"], deployment["spec"].get("replicas", 1)
        template_hash = hash_of(deployment["spec"]["template"])
        name = f"{meta['name']}-{template_hash}"
        current = next((one for one in sets if one["metadata"]["name"] == name), None)
        if current is None:
            current = self._replica_set(deployment, name, template_hash)
            sets.append(current)
            pods[current["metadata"]["uid"]] = []
        mine = alive(pods[current["metadata"]["uid"]])
        olds = [pod for one in sets if one is not current for pod in alive(pods[one["metadata"]["uid"]])]
        ready = [pod for pod in mine if is_ready(pod)]
        for _ in range(min(wanted - len(mine), wanted + 1 - len(mine) - len(olds))):
            made = self._pod(current)
            if made is None:
                break
            mine.append(made)
        for pod in sorted(mine, key=is_ready)[: max(0, len(mine) - wanted)]:
            self._gone("pods", pod)
        surplus = len(olds) if not wanted else len(olds) - max(0, wanted - len(ready))
        for pod in sorted(olds, key=is_ready)[: max(0, surplus)]:
            self._gone("pods", pod)
        self._tell(deployment, current, wanted, len(mine), len(ready), len(olds))

    def _replica_set(self, deployment: Object, name: str, template_hash: str) -> Object:
        template = clone(deployment["spec"]["template"])
        labels = {**(template["metadata"].get("labels") or {}), HASH: template_hash}
        template["metadata"]["labels"] = labels
        selector = {"matchLabels": {**deployment["spec"]["selector"]["matchLabels"], HASH: template_hash}}
        return self.client.create(
            "replicasets",
            {
                "apiVersion": "apps/v1",
                "kind": "ReplicaSet",
                "metadata": {
                    "name": name,
                    "namespace": deployment["metadata"]["namespace"],
                    "labels": labels,
                    "ownerReferences": [owned_by(deployment)],
                },
                "spec": {"replicas": 0, "selector": selector, "template": template},
            },
        )

    def _pod(self, replica_set: Object) -> Object | None:
        """One pod more; None where the namespace's limits forbid it for now."""
        self._count += 1
        template, meta = clone(replica_set["spec"]["template"]), replica_set["metadata"]
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                **template["metadata"],
                "name": f"{meta['name']}-{self._count:05d}",
                "namespace": meta["namespace"],
                "ownerReferences": [owned_by(replica_set)],
            },
            "spec": template["spec"],
        }
        body["metadata"].pop("creationTimestamp", None)
        try:
            return self.client.create("pods", body)
        except RequestError as error:
            if error.code != 403:
                raise
            return None

    def _tell(self, deployment: Object, current: Object, wanted: int, mine: int, ready: int, olds: int) -> None:
        meta = deployment["metadata"]
        status = {
            "observedGeneration": meta["generation"],
            "replicas": mine + olds,
            "updatedReplicas": mine,
            "readyReplicas": ready,
            "availableReplicas": ready,
        }
        have = {key: (deployment.get("status") or {}).get(key, 0) for key in status}
        if have != status:
            self._write("deployments", meta, {"status": status}, "status")
        if current["spec"].get("replicas") != wanted:
            self._write("replicasets", current["metadata"], {"spec": {"replicas": wanted}})

    def _write(self, plural: str, meta: Object, body: Object, sub: str = "") -> None:
        try:
            self.client.patch(plural, meta["name"], meta["namespace"], body, sub=sub)
        except RequestError as error:
            if error.code not in (404, 409):
                raise


def hash_of(template: Object) -> str:
    return hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:10]


def owned_by(found: Object) -> Object:
    meta = found["metadata"]
    owner = {"apiVersion": found["apiVersion"], "kind": found["kind"], "name": meta["name"], "uid": meta["uid"]}
    return {**owner, "controller": True, "blockOwnerDeletion": True}


def owner_of(found: Object) -> str:
    """uid of its controller, or ""."""
    owners = found["metadata"].get("ownerReferences") or []
    return next((owner["uid"] for owner in owners if owner.get("controller")), "")


def alive(pods: list[Object]) -> list[Object]:
    return [
        pod
        for pod in pods
        if not pod["metadata"].get("deletionTimestamp") and pod["status"].get("phase") not in ("Succeeded", "Failed")
    ]


def is_ready(pod: Object) -> bool:
    return any(
        c["type"] == "Ready" and c["status"] == "True" for c in (pod.get("status") or {}).get("conditions") or []
    )
