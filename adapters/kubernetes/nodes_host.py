"""Looks at a cluster's nodes for the node scaler, and takes the steps of a removal through the API."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

from headgate.adapters.kubernetes.api import Api, ApiError, Object, path
from headgate.adapters.kubernetes.cluster import answered, listed, optional, translated
from headgate.adapters.kubernetes.events import Events
from headgate.adapters.kubernetes.nodes_read import (
    CORDONED,
    TAINT,
    read_disruption,
    read_node,
    read_pod_info,
    read_usage,
    template_cpu,
    waits,
)
from headgate.core.hosting import Sized
from headgate.core.nodes.model import Cluster, PodInfo

log = logging.getLogger("headgate.nodes")

_TRIES = 3
"""Times that a node's change is tried which somebody else's change came in between."""


class KubernetesNodes:
    """See NodeHost. Remembers the pods of its last look, so that no other pod of the same name is evicted."""

    def __init__(self, api: Api, events: Events, clock: Callable[[], float] = time.time) -> None:
        self._api = api
        self._events = events
        self._clock = clock
        self._uids: Mapping[str, str] = {}
        self._measured = True

    def observe_nodes(self, sized: Mapping[str, Sized]) -> Cluster:
        """See NodeHost. Nodes are listed last: a pod's node is known then, or was deleted with it."""
        now = self._clock()
        disruption = [
            found for item in self._listed("policy/v1", "poddisruptionbudgets") if (found := read_disruption(item))
        ]
        templates = self._templates() if sized else {}
        on: dict[str, list[PodInfo]] = defaultdict(list)
        pending: list[PodInfo] = []
        uids: dict[str, str] = {}
        for item in self._listed("v1", "pods"):
            meta = item["metadata"]
            if (item.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
                continue
            name = f"{meta['namespace']}/{meta['name']}"
            pod = read_pod_info(item, sized.get(name), templates.get(_owner(meta)))
            if pod.node is not None:
                on[pod.node].append(pod)
                uids[name] = meta.get("uid", "")
            elif waits(item) and not pod.terminating:
                pending.append(pod)
        usage = self._usage()
        nodes = [
            read_node(item, on[item["metadata"]["name"]], usage.get(item["metadata"]["name"]))
            for item in self._listed("v1", "nodes")
        ]
        self._uids = uids
        return Cluster(now, tuple(nodes), {}, tuple(pending), tuple(disruption))

    def mark(self, node: str) -> None:
        """See NodeHost."""

        def marked(found: Object) -> Object | None:
            taints = list(found["spec"].get("taints") or ())
            if any(taint["key"] == TAINT for taint in taints):
                return None
            return {"spec": {"taints": [*taints, {"key": TAINT, "effect": "PreferNoSchedule"}]}}

        self._change(node, marked)

    def unmark(self, node: str) -> None:
        """See NodeHost."""

        def unmarked(found: Object) -> Object | None:
            taints = list(found["spec"].get("taints") or ())
            kept = [taint for taint in taints if taint["key"] != TAINT]
            body: Object = {} if len(kept) == len(taints) else {"spec": {"taints": kept or None}}
            if CORDONED in (found["metadata"].get("annotations") or {}) and not found["spec"].get("unschedulable"):
                # Somebody else has made it schedulable again: the next cordon will be theirs.
                body = {**body, "metadata": {"annotations": {CORDONED: None}}}
            return body or None

        self._change(node, unmarked)

    def cordon(self, node: str) -> None:
        """See NodeHost."""

        def cordoned(found: Object) -> Object | None:
            if found["spec"].get("unschedulable"):
                return None
            return {"metadata": {"annotations": {CORDONED: "true"}}, "spec": {"unschedulable": True}}

        self._change(node, cordoned)

    def uncordon(self, node: str) -> None:
        """See NodeHost."""

        def uncordoned(found: Object) -> Object | None:
            if CORDONED not in (found["metadata"].get("annotations") or {}):
                return None
            return {"metadata": {"annotations": {CORDONED: None}}, "spec": {"unschedulable": None}}

        self._change(node, uncordoned)

    def evict(self, pod: str, grace: float) -> None:
        """See NodeHost."""
        namespace, _, name = pod.partition("/")
        options: Object = {"gracePeriodSeconds": int(grace)}
        if uid := self._uids.get(pod):
            options["preconditions"] = {"uid": uid}
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": name, "namespace": namespace},
            "deleteOptions": options,
        }
        try:
            self._api.create(path("v1", "pods", name, namespace, "eviction"), body)
        except ApiError as error:
            if error.status in (404, 409):
                return  # gone, or another pod by now: the next look tells
            raise translated(error, f"pod {pod} cannot be evicted") from None

    def serving(self, node: str) -> Sequence[str]:
        """See NodeHost."""
        found = []
        for item in self._listed("v1", "pods", fieldSelector=f"spec.nodeName={node}"):
            pod = read_pod_info(item, None, None)
            if not pod.daemon and (item.get("status") or {}).get("phase") not in ("Succeeded", "Failed"):
                found.append(pod.name)
        return found

    def tell(self, node: str, kind: str, reason: str, message: str) -> None:
        """See NodeHost. Events about nodes are kept in the namespace default; kubectl looks for them by name."""
        about = {"apiVersion": "v1", "kind": "Node", "namespace": "default", "name": node, "uid": node}
        self._events.tell(about, kind, reason, message)

    def _listed(self, version: str, resource: str, **query: str) -> Iterator[Object]:
        return listed(self._api, version, resource, (), **query)

    def _change(self, node: str, change: Callable[[Object], Object | None]) -> None:
        """A node as `change` wants it, from what it is at the moment of the write: taints are one list."""
        where = path("v1", "nodes", node)
        for attempt in range(_TRIES):
            try:
                found = self._api.get(where)
                body = change(found)
                if body is None:
                    return
                version = {"resourceVersion": found["metadata"].get("resourceVersion")}
                self._api.patch(where, {**body, "metadata": {**body.get("metadata", {}), **version}})
            except ApiError as error:
                if error.status == 404:
                    return
                if error.status == 409 and attempt + 1 < _TRIES:
                    continue
                raise translated(error, f"node {node} cannot be changed") from None
            return

    def _templates(self) -> Mapping[str, int]:
        """CPU of the templates that pods are replaced from, by the workload's uid; empty where they may not be read."""
        found: dict[str, int] = {}
        for resource in ("replicasets", "statefulsets"):
            try:
                items = optional(self._api, "apps/v1", resource, ())
            except PermissionError as error:
                log.debug("replacements are taken to be as large as the pods: %s", error)
                continue
            found |= {item["metadata"]["uid"]: template_cpu(item) for item in items}
        return found

    def _usage(self) -> Mapping[str, tuple[int, float]]:
        """Millicores and time by node, as far as the metrics API has them."""
        where = path("metrics.k8s.io/v1beta1", "nodes")
        try:
            items = answered(lambda: self._api.list(where), "the nodes' usage is not known")
        except OSError as error:
            if self._measured:
                log.warning("%s", error)
            self._measured = False
            return {}
        self._measured = True
        return {item["metadata"]["name"]: read_usage(item) for item in items}


def _owner(meta: Object) -> str:
    return next((o.get("uid", "") for o in meta.get("ownerReferences") or () if o.get("controller")), "")
