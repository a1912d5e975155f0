"""The number of replicas, where a service leaves it to somebody else: one more or one fewer at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headgate.adapters.kserve import services
from headgate.adapters.kserve.members import Member
from headgate.adapters.kserve.services import Deployed, Service
from headgate.adapters.kserve.writes import Look, Write
from headgate.adapters.kubernetes.api import APPLY, MERGE, Api, ApiError, path
from headgate.adapters.kubernetes.cluster import translated
from headgate.adapters.kubernetes.quantities import cpu
from headgate.core.hosting import Refusal
from headgate.core.units import format_cpu

PACE = 60.0
"""Seconds between two changes of one service: a new pod has to start before it tells anything."""


class Replicas:
    """Keeps when each service was changed last, and nothing else."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._changed: dict[str, float] = {}

    def step(self, look: Look) -> None:
        """One more replica where each would have too many CPUs, one fewer where too few."""
        rules, room = look.order.budget.spec.replicas, look.room
        if not rules.manage:
            return
        for member, service in look.components():
            grant = look.order.grants.get(member.name)
            if grant is None or not member.live or member.name in look.pending:
                continue
            count = len(member.live)
            wanted = count + 1 if grant > rules.most * count else count - 1 if grant < rules.least * count else count
            part = service.spec.get(member.component) or {}
            least = max(1, part.get("minReplicas") or 1) if service.autoscaler == "external" else 1
            wanted = max(least, min(wanted, part.get("maxReplicas") or wanted))
            if wanted == count or member.leaving or look.now - self._changed.get(member.name, -PACE) < PACE:
                continue
            if wanted > count and look.slow.pending:
                continue  # what rolls has room coming to it, also before its pods are seen
            if (obstacle := _obstacle(member, service)) is not None:
                look.slow.notes[f"{member.name} replicas"] = obstacle
                continue
            room = self._change(member, service, wanted, room, look)

    def _change(self, member: Member, service: Service, wanted: int, room: int, look: Look) -> int:
        """The room that is left of `room`."""
        count, name = len(member.live), f"{service.name}-{member.component}"
        deployment = self._read(path("apps/v1", "deployments", name, service.namespace))
        if (deployment.get("spec") or {}).get("replicas", 1) != count:
            look.slow.pending[member.name] = f"deployment {name} is on its way to another number of replicas"
            return room
        size = _size(deployment) if wanted > count else 0
        if size > room:
            look.slow.pending[member.name] = (
                f"one more replica of {service.key} starts with {format_cpu(size)}, "
                f"and {format_cpu(max(0, room))} are free"
            )
            return room
        reason = f"from {count} to {wanted} replicas"
        if service.autoscaler == "external":
            where = path("apps/v1", "deployments", name, service.namespace, "scale")
            version = deployment["metadata"].get("resourceVersion")
            body: Any = {"metadata": {"resourceVersion": version}, "spec": {"replicas": wanted}}
            target, kind = f"deployment {service.namespace}/{name} scale", MERGE
        else:
            where = path(services.API, services.RESOURCE, service.name, service.namespace)
            body = {
                "apiVersion": services.API,
                "kind": "InferenceService",
                "metadata": {"name": service.name, "namespace": service.namespace},
                "spec": {member.component: {"minReplicas": wanted}},
            }
            target, kind = f"inferenceservice {service.key}", APPLY
        write = Write(
            pipeline=member.name,
            part="replicas",
            target=target,
            path=where,
            content_type=kind,
            body=body,
            reason=reason,
            before=member.taken,
            after=member.taken + size,
        )
        if write.send(self._api, look) is None:
            return room
        self._changed[member.name] = look.now
        look.slow.pending[member.name] = f"{service.key} goes {reason}"
        return room - size

    def _read(self, where: str) -> Mapping[str, Any]:
        try:
            return self._api.get(where)
        except ApiError as error:
            raise translated(error, f"cannot read {where}") from None


def _obstacle(member: Member, service: Service) -> Refusal | None:
    """Why the number of replicas is somebody else's, if so."""
    knative = member.mode is Deployed.KNATIVE
    if knative or service.autoscaler not in ("external", "none"):
        return Refusal(
            "ReplicasOwned",
            f"the replicas of {service.key} are set by {'Knative' if knative else 'KServe'}: "
            "set serving.kserve.io/autoscalerClass to external or none",
        )
    if service.autoscaler == "none" and service.owner:
        return Refusal("GitOps", f"{service.owner} writes {service.key}, its minReplicas too")
    return None


def _size(deployment: Mapping[str, Any]) -> int:
    """Millicores that the main container of a new pod asks for."""
    for container in deployment["spec"]["template"]["spec"]["containers"]:
        if container["name"] in services.MAIN:
            return cpu((container.get("resources") or {}).get("requests")) or 0
    return 0
