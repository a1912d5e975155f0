"""Carries out the steps of a plan of resizes: asks the server first whether it would, then writes, one request each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from headgate.adapters.kubernetes.api import STRATEGIC, Api, ApiError, path
from headgate.adapters.kubernetes.pods import Cpu, Pod
from headgate.adapters.kubernetes.resize import Memory, Plan, Step
from headgate.core.hosting import Change, Refusal
from headgate.core.units import format_cpu

_BELIEVED = 300.0
"""Seconds for which the server's answer to a dry run is not asked for again."""
_REMEMBERED = frozenset({"NodeCapacity", "QuotaExceeded", "LimitRange", "QosClass", "Denied", "Invalid"})
"""Refusals that a smaller change may avoid; the others end as soon as somebody acts on them."""
_WORTH = 50
"""Millicores: less of a growth than this is not tried where all of it was refused."""

_SAID = (
    ("running on node without support for resize", "NodeTooOld", "upgrade the node to Kubernetes 1.33 or newer"),
    ("enough allocatable", "NodeCapacity", "lower the ceiling, or move the pod to a larger node"),
    ("exceeded quota", "QuotaExceeded", "raise the ResourceQuota, or lower the budget to what it leaves"),
    ("cpu usage per", "LimitRange", "set the ceiling and floor within the LimitRange, or change it"),
    ("limit to request ratio", "LimitRange", "set the ceiling and floor within the LimitRange, or change it"),
    ("QOS Class may not change", "QosClass", "see the requests and limits of the pod's other containers"),
    ("pods/resize", "Forbidden", "allow headgate's account to patch pods/resize"),
)


def refusal_of(error: ApiError) -> Refusal:
    """What an error of the server to a resize means: a 403 has four meanings, a 422 several."""
    if any(cause.reason == "NodeCapacity" for cause in error.causes):
        reason, remedy = "NodeCapacity", "lower the ceiling, or move the pod to a larger node"
    elif error.status == 404:
        reason, remedy = "ServerTooOld", "in-place resize takes a Kubernetes 1.33 API server or newer"
    else:
        fallback = ("Denied", "see who denies it (an admission webhook or policy)")
        if error.status == 422:
            fallback = ("Invalid", "report this with the message: headgate asked for what a pod cannot have")
        found = ((why, what) for text, why, what in _SAID if text in error.message)
        reason, remedy = next(found, fallback)
    return Refusal(reason, f"{error.message}: {remedy}")


def less_of(refusal: Refusal, has: int, wanted: int) -> Refusal:
    """A refusal of a growth with what may be tried instead: half of it, and half of that after the next refusal."""
    half = (wanted - has) // 2
    if refusal.reason not in _REMEMBERED or half < _WORTH:
        return refusal
    return replace(refusal, most=has + half)


def body_of(pod: Pod, cpu: Cpu) -> dict[str, Any]:
    """The strategic merge patch on `resize`; a change in between makes it a conflict."""
    parts = {"requests": cpu.request, "limits": cpu.limit}
    resources = {name: {"cpu": format_cpu(value)} for name, value in parts.items() if value is not None}
    return {
        "metadata": {"resourceVersion": pod.version},
        "spec": {"containers": [{"name": pod.main.name, "resources": resources}]},
    }


def change_of(step: Step, refused: Refusal | None = None) -> Change:
    """The request that a step is."""
    pod = step.of.pod
    return Change(
        pipeline=step.of.pipeline,
        target=f"pod {pod.key} resize",
        content_type=STRATEGIC,
        body=body_of(pod, step.cpu),
        path=path("v1", "pods", pod.name, pod.namespace, "resize"),
        reason=f"{step.reason}; {step.waits}" if step.waits else step.reason,
        before=step.before,
        after=step.after,
        refused=refused,
    )


@dataclass(slots=True)
class Outcome:
    """What came of a plan."""

    changes: list[Change] = field(default_factory=list)
    refused: dict[str, Refusal] = field(default_factory=dict)
    """By pipeline."""
    pending: dict[str, str] = field(default_factory=dict)
    taken: dict[str, int] = field(default_factory=dict)
    """Millicores that pods take now, by uid, where this call changed it."""
    memory: Memory = field(default_factory=Memory)
    stopped: bool = False
    """Whether it ended before its time: not allowed any more, or no answer."""


@dataclass(frozen=True, slots=True)
class _Asked:
    version: str
    millicores: int
    until: float


