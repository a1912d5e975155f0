"""The durable path: a grant that stood for long becomes the service's own setting, so that new pods start with it.

That rolls the pods, so it is done seldom, one service at a time, only where there is room for the pods that a rollout
adds, and it is undone when the rollout does not succeed in time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from headgate.adapters.kserve import services
from headgate.adapters.kserve.members import Claim, Member
from headgate.adapters.kserve.services import Deployed, Service
from headgate.adapters.kserve.writes import Slow, Write
from headgate.adapters.kubernetes.api import APPLY, JSON_PATCH, Api, path
from headgate.adapters.kubernetes.pods import Cpu
from headgate.adapters.kubernetes.quantities import cpu
from headgate.adapters.kubernetes.shape import shape
from headgate.core.hosting import Order, Refusal
from headgate.core.units import format_cpu

SURGE = 0.25
"""Share of its pods that a Deployment adds while it rolls, by default."""


@dataclass(frozen=True, slots=True)
class _Standing:
    each: int
    since: float


@dataclass(frozen=True, slots=True)
class _Rollout:
    began: float
    before: Cpu
    """What the service set itself; nothing: the runtime's default held."""
    old: frozenset[str] = frozenset()
    """Uids of the pods that it replaces, where known."""


class Templates:
    """Keeps since when grants stand, and what a rollout replaced. After a restart grants begin to stand anew; a rollout
    that is under way then is known by headgate's mark on the fields, and undone by giving them up.
    """

    def __init__(self, api: Api, forget: float) -> None:
        """`forget`: seconds until a rollout that failed is tried again."""
        self._api = api
        self._forget = forget
        self._standing: dict[str, _Standing] = {}
        self._rollouts: dict[str, _Rollout] = {}
        self._failed: dict[str, tuple[float, Refusal]] = {}

    def step(
        self,
        claim: Claim,
        order: Order,
        pending: Mapping[str, str],
        room: int,
        now: float,
        slow: Slow,
        *,
        dry_run: bool,
        allowed: Callable[[], bool],
    ) -> None:
        """Watch what rolls, and begin with at most one service whose grant has stood. `room`: millicores nobody has."""
        rules = order.budget.spec.template
        rolling = False
        for member in claim.members:
            if member.service is None or member.refused is not None or member.component != "predictor":
                continue
            self._adopt(member, now, rules.timeout)
            if member.name in self._rollouts:
                rolling = self._watch(member, now, rules.timeout, slow, allowed, dry_run) or rolling
        if not rules.write:
            return
        for member in claim.members:
            ripe = self._ripe(member, order, pending, now)
            if ripe is None or rolling:
                continue
            if (obstacle := self._obstacle(member, ripe, order, room, now)) is not None:
                slow.notes[f"{member.name} template"] = obstacle
                continue
            rolling = self._write(member, ripe, now, slow, allowed, dry_run)

    def _ripe(self, member: Member, order: Order, pending: Mapping[str, str], now: float) -> Cpu | None:
        """What the template is to have, once a grant has stood long enough and is not what it has already."""
        grant, rules = order.grants.get(member.name), order.budget.spec.template
        if grant is None or not member.live or member.refused or member.service is None or member.limits_only:
            self._standing.pop(member.name, None)
            return None
        each = grant // len(member.live)
        standing = self._standing.get(member.name)
        if standing is None or abs(each - standing.each) > rules.band * standing.each or member.name in pending:
            self._standing[member.name] = _Standing(each, now)
            return None
        if member.component != "predictor" or now - standing.since < rules.after:
            return None
        wanted = shape(member.live[0], each)
        now_set = _set(member.service)
        if isinstance(wanted, Refusal):
            return None
        if now_set.request is not None and abs(each - now_set.request) <= rules.band * now_set.request:
            return None
        return wanted

    def _obstacle(self, member: Member, wanted: Cpu, order: Order, room: int, now: float) -> Refusal | None:
        service = member.service
        assert service is not None
        failed = self._failed.get(member.name)
        if failed is not None and now < failed[0]:
            return failed[1]
        if service.owner:
            return Refusal(
                "GitOps",
                f"{service.owner} writes {service.key}: change the CPU in its repository, it would be put back",
            )
        if service.frozen:
            return Refusal(
                "NotReconciled", f"{service.key} has serving.kserve.io/disable-auto-update: KServe ignores changes"
            )
        if member.mode is Deployed.KNATIVE and not order.budget.spec.template.knative:
            return Refusal(
                "KnativeRevision",
                f"a change of {service.key} would make a new Revision: set template.knative to allow it",
            )
        if _place(service) is None:
            return Refusal("NoTemplate", f"{service.key} has neither predictor.model nor a container kserve-container")
        needed = math.ceil(SURGE * len(member.live)) * (wanted.request or 0)
        if room < needed:
            return Refusal(
                "NoRoomForRollout",
                f"rolling {service.key} takes {format_cpu(needed)} more for a while, "
                f"and {format_cpu(max(0, room))} are free: give the budget a reserve",
            )
        return None

    def _write(
        self, member: Member, wanted: Cpu, now: float, slow: Slow, allowed: Callable[[], bool], dry_run: bool
    ) -> bool:
        service = member.service
        assert service is not None
        before = _set(service)
        write = _request(member, wanted, before, "the grant has stood long enough to become the template's")
        if write.send(self._api, slow, allowed, dry_run) is None:
            return False
        self._rollouts[member.name] = _Rollout(now, before, frozenset(pod.uid for pod in member.live))
        slow.pending[member.name] = f"{service.key} rolls to {format_cpu(wanted.request or 0)} for each pod"
        return True

    def _watch(
        self, member: Member, now: float, timeout: float, slow: Slow, allowed: Callable[[], bool], dry_run: bool
    ) -> bool:
        """Whether it still rolls."""
        rollout, service = self._rollouts[member.name], member.service
        assert service is not None
        fresh = [pod for pod in member.live if pod.uid not in rollout.old]
        done = service.ready and not member.leaving and len(fresh) == len(member.live) > 0
        if done and all(pod.ready for pod in member.live):
            del self._rollouts[member.name]
            return False
        if now - rollout.began <= timeout:
            slow.pending[member.name] = f"{service.key} rolls: {len(fresh)} of {len(member.live)} pods are new"
            return True
        write = _request(member, rollout.before, _set(service), "the rollout did not succeed in time: undone")
        if write.send(self._api, slow, allowed, dry_run) is None:
            return True
        del self._rollouts[member.name]
        refusal = Refusal(
            "RolloutFailed",
            f"{service.key} was not ready within {timeout:g} s of a new CPU setting, which is undone: see its events",
        )
        self._failed[member.name] = (now + self._forget, refusal)
        slow.notes[f"{member.name} template"] = refusal
        return False

    def _adopt(self, member: Member, now: float, timeout: float) -> None:
        """A rollout that another process began and did not see the end of."""
        service = member.service
        assert service is not None
        recent = 0 < now - service.applied <= 3 * timeout
        if recent and not service.ready and member.name not in self._rollouts | self._failed:
            self._rollouts[member.name] = _Rollout(service.applied, Cpu(None, None))


