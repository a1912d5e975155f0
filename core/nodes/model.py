"""What the node scaler sees: nodes, the pods on them, and what the providers and the allocator say of each group.

CPU is in millicores, memory in bytes, time in seconds of one epoch for the observation, the state and `now`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property

from headgate.core.providers import Instance, NodeTemplate, ProviderGroup, Taint


class Resize(Enum):
    """What the kubelet says of a resize that is not done yet (condition PodResizePending)."""

    DEFERRED = "Deferred"
    """The node has no room now."""
    INFEASIBLE = "Infeasible"
    """The node will never have room."""


@dataclass(frozen=True, slots=True)
class Toleration:
    """Lets a pod onto nodes with a taint. No key: every taint; no effect: every effect; no value: any."""

    key: str | None = None
    value: str | None = None
    effect: str | None = None

    def allows(self, taint: Taint) -> bool:
        """Whether the pod may stay in spite of `taint`."""
        return (
            self.key in (None, taint.key)
            and self.value in (None, taint.value)
            and self.effect in (None, "", taint.effect)
        )


@dataclass(frozen=True, slots=True)
class PodInfo:
    """A pod that has not finished, and all that decides whether it can move."""

    name: str
    """namespace/name."""
    cpu: int
    """Requested by its spec; the wanted size while a resize is under way."""
    node: str | None = None
    memory: int = 0
    allocated: int | None = None
    """What the kubelet has set aside for it."""
    actual: int | None = None
    """What is in force in its cgroup."""
    resize: Resize | None = None
    template_cpu: int | None = None
    """What its controller's template asks for: the size of the pod that replaces it. None: as it is now."""
    pipeline: str | None = None
    """The pipeline that it serves when headgate sets its CPUs; None: not headgate's."""
    floor: int = 0
    """A pipeline's pod: what it can be shrunk to."""
    created: float = 0.0
    priority: int = 0
    grace: float = 30.0
    """Seconds that it gets to end."""
    controlled: bool = True
    """A controller will replace it."""
    daemon: bool = False
    """A daemon set's or a static pod: it belongs to the node and ends with it."""
    terminating: bool = False
    local_storage: bool = False
    """It keeps data in an emptyDir or a hostPath, which does not move with it."""
    safe_to_evict: bool | None = None
    """What its owner says (annotation); None: nothing."""
    labels: Mapping[str, str] = field(default_factory=dict)
    selector: Mapping[str, str] = field(default_factory=dict)
    """Node labels that it needs."""
    tolerations: tuple[Toleration, ...] = ()
    exclusive: frozenset[str] = frozenset()
    """Keys of which a node holds one pod each: a host port, an anti-affinity on the host name."""
    unmodelled: str = ""
    """A scheduling rule that the simulation does not know (a topology spread, say): the pod is not moved."""

    @property
    def namespace(self) -> str:
        """The part of its name before the slash."""
        return self.name.partition("/")[0]

    @property
    def committed(self) -> int:
        """Millicores that the scheduler counts: max(spec unless Infeasible, allocated, actual)."""
        known = max(self.allocated or 0, self.actual or 0)
        if self.resize is Resize.INFEASIBLE and known:
            return known
        return max(self.cpu, known)

    @property
    def shortage(self) -> int:
        """Millicores that it asked for and that its node does not give it."""
        if self.resize is None or self.allocated is None:
            return 0
        return max(0, self.cpu - self.allocated)


@dataclass(frozen=True)
class NodeInfo:
    """A node of the cluster. `cpu`, `memory` and `pods_limit` are what is allocatable."""

    name: str
    cpu: int
    group: str | None = None
    instance: str | None = None
    """The machine's name at its provider."""
    ready: bool = True
    created: float = 0.0
    memory: int = 0
    pods_limit: int = 110
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    """Those that keep pods off; headgate's own soft taint is `marked`."""
    unschedulable: bool = False
    marked: bool = False
    """It carries headgate's soft taint."""
    cordoned_by_us: bool = False
    keep: bool = False
    """Its owner forbids its removal (annotation scale-down-disabled)."""
    usage: int | None = None
    """Millicores in use; None: not known, which is not 0."""
    usage_time: float = 0.0
    pods: tuple[PodInfo, ...] = ()

    @cached_property
    def serving(self) -> tuple[PodInfo, ...]:
        """Pods that do not end with the node: it may not be deleted while there is one, a terminating one included."""
        return tuple(pod for pod in self.pods if not pod.daemon)

    @cached_property
    def fixed(self) -> int:
        """Millicores committed to pods whose CPUs headgate does not set."""
        return sum(pod.committed for pod in self.pods if pod.pipeline is None)

    @cached_property
    def floors(self) -> int:
        """Millicores that the pipelines' pods on it keep in any case."""
        return sum(pod.floor for pod in self.pods if pod.pipeline is not None)

    @cached_property
    def committed(self) -> int:
        """Millicores committed to all its pods."""
        return sum(pod.committed for pod in self.pods)


@dataclass(frozen=True, slots=True)
class PodDisruptionBudget:
    """How many of the selected pods may be evicted now, as its status says."""

    name: str
    namespace: str
    match: Mapping[str, str]
    """Labels that select its pods; empty: all of the namespace."""
    allowed: int

    def covers(self, pod: PodInfo) -> bool:
        """Whether it selects `pod`."""
        return pod.namespace == self.namespace and self.match.items() <= pod.labels.items()


@dataclass(frozen=True, slots=True)
class GroupView:
    """What a group's provider said at the observation's time."""

    group: ProviderGroup
    instances: tuple[Instance, ...] = ()
    template: NodeTemplate | None = None


@dataclass(frozen=True, slots=True)
class GroupDemand:
    """What the allocator says of the pipelines of a group at `time`."""

    time: float
    demand: int
    """Millicores that would meet every SLO, before the budget cuts it: never what was allocated."""
    unmet: int = 0
    """Millicores of it that no grant covers."""


class Step(Enum):
    """What an action of the plan was about, for its outcome."""

    INCREASE = "increase"
    DELETE = "delete"
    CANCEL = "cancel"
    MARK = "mark"
    CORDON = "cordon"
    EVICT = "evict"


@dataclass(frozen=True, slots=True)
class Outcome:
    """A failed action of an earlier plan, told with the next observation. Success is seen in what is observed."""

    step: Step
    group: str
    time: float
    error: str
    node: str | None = None
    final: bool = False
    """Repeating it cannot help (core.providers.Refused)."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """One observation."""

    time: float
    """When nodes and pods were listed."""
    nodes: tuple[NodeInfo, ...]
    groups: Mapping[str, GroupView]
    """By group name; a provider that did not answer is missing here."""
    pending: tuple[PodInfo, ...] = ()
    """Pods that the scheduler found no node for."""
    disruption: tuple[PodDisruptionBudget, ...] = ()
    demand: Mapping[str, GroupDemand] = field(default_factory=dict)
    """By group name; missing: the allocator does not know."""
    outcomes: tuple[Outcome, ...] = ()
