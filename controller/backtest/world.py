"""What a backtest is made of: the world that policies are tried in, the policy, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from headgate.controller.backtest.service import Laws
from headgate.core.model import Observation


class Policy(Protocol):
    """Whoever decides about CPUs: headgate, or what a framework does alone."""

    @property
    def name(self) -> str:
        """As the table shows it."""
        ...

    @property
    def interval(self) -> float:
        """Seconds between its decisions."""
        ...

    def decide(self, state: Any, observation: Observation, now: float) -> tuple[Any, Mapping[str, int]]:
        """The next state, and the millicores that each pipeline shall have. `state` is None at first."""
        ...


@dataclass(frozen=True, slots=True)
class World:
    """What the policies are tried in; times in seconds, CPUs in millicores."""

    laws: Laws
    budget: int
    latency: float
    """The SLO of every pipeline: this many seconds ..."""
    percentile: float = 99.0
    """... for this share of the requests, in percent."""
    step: int = 10
    """CPUs change hands in multiples of this."""
    start: float = 0.0
    """A CPU that a pipeline is given serves this much later."""
    release: float = 0.0
    """A CPU that a pipeline loses is free this much later."""
    bound: int = 50
    """A request that finds more than this many queued is dropped."""
    in_flight: int = 1
    """Requests that a replica of one CPU accepts at a time; 1: a central queue."""
    router: float = 0.0
    """Time that a request, and again its answer, takes in the router; 0: no router."""
    shed: bool = False
    """A request that would miss the SLO in all likelihood is refused when it comes, and counts as dropped."""
    arrivals: Literal["poisson", "counted"] = "poisson"
    """At the minute's rate, or exactly its requests one after another (`drawing.py`)."""
    seed: int = 0


@dataclass(frozen=True, eq=False, slots=True)
class Outcome:
    """What came of a policy; arrays are minutes x pipelines, a request belongs to the minute in which it arrived."""

    policy: str
    requests: NDArray[np.int64]
    late: NDArray[np.int64]
    """Answered, but after the SLO's latency."""
    dropped: NDArray[np.int64]
    latency: NDArray[np.float64]
    """The SLO's percentile of the latency in seconds: infinity where it falls on dropped requests, 0 without any."""
    granted: NDArray[np.float64]
    """CPUs held on average, those that start or are being released included."""
    used: NDArray[np.float64]
    """CPUs that were busy on average."""
    moved: int
    """Millicores that were given to a pipeline in the course of time."""
    decision_seconds: NDArray[np.float64]
    """How long each decision took."""
