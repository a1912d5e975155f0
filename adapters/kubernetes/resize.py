"""Which pods to resize next, so that a budget holds at every instant. Pure: what is observed comes in, steps go out.

A shrink frees nothing until the kubelet has done it, a growth takes from the moment it is asked for. So what counts as
taken is the largest of asked for, set aside and in force (`Pod.taken`), and a pod grows only into what its budget and
its node have left beyond that. Whoever calls this again with a fresh observation goes on from there, whatever happened
in between: there is no plan to be remembered.

What is remembered (`Memory`) only saves useless attempts: bounds that a node or the server turned out to set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from headgate.adapters.kubernetes.failures import failure
from headgate.adapters.kubernetes.pods import Cpu, Pod, Stage
from headgate.adapters.kubernetes.shape import LEAST, amount, shape, taken
from headgate.core.hosting import Refusal
from headgate.core.units import format_cpu


@dataclass(frozen=True, slots=True)
class Managed:
    """A pod that counts against a budget, and what it is to have."""

    pod: Pod
    pipeline: str
    target: int | None = None
    """Millicores; None: it only counts."""
    limits_only: bool = False

    @property
    def taken(self) -> int:
        """Millicores that count."""
        return taken(self.pod, self.limits_only)

    @property
    def reserved(self) -> int:
        """Millicores that nobody else may have yet: also what no node will do, until it has been taken back."""
        asked = amount(self.pod.main.spec, self.limits_only) if self.target is not None else 0
        return max(self.taken, asked)

    @property
    def in_force(self) -> int:
        """Millicores that it has."""
        return amount(self.pod.in_force, self.limits_only)


@dataclass(frozen=True, slots=True)
class Share:
    """A budget and all pods that count against it."""

    budget: str
    total: int
    pods: tuple[Managed, ...]
    asked: Mapping[str, int] = field(default_factory=dict)
    """Millicores by uid of requests that were sent and whose answer is not known."""

    @property
    def room(self) -> int:
        """Millicores that nobody has taken; below 0 where more is taken than there is."""
        return self.total - sum(max(m.reserved, self.asked.get(m.pod.uid, 0)) for m in self.pods)


@dataclass(frozen=True, slots=True)
class Bound:
    """What a pod cannot go beyond, and until when that is believed."""

    least: int
    most: int | None
    back: int
    """Millicores that it is to have where its target lies beyond: what it had when that failed."""
    until: float
    refusal: Refusal

    def allows(self, target: int) -> bool:
        """Whether a target may be tried."""
        return self.least <= target and (self.most is None or target <= self.most)


@dataclass(frozen=True, slots=True)
class Memory:
    """What was learned from failures, by the pods' uids. Losing it costs an attempt each."""

    bounds: Mapping[str, Bound] = field(default_factory=dict)
    before: Mapping[str, int] = field(default_factory=dict)
    """Millicores that a pod had when it began to grow towards its present target."""
    waiting: Mapping[str, float] = field(default_factory=dict)
    """When a change was first seen waiting, where its condition does not tell."""

    def failed(self, group: Iterable[Managed], pod: Managed, refusal: Refusal, until: float) -> Memory:
        """After a node failed to change `pod`: it stays as it is, and those of its pipeline that grew go back.

        A smaller change would wait, or fail, as long: it is not tried either.
        """
        here = pod.in_force
        asked = amount(pod.pod.main.spec, pod.limits_only)
        grows = (asked if asked != here else pod.target or 0) > here
        bound = Bound(0, here, here, until, refusal) if grows else Bound(here, None, here, until, refusal)
        group = group if grows else ()
        return self._bounded(group, pod, bound, lambda _, back: Bound(0, back, back, until, refusal))

    def forbidden(self, group: Iterable[Managed], pod: Managed, asked: int, refusal: Refusal, until: float) -> Memory:
        """After the server refused `asked` millicores for `pod`: as `failed`, but less of a change may be tried.

        The server answers at once and before anything is changed, so trying costs nothing.
        """
        here = pod.in_force
        if asked == here:
            return self  # what was to be taken back; why, is remembered already
        grows = asked > here
        bound = Bound(0, asked - 1, here, until, refusal) if grows else Bound(asked + 1, None, here, until, refusal)

        def other(managed: Managed, back: int) -> Bound:
            return Bound(0, max(back, (managed.target or 0) - 1), back, until, refusal)

        return self._bounded(group if grows else (), pod, bound, other)

    def _bounded(
        self, group: Iterable[Managed], pod: Managed, bound: Bound, other: Callable[[Managed, int], Bound]
    ) -> Memory:
        bounds = {**self.bounds, pod.pod.uid: bound}
        for managed in group:
            uid = managed.pod.uid
            if managed.pipeline == pod.pipeline and uid in self.before and uid not in bounds:
                bounds[uid] = other(managed, self.before[uid])
        return replace(self, bounds=bounds)


