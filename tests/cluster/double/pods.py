"""Pods: defaults, QoS classes, what may be changed, and their binding, eviction and token subresources."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from . import lifecycle
from .errors import FieldError, StatusError, bad_request, conflict, forbidden, invalid, not_found
from .objects import clone
from .quantities import parse, tidy
from .requests import Answer, Request, User, answer
from .selectors import matches

if TYPE_CHECKING:
    from .machine import Machine

Object = dict[str, Any]

_IMMUTABLE = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)
_MUTABLE = ("activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds")


def containers(pod: Mapping[str, Any]) -> list[Object]:
    """Those that count for the QoS class, main ones first."""
    spec = pod.get("spec") or {}
    return [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]


def complete(new: Object) -> None:
    """Defaults of a new pod."""
    new["status"] = {"phase": "Pending"}
    spec = new.setdefault("spec", {})
    complete_spec(spec)
    for key, value in (("terminationGracePeriodSeconds", 30), ("schedulerName", "default-scheduler")):
        spec.setdefault(key, value)


def complete_spec(spec: Object) -> None:
    """Defaults of a pod's spec or template: a limit is the request that is missing; quantities are tidied."""
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("dnsPolicy", "ClusterFirst")
    for container in [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]:
        complete_container(container)
        container.setdefault("imagePullPolicy", "IfNotPresent")


def complete_container(container: Object) -> None:
    """Its resources, as they are stored. Raises StatusError 400 where a quantity is none."""
    resources = container.setdefault("resources", {})
    try:
        limits = resources.get("limits") or {}
        for name in limits:
            if name not in (resources.get("requests") or {}):
                resources.setdefault("requests", {})[name] = limits[name]
        tidy(resources)
    except ValueError:
        raise bad_request(
            "unable to parse quantity's suffix: quantities must match the regular expression "
            "'^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
        ) from None


def complete_template(new: Object, old: Object | None) -> None:
    """Defaults of what has a pod template. A new object has no status."""
    if old is None:
        new.pop("status", None)
    spec = new.setdefault("spec", {})
    spec.setdefault("replicas", 1)
    template = spec.get("template")
    if isinstance(template, dict) and "spec" in template:
        complete_spec(template["spec"])
        errors = spec_errors(template, "spec.template.spec")
        if errors:
            raise invalid(new["kind"], "apps", new["metadata"]["name"], errors)


def check_new(new: Object) -> None:
    """Raises StatusError 422."""
    _raise(new, spec_errors(new))
    new["status"]["qosClass"] = qos(new)


def spec_errors(pod: Object, root: str = "spec") -> list[FieldError]:
    """What is wrong with a pod's containers."""
    found: list[FieldError] = []
    if not pod["spec"].get("containers"):
        found.append(FieldError("Required", f"{root}.containers"))
    for part in ("containers", "initContainers"):
        for index, container in enumerate(pod["spec"].get(part) or []):
            at = f"{root}.{part}[{index}]"
            found += [FieldError("Required", f"{at}.{f}") for f in ("name", "image") if not container.get(f)]
            found += _resource_errors(container.get("resources") or {}, f"{at}.resources")
    return found


def _resource_errors(resources: Object, at: str) -> Iterable[FieldError]:
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    for part, values in (("limits", limits), ("requests", requests)):
        for name, value in values.items():
            if parse(value) < 0:
                yield FieldError("Invalid", f"{at}.{part}[{name}]", value, "must be greater than or equal to 0")
    for name, value in requests.items():
        if name in limits and parse(value) > parse(limits[name]):
            told = f"must be less than or equal to {name} limit of {limits[name]}"
            yield FieldError("Invalid", f"{at}.requests", value, told)


def check_update(new: Object, old: Object) -> None:
    """Raises StatusError 422 where more than images, deadlines and tolerations changes."""
    for container in containers(new):
        complete_container(container)
    errors = spec_errors(new)
    if not errors and _fixed(new) != _fixed(old):
        errors = [FieldError("Forbidden", "spec", None, _IMMUTABLE)]
    _raise(new, errors)


def _fixed(pod: Object) -> Object:
    spec = {key: value for key, value in pod["spec"].items() if key not in _MUTABLE}
    for part in ("containers", "initContainers"):
        if part in spec:
            spec[part] = [{k: v for k, v in one.items() if k != "image"} for one in spec[part]]
    return spec


def _raise(pod: Object, errors: list[FieldError]) -> None:
    if errors:
        raise invalid("Pod", "", pod["metadata"]["name"], errors)


def qos(pod: Mapping[str, Any]) -> str:
    """The class by the sums of all containers' CPU and memory."""
    requests: dict[str, Decimal] = {}
    limits: dict[str, Decimal] = {}
    guaranteed = True
    for container in containers(pod):
        resources = container.get("resources") or {}
        for sums, part in ((requests, "requests"), (limits, "limits")):
            values = {n: parse(v) for n, v in (resources.get(part) or {}).items() if n in ("cpu", "memory")}
            values = {name: value for name, value in values.items() if value > 0}
            for name, value in values.items():
                sums[name] = sums.get(name, Decimal(0)) + value
            if part == "limits" and values.keys() != {"cpu", "memory"}:
                guaranteed = False
    if not requests and not limits:
        return "BestEffort"
    return "Guaranteed" if guaranteed and requests == limits else "Burstable"


