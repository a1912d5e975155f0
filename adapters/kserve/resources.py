"""Where a component of an InferenceService sets its CPU, and the request that changes it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headgate.adapters.kserve import services
from headgate.adapters.kserve.services import Service
from headgate.adapters.kubernetes.api import APPLY, JSON_PATCH
from headgate.adapters.kubernetes.pods import Cpu
from headgate.adapters.kubernetes.quantities import cpu
from headgate.core.units import format_cpu

Place = tuple[str, ...]
"""Below the component: ("model",), or ("containers", index)."""


def place_of(service: Service, component: str) -> Place | None:
    """Where the component sets the resources of its main container: a predictor's model, or a container by name."""
    part = service.spec.get(component) or {}
    if component == "predictor" and part.get("model"):
        return ("model",)
    for index, container in enumerate(part.get("containers") or ()):
        if container.get("name") in services.MAIN:
            return ("containers", str(index))
    return None


def set_by(service: Service, component: str) -> Cpu:
    """CPU that the component itself sets; None: left to the runtime's default."""
    resources = _container(service, component).get("resources") or {}
    return Cpu(cpu(resources.get("requests")), cpu(resources.get("limits")))


def request(service: Service, component: str, wanted: Cpu) -> tuple[str, Any]:
    """Content type and body of the patch that sets CPU; what is None in `wanted` is given up.

    Server-side apply of the two fields alone; a list of containers is one value, so there a patch that tests it.
    """
    parts = {"requests": wanted.request, "limits": wanted.limit}
    resources = {part: {"cpu": format_cpu(value)} for part, value in parts.items() if value is not None}
    place = place_of(service, component)
    if place is not None and place[0] == "containers":
        return JSON_PATCH, _tested(service, component, place, resources)
    body = {
        "apiVersion": services.API,
        "kind": "InferenceService",
        "metadata": {"name": service.name, "namespace": service.namespace},
        "spec": {component: {"model": {"resources": resources}} if resources else {}},
    }
    return APPLY, body


def _container(service: Service, component: str) -> Mapping[str, Any]:
    place, part = place_of(service, component), service.spec.get(component) or {}
    if place is None:
        return {}
    found: Mapping[str, Any] = part["model"] if place[0] == "model" else part["containers"][int(place[1])]
    return found


def _tested(
    service: Service, component: str, place: Place, resources: Mapping[str, Mapping[str, str]]
) -> list[dict[str, Any]]:
    at = f"/spec/{component}/{'/'.join(place)}"
    container = _container(service, component)
    now = container.get("resources")
    kept = {
        part: {name: value for name, value in ((now or {}).get(part) or {}).items() if name != "cpu"}
        for part in ("requests", "limits")
    }
    merged = {part: {**kept[part], **resources.get(part, {})} for part in kept}
    body: list[dict[str, Any]] = [{"op": "test", "path": f"{at}/name", "value": container["name"]}]
    if now is not None:
        body.append({"op": "test", "path": f"{at}/resources", "value": now})
    return [*body, {"op": "add", "path": f"{at}/resources", "value": {p: v for p, v in merged.items() if v}}]