@dataclass(frozen=True, slots=True)
class Rules:
    """How patient to be. Seconds."""

    patience: float = 60.0
    """A change that waits for so long is taken back."""
    memory: float = 600.0
    """How long a failure is believed to repeat itself."""


@dataclass(frozen=True, slots=True)
class Step:
    """One change of one pod."""

    of: Managed
    cpu: Cpu
    """What its main container is to ask for."""
    reason: str
    waits: str = ""
    """What it has to wait for; empty: it may be written now."""

    @property
    def before(self) -> int:
        """Millicores that count now."""
        return self.of.taken

    @property
    def after(self) -> int:
        """Millicores that it is to have."""
        return amount(self.cpu, self.of.limits_only)

    @property
    def cost(self) -> int:
        """Millicores that it takes beyond what is taken already."""
        return max(0, self.after - self.before)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to write now, in this order, and what is still to come."""

    steps: tuple[Step, ...]
    waiting: tuple[Step, ...]
    pending: Mapping[str, str]
    """What each pipeline waits for whose change is not in force."""
    refused: Mapping[str, Refusal]
    memory: Memory


def plan(
    shares: Sequence[Share], free: Mapping[str, int] | None, memory: Memory, now: float, rules: Rules | None = None
) -> Plan:
    """The next steps. `free`: millicores by node that no pod at all has taken; None: nobody may look at nodes."""
    memory = _learn(shares, memory, now, rules or Rules())
    left = None if free is None else dict(free)
    shrinks: list[Step] = []
    grows: list[Step] = []
    waiting: list[Step] = []
    pending: dict[str, str] = {}
    refused: dict[str, Refusal] = {}
    for share in shares:
        wishes: list[Step] = []
        for managed in share.pods:
            wish = _wish(managed, memory)
            bound = memory.bounds.get(managed.pod.uid)
            if bound is not None and managed.target is not None and not bound.allows(managed.target):
                refused[managed.pipeline] = bound.refusal
            if isinstance(wish, Refusal):
                refused[managed.pipeline] = wish
            elif isinstance(wish, str):
                pending[managed.pipeline] = wish
            elif wish is not None:
                wishes.append(wish)
        shrinks += (wish for wish in wishes if not wish.cost)
        growing, later = _grow(share, [wish for wish in wishes if wish.cost], left)
        grows += growing
        waiting += later
    shrinks.sort(key=lambda step: (step.after - step.before, step.of.pod.key))
    for step in (*shrinks, *grows):
        pending[step.of.pipeline] = f"the kubelet has to put {format_cpu(step.after)} of {step.of.pod.key} in force"
    for step in waiting:
        pending[step.of.pipeline] = step.waits
    before = _before(shares, memory, grows, pending)
    return Plan((*shrinks, *grows), tuple(waiting), pending, refused, replace(memory, before=before))


def resting(shares: Sequence[Share]) -> list[Step]:
    """The steps that take back every change which waits and may never happen."""
    found = []
    for share in shares:
        for managed in share.pods:
            pod = managed.pod
            stuck = pod.resize is not None and pod.resize.stage in (Stage.DEFERRED, Stage.INFEASIBLE, Stage.ERROR)
            if stuck and not pod.deleting and pod.main.spec != pod.in_force:
                found.append(Step(managed, pod.in_force, "taken back: it was waiting"))
    return found


def _learn(shares: Sequence[Share], memory: Memory, now: float, rules: Rules) -> Memory:
    """The memory after a look at the conditions of all pods."""
    uids = {managed.pod.uid for share in shares for managed in share.pods}
    memory = replace(
        memory,
        bounds={u: b for u, b in memory.bounds.items() if u in uids and b.until > now},
        waiting={
            m.pod.uid: memory.waiting.get(m.pod.uid, now)
            for share in shares
            for m in share.pods
            if m.pod.resize is not None and not m.pod.resize.since
        },
    )
    for share in shares:
        for managed in share.pods:
            if managed.target is None or managed.pod.deleting:
                continue
            refusal = failure(managed.pod, memory.waiting.get(managed.pod.uid), now, rules.patience)
            if refusal is not None and refusal.reason == "NodeCapacity":
                asked = amount(managed.pod.main.spec, managed.limits_only)
                memory = memory.forbidden(share.pods, managed, asked, refusal, now + rules.memory)
            elif refusal is not None:
                memory = memory.failed(share.pods, managed, refusal, now + rules.memory)
    return memory


def _wish(managed: Managed, memory: Memory) -> Step | Refusal | str | None:
    """The step towards a pod's target; a text: what it waits for; None: it is there, or only counts."""
    pod, target = managed.pod, managed.target
    if target is None or pod.deleting or pod.finished:
        return None
    bound = memory.bounds.get(pod.uid)
    if bound is not None and not bound.allows(target):
        target = bound.back
        if target == managed.in_force:
            # As it was, to the millicore: its limit may have been another than a grant's.
            if pod.main.spec == pod.in_force:
                return None
            return Step(managed, pod.in_force, f"restored: {bound.refusal.reason}")
    wanted = shape(pod, max(target, LEAST), managed.limits_only)
    if isinstance(wanted, Refusal):
        return wanted
    if wanted == pod.main.spec:
        return None if pod.settled else _waits(pod)
    step = Step(managed, wanted, f"grant of {managed.pipeline}")
    if step.cost and pod.resize is not None and pod.resize.stage is Stage.DEFERRED:
        return _waits(pod)
    return step