def requested(pod: Mapping[str, Any], part: str = "requests", actual: bool = False) -> dict[str, Decimal]:
    """What a pod asks for in all: containers together, or its largest init container. `actual`: in force if more."""
    sums: dict[str, Decimal] = {}
    status = {one["name"]: one for one in (pod.get("status") or {}).get("containerStatuses") or []}
    for container in (pod.get("spec") or {}).get("containers") or []:
        values = {n: parse(v) for n, v in ((container.get("resources") or {}).get(part) or {}).items()}
        if actual and container["name"] in status:
            told = status[container["name"]]
            resources = (told.get("resources") or {}).get(part) or {}
            allocated = (told.get("allocatedResources") or {}) if part == "requests" else {}
            for name in values:
                values[name] = max(parse(v) for v in (values[name], resources.get(name, 0), allocated.get(name, 0)))
        for name, value in values.items():
            sums[name] = sums.get(name, Decimal(0)) + value
    for container in (pod.get("spec") or {}).get("initContainers") or []:
        for name, value in ((container.get("resources") or {}).get(part) or {}).items():
            sums[name] = max(sums.get(name, Decimal(0)), parse(value))
    return sums


def waits(pod: Mapping[str, Any]) -> bool:
    """Whether a kubelet has to stop it first."""
    phase = (pod.get("status") or {}).get("phase")
    return bool(pod["spec"].get("nodeName")) and phase not in ("Succeeded", "Failed")


def post(machine: Machine, request: Request) -> Answer:
    """pods/binding, pods/eviction, serviceaccounts/token."""
    found = machine.store.get(("", request.plural), request.namespace, request.name)
    if found is None:
        raise not_found(request.plural, "", request.name)
    if request.sub == "token":
        return _token(machine, request)
    if request.plural == "pods" and request.sub == "binding":
        return _bind(machine, request, found)
    if request.plural == "pods" and request.sub == "eviction":
        return _evict(machine, request, found)
    raise StatusError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")


def _token(machine: Machine, request: Request) -> Answer:
    user = User(
        f"system:serviceaccount:{request.namespace}:{request.name}",
        ("system:serviceaccounts", f"system:serviceaccounts:{request.namespace}", "system:authenticated"),
    )
    token = uuid.uuid4().hex
    machine.authority.tokens[token] = user
    status = {"token": token, "expirationTimestamp": machine.now()}
    return answer({"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "status": status}, 201)


def _bind(machine: Machine, request: Request, found: Object) -> Answer:
    if found["spec"].get("nodeName"):
        told = f'pod {request.name} is already assigned to node "{found["spec"]["nodeName"]}"'
        raise conflict("pods/binding", "", request.name, told)
    new = clone(found)
    new["spec"]["nodeName"] = request.body["target"]["name"]
    new["metadata"]["generation"] += 1
    conditions = [one for one in new["status"].get("conditions") or [] if one["type"] != "PodScheduled"]
    new["status"]["conditions"] = [*conditions, {"type": "PodScheduled", "status": "True"}]
    if not request.dry_run:
        machine.store.put(("", "pods"), new)
    return answer({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}, 201)


def _evict(machine: Machine, request: Request, found: Object) -> Answer:
    options = (request.body or {}).get("deleteOptions") or {}
    if (wanted := (options.get("preconditions") or {}).get("uid")) and wanted != found["metadata"]["uid"]:
        told = f"Precondition failed: UID in precondition: {wanted}, UID in object meta: {found['metadata']['uid']}"
        raise conflict("pods", "", request.name, told)
    if found["status"].get("phase") not in ("Pending", "Succeeded", "Failed"):
        for budget in list(machine.store.all(("policy", "poddisruptionbudgets"), request.namespace)):
            if matches(budget["spec"].get("selector"), found["metadata"].get("labels") or {}):
                _disrupt(machine, request, budget)
    resource = machine.registry.find("", "v1", "pods")
    assert resource is not None
    lifecycle.remove(machine, resource, request, found, options.get("gracePeriodSeconds"))
    return answer({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}, 201)


def _disrupt(machine: Machine, request: Request, budget: Object) -> None:
    """One disruption less, or StatusError 429."""
    status, name = budget.get("status") or {}, budget["metadata"]["name"]
    allowed = status.get("disruptionsAllowed", 0)
    told = ""
    if status.get("observedGeneration", 0) < budget["metadata"]["generation"]:
        told = f"The disruption budget {name} is still being processed by the server."
    elif allowed < 0:
        raise forbidden("poddisruptionbudget", "policy", name, "pdb disruptions allowed is negative")
    elif not allowed:
        healthy = f"{status.get('desiredHealthy', 0)} healthy pods and has {status.get('currentHealthy', 0)} currently"
        told = f"The disruption budget {name} needs {healthy}"
    if told:
        causes = [{"reason": "DisruptionBudget", "message": told}]
        message = "Cannot evict pod as it would violate the pod's disruption budget."
        raise StatusError(429, "TooManyRequests", message, {"causes": causes})
    if not request.dry_run:
        new = clone(budget)
        new["status"]["disruptionsAllowed"] = allowed - 1
        new["status"].setdefault("disruptedPods", {})[request.name] = machine.now()
        machine.store.put(("policy", "poddisruptionbudgets"), new)
