"""The durable path: a grant that stood for long becomes the service's own setting, so that new pods start with it.

That rolls the pods, so it is done seldom, one service at a time, only where there is room for the pods that a rollout
adds, and it is undone when the rollout does not succeed in time. What was set before is written down first, in
headgate's own state: whoever goes on after a crash can undo it as well.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headgate.adapters.kserve import services
from headgate.adapters.kserve.members import Member
from headgate.adapters.kserve.resources import place_of, request, set_by
from headgate.adapters.kserve.services import Deployed, Service
from headgate.adapters.kserve.writes import Look, Write
from headgate.adapters.kubernetes.api import Api, path
from headgate.adapters.kubernetes.pods import Cpu
from headgate.adapters.kubernetes.shape import shape
from headgate.core.hosting import Keep, Refusal
from headgate.core.units import format_cpu

log = logging.getLogger("headgate.kserve")

SURGE = 0.25
"""Share of its pods that a Deployment adds while it rolls, by default."""
LOST = 60.0
"""Seconds after which a write whose answer was lost has had its effect, or has none."""
FORMAT = 1


@dataclass(frozen=True, slots=True)
class _Standing:
    each: int
    since: float


@dataclass(frozen=True, slots=True)
class Rollout:
    """A setting that was written, or was about to be, and is not known to have succeeded."""

    began: float
    before: Cpu
    """What the component set itself; nothing: the runtime's default held."""
    wanted: Cpu
    old: frozenset[str] = frozenset()
    """Uids of the pods that it replaces."""

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "began": self.began,
            "before": [self.before.request, self.before.limit],
            "wanted": [self.wanted.request, self.wanted.limit],
            "old": sorted(self.old),
        }

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Rollout:
        """From `plain`. Raises ValueError, TypeError or LookupError for what that never wrote."""
        before, wanted = (Cpu(*(None if n is None else int(n) for n in plain[key])) for key in ("before", "wanted"))
        return cls(float(plain["began"]), before, wanted, frozenset(map(str, plain["old"])))


