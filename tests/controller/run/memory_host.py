"""A host for tests of the loop: services in memory (or in a file, for another process) whose CPUs move with a delay."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import time

from headgate.core.budgets import CPUBudget
from headgate.core.config import FilePath, Model
from headgate.core.hookspecs import HostKind, hookimpl
from headgate.core.hosting import Applied, Change, Inventory, Order, Refusal
from headgate.core.model import Sample


@dataclass
class Service:
    """What is asked for and what is in force, in millicores; requests per second of `cost` CPU seconds each."""

    asked: int
    rate: float | None = 0.0
    cost: float = 0.1
    actual: int = -1
    since: float = 0.0
    refuses: bool = False
    most: int | None = None
    """It refuses more, and says so."""

    def __post_init__(self) -> None:
        if self.actual < 0:
            self.actual = self.asked

    @property
    def taken(self) -> int:
        return max(self.asked, self.actual)


@dataclass
class MemoryHost:
    """Follows the contract: shrinks first, growth only into what was given up. Checks the budget at every change."""

    services: dict[str, Service]
    clock: Callable[[], float] = time
    lag: float = 0.0
    """Seconds until what is asked for is in force."""
    fault: Callable[[str], None] = lambda _: None
    """Called at every step by its name; what it raises, the host raises."""
    writes: list[tuple[str, int]] = field(default_factory=list)
    highest: int = 0
    """The most that was taken at any instant."""
    restored: int = 0
    closed: bool = False
    limit: int | None = None
    """What the sum must never exceed, checked at every write where it is set."""

    def settle(self) -> None:
        for service in self.services.values():
            if service.asked != service.actual and self.clock() - service.since >= self.lag:
                service.actual = service.asked
        self.watch()

    def watch(self) -> None:
        self.highest = max(self.highest, self.sum())
        assert self.limit is None or self.sum() <= self.limit, f"{self.sum()} taken of {self.limit}"

    def sum(self) -> int:
        return sum(service.taken for service in self.services.values())

    def observe(self, budgets: Sequence[CPUBudget]) -> Mapping[str, Inventory]:
        self.fault("observe")
        self.settle()
        found: dict[str, Inventory] = {}
        claimed: set[str] = set()
        for budget in budgets:
            pipelines = []
            for name in sorted(self.services.keys() - claimed):
                namespace, _, short = name.partition("/")
                rules = [r for r in budget.spec.pipelines if r.matches(budget.namespace, namespace, short, {})]
                if rules:
                    pipelines.append(rules[0].pipeline(name))
                    claimed.add(name)
            names = {pipeline.name for pipeline in pipelines}
            found[budget.key] = Inventory(
                self.clock(),
                budget.spec.total or 0,
                tuple(pipelines),
                granted={name: self.services[name].taken for name in sorted(names)},
                samples={name: sample for name in names if (sample := self.sample(name)) is not None},
            )
        return found

    def sample(self, name: str) -> Sample | None:
        service = self.services[name]
        if service.rate is None:
            return None
        served = service.rate * 10
        return Sample(
            name, self.clock(), 10.0, served, served, cpu_seconds=served * service.cost, granted=service.actual
        )

    def apply(
        self, orders: Sequence[Order], allowed: Callable[[], bool], *, dry_run: bool = False
    ) -> Mapping[str, Applied]:
        return {order.budget.key: self._one(order, allowed, dry_run) for order in orders}

    def _one(self, order: Order, allowed: Callable[[], bool], dry_run: bool) -> Applied:
        self.fault("apply")
        self.settle()
        here = {name: grant for name, grant in order.grants.items() if name in self.services}
        changes: list[Change] = []
        refused: dict[str, Refusal] = {}
        for name, grant in sorted(here.items(), key=lambda item: (item[1] - self.services[item[0]].asked, item[0])):
            service = self.services[name]
            if service.asked == grant:
                continue
            before = service.taken
            taken = sum(self.services[n].taken for n in here)
            if (
                not dry_run
                and grant > service.asked
                and taken - service.taken + max(grant, service.actual) > order.total
            ):
                continue
            refusal = Refusal("NodeFull", "the node has no room: add a node") if service.refuses else None
            if service.most is not None and grant > service.most:
                refusal = Refusal("Quota", "the quota has no room for that: raise it", service.most)
            if refusal is not None:
                refused[name] = refusal
            elif not dry_run:
                if not allowed():
                    break
                self.fault("write")
                service.asked, service.since = grant, self.clock()
                self.writes.append((name, grant))
                self.watch()
            changes.append(self._change(name, before, grant, refusal))
        self.settle()
        pending = {
            name: "the kubelet" if self.services[name].asked == grant else "room"
            for name, grant in here.items()
            if (self.services[name].actual != grant and name not in refused)
        }
        granted = {name: self.services[name].taken for name in here}
        return Applied(granted, tuple(changes), {} if dry_run else pending, refused)

    def _change(self, name: str, before: int, grant: int, refusal: Refusal | None) -> Change:
        namespace, _, short = name.partition("/")
        body = {"spec": {"containers": [{"name": "main", "resources": {"requests": {"cpu": f"{grant}m"}}}]}}
        return Change(
            name,
            f"pod {name}-0 resize",
            "application/strategic-merge-patch+json",
            body,
            f"/api/v1/namespaces/{namespace}/pods/{short}-0/resize",
            "its share of the budget",
            before,
            grant,
            refusal,
        )

    def restore(self, allowed: Callable[[], bool]) -> None:
        self.restored += 1
        for service in self.services.values():
            if service.asked > service.actual and allowed():
                service.asked = service.actual

    def close(self) -> None:
        self.closed = True


class Settings(Model):
    path: FilePath
    lag: float = 0.0


class FileHost(MemoryHost):
    """The same for a process of its own: services are read from and written to a JSON file, writes to a log."""

    def __init__(self, settings: Settings) -> None:
        super().__init__({}, lag=settings.lag)
        self._path = Path(settings.path)
        self._read()

    def _read(self) -> None:
        found = json.loads(self._path.read_text())
        for name, values in found.items():
            service = self.services.setdefault(name, Service(values["asked"]))
            service.rate, service.refuses = values["rate"], values.get("refuses", False)
        for name in self.services.keys() - found.keys():
            del self.services[name]

    def observe(self, budgets: Sequence[CPUBudget]) -> Mapping[str, Inventory]:
        self._read()
        return super().observe(budgets)

    def apply(
        self, orders: Sequence[Order], allowed: Callable[[], bool], *, dry_run: bool = False
    ) -> Mapping[str, Applied]:
        made = super().apply(orders, allowed, dry_run=dry_run)
        if not dry_run:
            self._write()
        return made

    def restore(self, allowed: Callable[[], bool]) -> None:
        super().restore(allowed)
        self._write()

    def _write(self) -> None:
        data = {
            name: {"asked": s.asked, "actual": s.actual, "rate": s.rate, "refuses": s.refuses}
            for name, s in self.services.items()
        }
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps(data))
        fresh.replace(self._path)
        with self._path.with_suffix(".log").open("a") as file:
            file.write(json.dumps([time(), self.sum(), {name: s.asked for name, s in self.services.items()}]) + "\n")


@hookimpl
def headgate_host_adapters() -> Mapping[str, HostKind]:
    return {"memory": HostKind(Settings, FileHost)}