def _waits(pod: Pod) -> str:
    asked = format_cpu(pod.main.spec.request or 0)
    if pod.resize is not None and pod.resize.stage is not Stage.IN_PROGRESS:
        said = f" ({pod.resize.message})" if pod.resize.message else ""
        return f"{asked} of {pod.key} is {pod.resize.stage}{said}"
    return f"the kubelet has to put {asked} of {pod.key} in force"


def _grow(share: Share, wishes: Sequence[Step], left: dict[str, int] | None) -> tuple[list[Step], list[Step]]:
    """The growth that there is room for, and the rest. Who has least of what it is to have goes first."""
    room = share.room
    now: list[Step] = []
    later: list[Step] = []
    for wish in sorted(wishes, key=lambda step: (step.before / step.after, step.of.pod.key)):
        pod = wish.of.pod
        # A node that is not in the list is gone or not to be counted on; a pod without one waits for its own.
        here = room
        if left is not None and pod.node is not None and not wish.of.limits_only:
            here = left.get(pod.node, 0)
        gain = max(0, min(wish.cost, room, here))
        step = wish if gain == wish.cost else _part(wish, gain)
        if step is not None:
            cost = step.cost
            room -= cost
            if left is not None and pod.node is not None and not wish.of.limits_only:
                left[pod.node] = left.get(pod.node, 0) - cost
            now.append(step)
        if step is not wish:
            short = f"node {pod.node} has {format_cpu(max(0, here))}" if here < room else "the budget has"
            free = "" if here < room else f" {format_cpu(max(0, room))}"
            text = (
                f"{pod.key} waits for {format_cpu(wish.cost - (step.cost if step else 0))} more: {short}{free} free now"
            )
            later.append(replace(wish, waits=text))
    return now, later


def _part(wish: Step, gain: int) -> Step | None:
    """A part of a growth, when it is worth a request of its own: a quarter of it and 10m at the least."""
    if gain < max(LEAST, wish.cost // 4):
        return None
    part = shape(wish.of.pod, wish.before + gain, wish.of.limits_only)
    return None if isinstance(part, Refusal) else replace(wish, cpu=part)


def _before(
    shares: Sequence[Share], memory: Memory, grows: Sequence[Step], pending: Mapping[str, str]
) -> dict[str, int]:
    """What growing pods had before; forgotten when their pipeline has nothing pending any more."""
    here = {m.pod.uid for share in shares for m in share.pods if m.pipeline in pending}
    kept = {uid: value for uid, value in memory.before.items() if uid in here}
    return {step.of.pod.uid: step.before for step in grows} | kept