class Templates:
    """Keeps since when grants stand, and what a rollout replaced. After a restart grants begin to stand anew."""

    def __init__(self, api: Api, forget: float) -> None:
        """`forget`: seconds until a rollout that failed is tried again."""
        self._api = api
        self._forget = forget
        self._standing: dict[str, _Standing] = {}
        self._rollouts: dict[str, Rollout] = {}
        self._failed: dict[str, tuple[float, Refusal]] = {}
        self._keep: Keep = lambda _: False

    def resume(self, kept: Mapping[str, Any], keep: Keep) -> None:
        """Go on with what an earlier process wrote down."""
        self._rollouts, self._keep = {}, keep
        if kept.get("format", FORMAT) != FORMAT:
            log.warning("dropped from the state: rollouts: are not of format %d", FORMAT)
            return
        for name, plain in (kept.get("rollouts") or {}).items():
            try:
                self._rollouts[name] = Rollout.of(plain)
            except (ValueError, TypeError, LookupError) as error:
                log.warning("dropped from the state: the rollout of %s: is damaged: %s", name, error)

    def step(self, look: Look) -> None:
        """Watch what rolls, and begin with at most one service whose grant has stood."""
        rolling = False
        for member, service in look.components():
            if member.name in self._rollouts:
                rolling = self._watch(member, service, look) or rolling
        if not look.order.budget.spec.template.write:
            return
        for member, service in look.components():
            ripe = self._ripe(member, service, look)
            if ripe is None or rolling:
                continue
            if (obstacle := self._obstacle(member, service, ripe, look)) is not None:
                look.slow.notes[f"{member.name} template"] = obstacle
                continue
            rolling = self._write(member, service, ripe, look)

    def _ripe(self, member: Member, service: Service, look: Look) -> Cpu | None:
        """What the template is to have, once a grant has stood long enough and is not what it has already."""
        grant, rules = look.order.grants.get(member.name), look.order.budget.spec.template
        if grant is None or not member.live or member.limits_only:
            self._standing.pop(member.name, None)
            return None
        each = grant // len(member.live)
        standing = self._standing.get(member.name)
        if standing is None or abs(each - standing.each) > rules.band * standing.each or member.name in look.pending:
            self._standing[member.name] = _Standing(each, look.now)
            return None
        if look.now - standing.since < rules.after:
            return None
        wanted = shape(member.live[0], each)
        now_set = set_by(service, member.component)
        if isinstance(wanted, Refusal):
            return None
        if now_set.request is not None and abs(each - now_set.request) <= rules.band * now_set.request:
            return None
        return wanted

    def _obstacle(self, member: Member, service: Service, wanted: Cpu, look: Look) -> Refusal | None:
        failed = self._failed.get(member.name)
        if failed is not None and look.now < failed[0]:
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
        if member.mode is Deployed.KNATIVE and not look.order.budget.spec.template.knative:
            return Refusal(
                "KnativeRevision",
                f"a change of {service.key} would make a new Revision: set template.knative to allow it",
            )
        if place_of(service, member.component) is None:
            return Refusal(
                "NoTemplate",
                f"the {member.component} of {service.key} has neither a model nor a container {services.MAIN[0]}",
            )
        needed = math.ceil(SURGE * len(member.live)) * (wanted.request or 0)
        if look.room < needed:
            return Refusal(
                "NoRoomForRollout",
                f"rolling {service.key} takes {format_cpu(needed)} more for a while, "
                f"and {format_cpu(max(0, look.room))} are free: give the budget a reserve",
            )
        return None

    def _write(self, member: Member, service: Service, wanted: Cpu, look: Look) -> bool:
        """Whether it rolls now. What is set is written down first, and that only where the server would do it."""
        before = set_by(service, member.component)
        write = _write_of(member, service, wanted, "the grant has stood long enough to become the template's")
        rollout = Rollout(look.now, before, wanted, frozenset(pod.uid for pod in member.live))
        if not look.dry_run:
            if not (write.possible(self._api, look) and look.allowed()):
                return False
            if not self._note(member.name, rollout):
                look.slow.pending[member.name] = f"what {service.key} sets now could not be written down"
                return False
        if write.send(self._api, look) is None:
            if not look.dry_run:
                self._note(member.name, None)
            return False
        look.slow.pending[member.name] = f"{service.key} rolls to {format_cpu(wanted.request or 0)} for each pod"
        return True

    def _watch(self, member: Member, service: Service, look: Look) -> bool:
        """Whether it still rolls."""
        rollout, timeout = self._rollouts[member.name], look.order.budget.spec.template.timeout
        now_set = set_by(service, member.component)
        if now_set != rollout.wanted and look.seen > rollout.began:
            if now_set == rollout.before and look.seen - rollout.began <= LOST:
                look.slow.pending[member.name] = f"{service.key} does not show its new CPU setting yet"
                return True
            # It was never written, or somebody has set something else since: there is nothing to undo.
            return self._over(member.name, look)
        fresh = [pod for pod in member.live if pod.uid not in rollout.old]
        done = service.ready and not member.leaving and len(fresh) == len(member.live) > 0
        if done and all(pod.ready for pod in member.live):
            return self._over(member.name, look)
        if look.now - rollout.began <= timeout:
            look.slow.pending[member.name] = f"{service.key} rolls: {len(fresh)} of {len(member.live)} pods are new"
            return True
        write = _write_of(member, service, rollout.before, "the rollout did not succeed in time: undone")
        if write.send(self._api, look) is None:
            return True
        refusal = Refusal(
            "RolloutFailed",
            f"{service.key} was not ready within {timeout:g} s of a new CPU setting, which is undone: see its events",
        )
        self._failed[member.name] = (look.now + self._forget, refusal)
        look.slow.notes[f"{member.name} template"] = refusal
        return self._over(member.name, look)

    def _over(self, name: str, look: Look) -> bool:
        """False: it rolls no more. A record that cannot be erased does no harm: it is looked at again."""
        if not look.dry_run:
            self._note(name, None)
        return False

    def _note(self, name: str, rollout: Rollout | None) -> bool:
        """Whether it is written down that this rolls, or, with None, rolls no more."""
        rollouts = {other: known for other, known in self._rollouts.items() if other != name}
        if rollout is not None:
            rollouts[name] = rollout
        plain = {"format": FORMAT, "rollouts": {other: known.plain() for other, known in rollouts.items()}}
        if not self._keep(plain) and rollout is not None:
            return False
        self._rollouts = rollouts
        return True


def _write_of(member: Member, service: Service, wanted: Cpu, reason: str) -> Write:
    kind, body = request(service, member.component, wanted)
    return Write(
        pipeline=member.name,
        part="template",
        target=f"inferenceservice {service.key}",
        path=path(services.API, services.RESOURCE, service.name, service.namespace),
        content_type=kind,
        body=body,
        reason=reason,
        before=set_by(service, member.component).request or 0,
        after=wanted.request or 0,
    )
