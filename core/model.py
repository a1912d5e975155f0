"""The values that decisions are made of. CPU is in integer millicores, time in seconds.

Four things that are never mixed up: what a pipeline *wants* (Demand), what was *planned* (Allocation),
what a host was *asked* for (the adapters' business), and what was *observed* (Observation).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Slo:
    """`percentile` % of the requests answer within `latency` seconds."""

    latency: float
    percentile: float = 95.0


@dataclass(frozen=True, slots=True)
class Replica:
    """One copy of a pipeline, on the node whose CPUs it uses (None: not bound to a node)."""

    name: str
    node: str | None = None


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What does not change from one decision to the next: who may have how much, and what matters."""

    name: str
    floor: int = 0
    """Millicores that it always keeps."""
    ceiling: int | None = None
    """Millicores that it never exceeds; None: the budget."""
    step: int = 1
    """Its grant is a multiple of this many millicores (floor and ceiling aside, which hold exactly)."""
    weight: float = 1.0
    """Relative importance, above 0; only ratios count."""
    priority: int = 0
    """Class: a higher one is satisfied first."""
    slo: Slo | None = None
    group: str | None = None
    pinned: bool = False
    """Keeps what it has; its CPUs still count against the budget."""
    replicas: tuple[Replica, ...] = ()
    parallel_fraction: float = 1.0
    """Share of a request's work that more CPUs speed up (Amdahl); 1: scales perfectly over requests."""


@dataclass(frozen=True, slots=True)
class Group:
    """Pipelines (and groups) that share a budget of their own inside their parent's."""

    name: str
    budget: int
    parent: str | None = None


@dataclass(frozen=True, slots=True)
class Node:
    """A machine; `free` millicores are what the pipelines' replicas on it may use together."""

    name: str
    free: int


@dataclass(frozen=True, slots=True)
class Budget:
    """What may be handed out: the whole, and the limits inside it."""

    total: int
    """Millicores."""
    reserve: int = 0
    """Millicores of `total` that are kept free."""
    groups: tuple[Group, ...] = ()
    nodes: tuple[Node, ...] = ()


@dataclass(frozen=True, slots=True)
class Sample:
    """What was seen of one pipeline during `window` seconds up to `time`. None: not known, which is not 0."""

    pipeline: str
    time: float
    window: float
    arrivals: float | None = None
    """Requests that arrived, refused ones included."""
    completions: float | None = None
    dropped: float | None = None
    """Requests refused or given up."""
    cpu_seconds: float | None = None
    """CPU time used, idle base load included."""
    queue: float | None = None
    """Requests waiting at `time`, those being served not included."""
    service_cv: float | None = None
    """Coefficient of variation of the service time."""
    latency: Mapping[float, float] | None = None
    """Response time in seconds at each percentile: {95: 0.05} says that 95 % answered within 50 ms."""
    granted: int | None = None
    """Millicores in force during the window; where they are all used, completions understate the demand."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What the sources saw since the last decision. A pipeline without a sample is missing, not idle."""

    samples: Mapping[str, Sample]
    granted: Mapping[str, int] = field(default_factory=dict)
    """Millicores really in force, by pipeline; what the hosts report, not what was planned."""


Basis = Literal["requests", "cost", "cpu"]
"""What a demand is known by: requests that were counted; the CPU in use and what a request was learned to cost
earlier; the CPU in use alone."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What a pipeline needs over the horizon of a decision."""

    arrival_rates: tuple[float, ...]
    """Equally likely requests per second: the forecast as a distribution. One value: a point."""
    cpu_seconds_per_request: float
    service_cv: float = 1.0
    """Coefficient of variation of the service time."""
    queue: float = 0.0
    """Requests already waiting."""
    cpu_seconds_per_request_sd: float = 0.0
    """Standard deviation of the estimate of `cpu_seconds_per_request`; 0: taken as known."""
    arrival_cv: float = 1.0
    """Coefficient of variation of the time between arrivals; 1: Poisson, more: they come in bursts."""
    basis: Basis = "requests"
    """With "cpu" a request stands for a piece of work of any size: only the offered load means something, no SLO."""

    @property
    def arrival_rate(self) -> float:
        """The expected requests per second."""
        return sum(self.arrival_rates) / len(self.arrival_rates)

    @property
    def offered_load(self) -> float:
        """CPUs that the arrivals keep busy: arrival rate times CPU seconds per request."""
        return self.arrival_rate * self.cpu_seconds_per_request


@dataclass(frozen=True, slots=True)
class Unknown:
    """Not enough data to say what a pipeline needs: it keeps what it has."""

    reason: str


Demands = Mapping[str, Demand | Unknown]


class Infeasible(ValueError):  # noqa: N818 - a state of the settings, named as the field names it
    """No allocation keeps every limit. The message names the smallest set of limits that contradict each other."""
