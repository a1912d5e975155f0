"""A load as a fluid: CPU seconds of work that arrive, wait and are served. Enough to compare numbers of nodes.

Each pipeline is one queue served at the rate of its CPUs. Work that arrives in a step waits for what is ahead of it:
backlog / CPUs seconds. That ignores the variance inside a step, which `headgate backtest` simulates request by request.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Figures:
    """What a node scaler cost and what it kept."""

    policy: str
    node_hours: float
    violations: float
    """Share of the work that waited longer than the SLO or was dropped, mean over pipelines."""
    dropped: float
    """Share of all work that was dropped."""
    most_nodes: int
    additions: int
    removals: int


@dataclass
class Queues:
    """All pipelines' queues. Units: CPUs, seconds, CPU seconds."""

    slo: float
    """Seconds that work may wait."""
    bound: float
    """Seconds of waiting beyond which work is dropped."""
    backlog: Floats
    arrived: Floats = field(init=False)
    late: Floats = field(init=False)
    lost: Floats = field(init=False)

    def __post_init__(self) -> None:
        self.arrived, self.late, self.lost = (np.zeros_like(self.backlog) for _ in range(3))

    def step(self, load: Floats, cpus: Floats, seconds: float) -> Floats:
        """Serve `load` (CPUs of work that arrive) with `cpus` for `seconds`. The CPU seconds used by each."""
        work = load * seconds
        before = self.backlog
        served = np.minimum(before + work, cpus * seconds)
        after = before + work - served
        dropped = np.maximum(0.0, after - self.bound * cpus)
        # The wait changes linearly over the step; the share of it beyond the SLO is the share of late work.
        first, last = (np.divide(b, cpus, out=np.full_like(b, np.inf), where=cpus > 0) for b in (before, after))
        first, last = (np.where(b == 0, 0.0, wait) for b, wait in ((before, first), (after, last)))
        low, high = np.minimum(first, last), np.minimum(np.maximum(first, last), 1e9)
        spread = np.maximum(high - low, 1e-9)
        beyond = np.clip((high - self.slo) / spread, 0.0, 1.0)
        self.arrived += work
        self.late += np.maximum(beyond * work, dropped)
        self.lost += dropped
        self.backlog = after - dropped
        return served

    @property
    def violations(self) -> float:
        """See Figures."""
        return float(np.mean(self.late / np.maximum(self.arrived, 1e-9)))

    @property
    def dropped(self) -> float:
        """See Figures."""
        return float(self.lost.sum() / max(self.arrived.sum(), 1e-9))


@dataclass
class Record:
    """What happened over time, for the figures and the plots."""

    policy: str
    times: list[float] = field(default_factory=list)
    machines: list[int] = field(default_factory=list)
    """Asked for and not gone yet: what is paid for."""
    ready: list[int] = field(default_factory=list)
    capacity: list[float] = field(default_factory=list)
    load: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    additions: int = 0
    removals: int = 0

    def note(self, time: float, machines: int, ready: int, capacity: float, load: float, late: float) -> None:
        """One step."""
        self.times.append(time)
        self.machines.append(machines)
        self.ready.append(ready)
        self.capacity.append(capacity)
        self.load.append(load)
        self.late.append(late)

    def figures(self, queues: Queues, seconds: float) -> Figures:
        """The figures of the whole run."""
        return Figures(
            policy=self.policy,
            node_hours=sum(self.machines) * seconds / 3600,
            violations=queues.violations,
            dropped=queues.dropped,
            most_nodes=max(self.machines, default=0),
            additions=self.additions,
            removals=self.removals,
        )
