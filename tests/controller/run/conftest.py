from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from headgate.controller.run.loop import Loop
from headgate.controller.run.memory import Memory
from headgate.controller.run.parts import Parts
from headgate.controller.run.reporter import Reporter
from headgate.controller.run.settings import RunSettings, StateSettings
from headgate.core.budgets import BudgetSpec, CPUBudget
from headgate.core.demand import default_estimator
from headgate.core.extensions import NoExtensions
from headgate.core.hosting import Rejected

from .memory_host import MemoryHost, Service


@dataclass
class MemoryHome:
    """A home that a test looks into, and that fails when told to."""

    found: list[CPUBudget | Rejected] = field(default_factory=list)
    lead: bool = True
    held: str | None = None
    kept: dict[str, str] = field(default_factory=dict)
    reports: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    events: list[tuple[str, str, str, str]] = field(default_factory=list)
    fault: Callable[[str], None] = lambda _: None
    saves: int = 0

    def budgets(self) -> list[CPUBudget | Rejected]:
        self.fault("budgets")
        return self.found

    def campaign(self) -> None: ...

    def leads(self) -> bool:
        return self.lead

    def paused(self) -> str | None:
        self.fault("paused")
        return self.held

    def pause(self, reason: str | None) -> None:
        self.held = reason

    def load(self) -> Mapping[str, Any]:
        self.fault("load")
        return {key: json.loads(text) for key, text in self.kept.items()}

    def save(self, state: Mapping[str, Any]) -> None:
        self.fault("save")
        self.saves += 1
        for key, value in state.items():
            self.kept.pop(key, None)
            if value is not None:
                self.kept[key] = json.dumps(value, allow_nan=False)

    def report(self, budget: str, status: Mapping[str, Any]) -> None:
        self.fault("report")
        self.reports.setdefault(budget, []).append(json.loads(json.dumps(status)))

    def event(self, budget: str, kind: str, reason: str, message: str) -> None:
        self.events.append((budget, kind, reason, message))

    def close(self) -> None:
        self.lead = False

    def condition(self, budget: str, kind: str) -> tuple[str, str]:
        """Status and reason of a condition, as last reported."""
        (found,) = [c for c in self.reports[budget][-1]["conditions"] if c["type"] == kind]
        return found["status"], found["reason"]


@dataclass
class Bench:
    """A loop on a clock that only moves when the test moves it."""

    host: MemoryHost
    home: MemoryHome
    now: float = 1.8e9
    interval: float = 10.0
    applies: bool = True
    retry_refused: float = 300.0

    def __post_init__(self) -> None:
        self.host.clock = self.clock
        self.loop = self.start()

    def clock(self) -> float:
        return self.now

    def start(self) -> Loop:
        """A new process."""
        settings = RunSettings.model_validate(
            {
                "host": {"kind": "memory"},
                "interval": self.interval,
                "grace": 20,
                "retry_refused": self.retry_refused,
            }
        )
        estimator = default_estimator(settings.cadence)
        memory = Memory(StateSettings(), "test")
        parts = Parts(self.home, self.host, NoExtensions(), estimator, memory, self.home.budgets)
        return Loop(settings, parts, Reporter(self.home), applies=self.applies, clock=self.clock)

    def turns(self, count: int = 1) -> None:
        """Turns with the ticks between them, as the thread would do them."""
        for _ in range(count):
            self.loop.turn()
            for _ in range(int(self.interval)):
                self.now += 1
                if self.loop.changed:
                    self.loop.turn()
                elif self.loop.pending:
                    self.loop.tick()

    def asked(self) -> dict[str, int]:
        return {name: service.asked for name, service in self.host.services.items()}


def budget(name: str = "main", namespace: str = "a", generation: int = 1, **spec: Any) -> CPUBudget:
    """In force, of 4 CPUs, for all services of its namespace, unless told otherwise."""
    given = {"host": "memory", "mode": "Apply", "total": "4", "pipelines": [{"selector": {}}], **spec}
    return CPUBudget(name, namespace, BudgetSpec.model_validate(given), generation)


@pytest.fixture
def bench() -> Bench:
    """Two services with 2 CPUs each; one needs 0.3, the other 3 of the budget of 4."""
    host = MemoryHost({"a/idle": Service(2000, rate=3), "a/busy": Service(2000, rate=30)}, limit=4000)
    return Bench(host, MemoryHome([budget()]))