class Resizer:
    """Writes resizes. Keeps what the server said to dry runs and requests whose answer was lost, nothing else."""

    def __init__(
        self, api: Api, *, most: int = 200, lost: float = 60.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`most`: requests in one call. `lost`: seconds after which a request without answer has had its effect."""
        self._api = api
        self._most = most
        self._lost = lost
        self._clock = clock
        self._asked: dict[str, _Asked] = {}
        self._answers: dict[tuple[str, Cpu, Cpu], tuple[float, Refusal | None]] = {}

    def asked(self, pods: Iterable[Pod]) -> Mapping[str, int]:
        """Millicores by uid that were asked for without an answer and that the pods do not show yet."""
        now = self._clock()
        versions = {pod.uid: pod.version for pod in pods}
        self._asked = {u: a for u, a in self._asked.items() if versions.get(u) == a.version and now < a.until}
        return {uid: asked.millicores for uid, asked in self._asked.items()}

    def carry_out(
        self, plan: Plan, allowed: Callable[[], bool], *, dry_run: bool = False, until: float = 0.0
    ) -> Outcome:
        """Dry runs of all steps, then the writes: shrinks before growth. `until`: when a refusal may be forgotten.

        Raises ConnectionError when the server gave no answer before anything was written.
        """
        outcome = Outcome(pending=dict(plan.pending), refused=dict(plan.refused), memory=plan.memory)
        checked, said, left = self._check(plan, outcome)
        for step in (*plan.steps, *plan.waiting):
            refusal = said.get(step.of.pod.uid)
            if refusal is not None:
                self._refuse(step, refusal, plan, outcome, until)
        held = {uid for uid, refusal in said.items() if refusal is not None}
        groups = {step.of.pipeline for step in (*plan.steps, *plan.waiting) if step.cost and step.of.pod.uid in held}
        if dry_run:
            later = {step.of.pod.uid for step in plan.waiting}  # of these the whole change, not what would come first
            shown = (*(step for step in plan.steps if step.of.pod.uid not in later), *plan.waiting)
            outcome.changes += [change_of(step, said.get(step.of.pod.uid)) for step in shown]
            return outcome
        for step in plan.steps:
            uid = step.of.pod.uid
            if uid not in checked or uid in held or (step.cost and step.of.pipeline in groups):
                continue
            if not left:
                break
            if outcome.stopped or not allowed():
                outcome.stopped = True
                break
            left -= 1
            self._write(step, plan, outcome, until)
        return outcome

    def write_all(self, steps: Sequence[Step], allowed: Callable[[], bool]) -> None:
        """Steps without a dry run, as far as they go: what is to be taken back before a stop."""
        outcome = Outcome()
        for step in steps[: self._most]:
            if outcome.stopped or not allowed():
                return
            self._write(step, Plan((), (), {}, {}, Memory()), outcome, 0.0)

    def _check(self, plan: Plan, outcome: Outcome) -> tuple[set[str], dict[str, Refusal | None], int]:
        """The pods whose steps the server was asked about, what it said of each, and how many requests are left."""
        shrinking = {step.of.pod.namespace for step in plan.steps if not step.cost}
        forbidden: dict[str, Refusal] = {}
        said: dict[str, Refusal | None] = {}
        most = left = self._most // 2
        now = self._clock()
        self._answers = {key: answer for key, answer in self._answers.items() if answer[0] > now}
        for step in (*plan.steps, *plan.waiting):
            pod = step.of.pod
            key = (pod.uid, pod.main.spec, step.cpu)
            if pod.namespace in forbidden:
                said[pod.uid] = forbidden[pod.namespace]
            elif key in self._answers:
                said[pod.uid] = self._answers[key][1]
            elif left:
                left -= 1
                try:
                    refusal = self._ask(step)
                except _Gone as gone:
                    outcome.pending[step.of.pipeline] = str(gone)
                    continue
                if refusal is not None and refusal.reason == "Forbidden":
                    forbidden[pod.namespace] = refusal
                if refusal is not None and refusal.reason == "QuotaExceeded" and pod.namespace in shrinking:
                    refusal = None  # what is given up first may be what is missing
                elif refusal is None or refusal.reason in _REMEMBERED:
                    self._answers[key] = (now + _BELIEVED, refusal)
                said[pod.uid] = refusal
        return set(said), said, self._most - (most - left)

    def _ask(self, step: Step) -> Refusal | None:
        pod = step.of.pod
        try:
            self._api.patch(_where(pod), body_of(pod, step.cpu), STRATEGIC, dryRun="All", fieldManager="headgate")
        except ApiError as error:
            if error.retry:
                raise ConnectionError(str(error)) from None
            if (gone := _gone(error, pod)) is not None:
                raise gone from None
            return refusal_of(error)
        return None

    def _write(self, step: Step, plan: Plan, outcome: Outcome, until: float) -> None:
        pod = step.of.pod
        try:
            self._api.patch(_where(pod), body_of(pod, step.cpu), STRATEGIC, fieldManager="headgate")
        except ApiError as error:
            if error.retry:
                # It may have had its effect, now or a little later, as long as the pod is as it was.
                self._asked[pod.uid] = _Asked(pod.version, step.after, self._clock() + self._lost)
                outcome.taken[pod.uid] = max(step.before, step.after)
                outcome.pending[step.of.pipeline] = f"the API server gave no answer: {error}"
                outcome.stopped = True
            elif (gone := _gone(error, pod)) is not None:
                outcome.pending[step.of.pipeline] = str(gone)
            else:
                self._refuse(step, refusal_of(error), plan, outcome, until)
            return
        outcome.taken[pod.uid] = max(step.before, step.after)
        outcome.changes.append(change_of(step))

    def _refuse(self, step: Step, refusal: Refusal, plan: Plan, outcome: Outcome, until: float) -> None:
        outcome.refused[step.of.pipeline] = refusal
        outcome.pending.pop(step.of.pipeline, None)
        if refusal.reason in _REMEMBERED:
            group = [other.of for other in (*plan.steps, *plan.waiting)]
            outcome.memory = outcome.memory.forbidden(group, step.of, step.after, refusal, until)


class _Gone(Exception):  # noqa: N818 - the pod's state, not an error of ours
    pass


def _gone(error: ApiError, pod: Pod) -> _Gone | None:
    """Whether the pod is another one than was seen, or gone."""
    if error.status == 409:
        return _Gone(f"pod {pod.key} was changed by somebody in between")
    if error.status == 404 and "not found" in error.message and f'"{pod.name}"' in error.message:
        return _Gone(f"pod {pod.key} is gone")
    return None


def _where(pod: Pod) -> str:
    return path("v1", "pods", pod.name, pod.namespace, "resize")
