"""LimitRanges and ResourceQuotas: what a namespace lets its pods ask for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from .errors import forbidden
from .objects import clone
from .pods import complete_container, containers, requested
from .quantities import decimal, parse

if TYPE_CHECKING:
    from .machine import Machine

Object = dict[str, Any]
_NAMES = {
    "cpu": ("requests", "cpu"),
    "requests.cpu": ("requests", "cpu"),
    "limits.cpu": ("limits", "cpu"),
    "memory": ("requests", "memory"),
    "requests.memory": ("requests", "memory"),
    "limits.memory": ("limits", "memory"),
}


def defaults(machine: Machine, pod: Object) -> None:
    """What a LimitRange fills in where a container of a new pod says nothing."""
    for limit in _limits(machine, pod, "Container"):
        for container in containers(pod):
            resources = container.setdefault("resources", {})
            for part, source in (("limits", limit.get("default")), ("requests", limit.get("defaultRequest"))):
                for name, value in (source or {}).items():
                    resources.setdefault(part, {}).setdefault(name, value)
            complete_container(container)


def admit(machine: Machine, new: Object, old: Object | None, sub: str) -> None:
    """Raises StatusError 403 as the LimitRanger and the quota do."""
    if old is None or sub == "resize":
        errors = [
            error
            for limit in _limits(machine, new, "Container")
            for c in containers(new)
            for error in _broken(c, limit)
        ]
        if errors:
            told = errors[0] if len(errors) == 1 else f"[{', '.join(errors)}]"
            raise forbidden("pods", "", new["metadata"]["name"], told)
        _quota(machine, new, old)


def _limits(machine: Machine, pod: Object, kind: str) -> Iterator[Object]:
    for found in machine.store.all(("", "limitranges"), pod["metadata"].get("namespace", "")):
        yield from (limit for limit in found["spec"]["limits"] if limit.get("type", "Container") == kind)


def _broken(container: Object, limit: Object) -> Iterator[str]:
    requests = container["resources"].get("requests") or {}
    limits = container["resources"].get("limits") or {}
    for name, least in (limit.get("min") or {}).items():
        head = f"minimum {name} usage per Container is {least}"
        if name not in requests:
            yield f"{head}.  No request is specified"
        elif parse(requests[name]) < parse(least):
            yield f"{head}, but request is {requests[name]}"
        elif name in limits and parse(limits[name]) < parse(least):
            yield f"{head}, but limit is {limits[name]}"
    for name, most in (limit.get("max") or {}).items():
        head = f"maximum {name} usage per Container is {most}"
        if name not in limits:
            yield f"{head}.  No limit is specified"
        elif parse(limits[name]) > parse(most):
            yield f"{head}, but limit is {limits[name]}"
        elif name in requests and parse(requests[name]) > parse(most):
            yield f"{head}, but request is {requests[name]}"


def _quota(machine: Machine, new: Object, old: Object | None) -> None:
    quotas = list(machine.store.all(("", "resourcequotas"), new["metadata"]["namespace"]))
    for quota in quotas:
        status = quota.get("status") or {}
        hard, used = status.get("hard") or {}, status.get("used") or {}
        delta = {
            name: _usage(new, name) - (_usage(old, name) if old else Decimal(0))
            for name in hard
            if name in _NAMES or name == "pods"
        }
        delta = {name: value for name, value in delta.items() if value > 0}
        over = sorted(name for name, value in delta.items() if parse(used.get(name, "0")) + value > parse(hard[name]))
        if over:
            lists = (
                {n: decimal(delta[n]) for n in over},
                {n: used.get(n, "0") for n in over},
                {n: hard[n] for n in over},
            )
            asked, have, most = (_pretty(one) for one in lists)
            told = f"exceeded quota: {quota['metadata']['name']}, requested: {asked}, used: {have}, limited: {most}"
            raise forbidden("pods", "", new["metadata"]["name"], told)
        if delta:
            changed = clone(quota)
            for name, value in delta.items():
                changed["status"].setdefault("used", {})[name] = decimal(parse(used.get(name, "0")) + value)
            machine.store.put(("", "resourcequotas"), changed)


def _usage(pod: Object, name: str) -> Decimal:
    if name == "pods":
        return Decimal(1)
    part, resource = _NAMES[name]
    return requested(pod, part, actual=True).get(resource, Decimal(0))


def _pretty(values: Mapping[str, str]) -> str:
    return ",".join(f"{name}={value}" for name, value in sorted(values.items()))
