"""pods/resize: what may change, and what the node must have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .errors import FieldError, forbidden, invalid
from .objects import clone
from .pods import complete_container, containers, qos, requested, spec_errors
from .quantities import milli, parse, same

if TYPE_CHECKING:
    from .machine import Machine

Object = dict[str, Any]


def change(new: Object, old: Object) -> None:
    """Reduce `new` to a change of resources, in place, and check it. Raises StatusError 422."""
    for container in containers(new):
        complete_container(container)
    _keep_resources(new, old)
    errors = _errors(new, old)
    if errors:
        raise invalid("Pod", "", old["metadata"]["name"], errors)


def _keep_resources(new: Object, old: Object) -> None:
    """Everything but resources is as it was, unless containers were added, removed, renamed or reordered."""
    parts = ("containers", "initContainers")
    asked = {part: new["spec"].get(part) or [] for part in parts}
    have = {part: old["spec"].get(part) or [] for part in parts}
    if any(len(asked[part]) != len(have[part]) for part in parts):
        return
    spec = clone(old["spec"])
    for part in parts:
        if [one.get("name") for one in asked[part]] != [one["name"] for one in have[part]]:
            spec[part] = asked[part]
            continue
        for container, wanted in zip(spec.get(part) or [], asked[part], strict=True):
            container["resources"] = wanted.get("resources") or {}
            container.pop("resizePolicy", None)
            if "resizePolicy" in wanted:
                container["resizePolicy"] = wanted["resizePolicy"]
    new["spec"] = spec


def _errors(new: Object, old: Object) -> list[FieldError]:
    errors = spec_errors(new)
    before = (old.get("status") or {}).get("qosClass") or qos(old)
    if before != qos(new):
        errors.append(FieldError("Invalid", "spec", before, "Pod QOS Class may not change as a result of resizing"))
    if not _supported(old):
        errors.append(FieldError("Forbidden", "spec", None, "Pod running on node without support for resize"))
    ordering = _ordering(new, old)
    if ordering:
        return errors + ordering
    for index, (wanted, have) in enumerate(zip(new["spec"]["containers"], old["spec"]["containers"], strict=True)):
        for part in ("requests", "limits"):
            if (have["resources"].get(part) or {}).keys() - (wanted["resources"].get(part) or {}).keys():
                at = f"spec.containers[{index}].resources.{part}"
                errors.append(FieldError("Forbidden", at, None, f"resource {part} cannot be removed"))
    for wanted, have in zip(new["spec"]["containers"], old["spec"]["containers"], strict=True):
        if not _only_cpu_and_memory(wanted, have):
            errors.append(FieldError("Forbidden", "spec", None, "only cpu and memory resources are mutable"))
    if (new["spec"].get("initContainers") or []) != (old["spec"].get("initContainers") or []):
        errors.append(FieldError("Forbidden", "spec", None, "resources for non-sidecar init containers are immutable"))
    return errors


def _supported(pod: Mapping[str, Any]) -> bool:
    """A kubelet that can resize tells the resources of running containers; without one running it is assumed."""
    for status in (pod.get("status") or {}).get("containerStatuses") or []:
        if "running" in (status.get("state") or {}):
            return status.get("resources") is not None
    return True


def _ordering(new: Object, old: Object) -> list[FieldError]:
    found = []
    for part in ("containers", "initContainers"):
        asked, have = new["spec"].get(part) or [], old["spec"].get(part) or []
        if len(asked) != len(have):
            told = f"{part} may not be added or removed on resize"
            found.append(FieldError("Forbidden", f"spec.{part}", None, told))
            continue
        for index, (one, other) in enumerate(zip(asked, have, strict=True)):
            if one.get("name") != other["name"]:
                told = f"{part} may not be renamed or reordered on resize"
                found.append(FieldError("Forbidden", f"spec.{part}[{index}].name", None, told))
    return found


def _only_cpu_and_memory(wanted: Object, have: Object) -> bool:
    for part in ("requests", "limits"):
        one, other = (
            {k: v for k, v in (c["resources"].get(part) or {}).items() if k not in ("cpu", "memory")}
            for c in (wanted, have)
        )
        if not same(one, other):
            return False
    rest = [{key: value for key, value in c.items() if key != "resources"} for c in (wanted, have)]
    return rest[0] == rest[1]


def admit(machine: Machine, new: Object, old: Object) -> None:
    """The node must be there, run Linux, and have room for this pod alone. Raises StatusError 403."""
    name, node_name = new["metadata"]["name"], new["spec"].get("nodeName")
    if not node_name or new["metadata"]["generation"] == old["metadata"]["generation"]:
        return
    node = machine.store.get(("", "nodes"), "", node_name)
    if node is None:
        raise forbidden("pods", "", name, f'node "{node_name}" not found')
    system = (node["metadata"].get("labels") or {}).get("kubernetes.io/os", "linux")
    if system != "linux":
        told = f'pod resize is only supported on linux nodes, node "{node_name}" is "{system}"'
        raise forbidden("pods", "", name, told, "UnsupportedPlatform")
    allocatable = (node.get("status") or {}).get("allocatable") or {}
    asked, told = requested(new), []
    cpu, memory = str(asked.get("cpu", 0)), asked.get("memory", 0)
    if parse(cpu) > parse(allocatable.get("cpu", "0")):
        told.append(f"cpu, requested: {milli(cpu)}, allocatable: {milli(allocatable.get('cpu', '0'))}")
    if memory > parse(allocatable.get("memory", "0")):
        told.append(f"memory, requested: {int(memory)}, allocatable: {int(parse(allocatable.get('memory', '0')))}")
    if told:
        message = f"node didn't have enough allocatable resources: {'; '.join(told)}"
        raise forbidden("pods", "", name, message, "NodeCapacity")