def _place(service: Service) -> tuple[str, ...] | None:
    """Where in the predictor its main container's resources are set."""
    predictor = service.spec.get("predictor") or {}
    if predictor.get("model"):
        return ("model",)
    for index, container in enumerate(predictor.get("containers") or ()):
        if container.get("name") == services.MAIN[0]:
            return ("containers", str(index))
    return None


def _container(service: Service) -> Mapping[str, Any]:
    predictor = service.spec.get("predictor") or {}
    place = _place(service)
    if place is None:
        return {}
    found: Mapping[str, Any] = predictor["model"] if place[0] == "model" else predictor["containers"][int(place[1])]
    return found


def _set(service: Service) -> Cpu:
    """CPU that the service itself sets."""
    resources = _container(service).get("resources") or {}
    return Cpu(cpu(resources.get("requests")), cpu(resources.get("limits")))


def _request(member: Member, wanted: Cpu, before: Cpu, reason: str) -> Write:
    """Server-side apply of the two fields alone; a list of containers is one value, so there a patch that tests it."""
    service = member.service
    assert service is not None
    place = _place(service)
    where = path(services.API, services.RESOURCE, service.name, service.namespace)
    parts = {"requests": wanted.request, "limits": wanted.limit}
    resources = {part: {"cpu": format_cpu(value)} for part, value in parts.items() if value is not None}
    if place is None or place[0] == "model":
        kind = APPLY
        model = {"model": {"resources": resources}} if resources else {}
        body: Any = {
            "apiVersion": services.API,
            "kind": "InferenceService",
            "metadata": {"name": service.name, "namespace": service.namespace},
            "spec": {"predictor": model},
        }
    else:
        kind, body = JSON_PATCH, _tested(service, place, resources)
    target = f"inferenceservice {service.key}"
    return Write(member, "template", target, where, kind, body, reason, before.request or 0, wanted.request or 0)


def _tested(service: Service, place: tuple[str, ...], resources: Mapping[str, Mapping[str, str]]) -> list[Any]:
    at = f"/spec/predictor/{'/'.join(place)}"
    container = _container(service)
    now = container.get("resources")
    kept = {
        part: {name: value for name, value in ((now or {}).get(part) or {}).items() if name != "cpu"}
        for part in ("requests", "limits")
    }
    merged = {part: {**kept[part], **resources.get(part, {})} for part in kept}
    body: list[Any] = [{"op": "test", "path": f"{at}/name", "value": container["name"]}]
    if now is not None:
        body.append({"op": "test", "path": f"{at}/resources", "value": now})
    return [*body, {"op": "add", "path": f"{at}/resources", "value": {p: v for p, v in merged.items() if v}}]
