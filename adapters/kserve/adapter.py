"""The host adapter: looks at KServe, and moves CPUs between its pods by in-place resize."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from headgate.adapters.kserve.attribution import figures, graph_loads
from headgate.adapters.kserve.doctor import host_findings
from headgate.adapters.kserve.inventory import inventory
from headgate.adapters.kserve.members import Claim, claims
from headgate.adapters.kserve.replicas import Replicas
from headgate.adapters.kserve.services import main_containers
from headgate.adapters.kserve.settings import KserveSettings
from headgate.adapters.kserve.slos import Known, learned, slos
from headgate.adapters.kserve.survey import Survey, survey
from headgate.adapters.kserve.targets import share_of
from headgate.adapters.kserve.template import Templates
from headgate.adapters.kserve.writes import Look, Slow
from headgate.adapters.kubernetes.actuate import Outcome, Resizer, less_of
from headgate.adapters.kubernetes.api import Api
from headgate.adapters.kubernetes.cluster import answered, read_cluster
from headgate.adapters.kubernetes.resize import Memory, Rules, Share, plan, resting
from headgate.core.budgets import CPUBudget
from headgate.core.hosting import Applied, Finding, Inventory, Keep, Order, Refusal
from headgate.core.model import Demands


class KserveAdapter:
    """A HostAdapter. What it keeps between calls saves requests and repeated failures; losing it does no harm."""

    def __init__(self, api: Api, settings: KserveSettings, clock: Callable[[], float] = time.time) -> None:
        self._api = api
        self._settings = settings
        self._clock = clock
        self._resizer = Resizer(api, most=settings.requests)
        self._rules = Rules(settings.patience, settings.memory)
        self._memory = Memory()
        self._budgets: dict[str, CPUBudget] = {}
        self._seen: Survey | None = None
        self._read = 0.0
        """When services and graphs were read last."""
        self._known = Known()
        self._templates = Templates(api, settings.memory)
        self._replicas = Replicas(api)
        self._notes: Mapping[str, Refusal] = {}
        self._orders: Sequence[Order] = ()

    def observe(self, budgets: Sequence[CPUBudget]) -> Mapping[str, Inventory]:
        """As HostAdapter."""
        self._budgets = {budget.key: budget for budget in budgets}
        self._read = self._clock()
        found = self._seen = survey(self._api, self._settings.namespaces, self._read)
        rates, times = self._known.rates, self._known.times
        claimed = claims(found, budgets, graph_loads(found.graphs, rates))
        return {
            key: replace(
                inventory(found, claim, self._settings.least, slos(claim, found.graphs, times), self._notes),
                graphs=figures(claim, found.graphs, rates),
            )
            for key, claim in claimed.items()
        }

    def apply(
        self, orders: Sequence[Order], allowed: Callable[[], bool], *, dry_run: bool = False
    ) -> Mapping[str, Applied]:
        """As HostAdapter."""
        now = self._clock()
        claimed = self._look(orders)
        shares = self._shares(claimed, orders)
        found = self._seen
        assert found is not None
        made = plan(shares, found.cluster.free(), self._memory, now, self._rules)
        outcome = self._resizer.carry_out(made, allowed, dry_run=dry_run, until=now + self._rules.memory)
        self._memory = outcome.memory
        if not dry_run:
            self._orders = tuple(orders)
        slow = Slow()
        for order, share in zip(orders, shares, strict=True):
            claim = claimed[order.budget.key]
            # A budget's reserve is for what comes with pods of its own: those of a rollout, and further replicas.
            room = share.room + order.budget.spec.reserve - sum(step.cost for step in made.steps)
            look = Look(claim, order, outcome.pending, room, now, self._read, allowed, dry_run, slow)
            for path in (self._templates, self._replicas):
                path.step(look)
        self._notes = slow.notes
        return {
            share.budget: _applied(share, order, outcome, slow) for order, share in zip(orders, shares, strict=True)
        }

    def learn(self, demands: Demands) -> None:
        """As InformedHost."""
        self._known = learned(self._known, demands)

    def resume(self, kept: Mapping[str, Any], keep: Keep) -> None:
        """As LastingHost."""
        self._templates.resume(kept, keep)

    def restore(self, allowed: Callable[[], bool]) -> None:
        """As HostAdapter."""
        if self._orders:
            claimed = self._look(self._orders)
            self._resizer.write_all(resting(self._shares(claimed, self._orders)), allowed)

    def close(self) -> None:
        """As HostAdapter."""
        self._api.close()

    def checks(self, budgets: Sequence[CPUBudget]) -> Sequence[Finding]:
        """As ExaminedHost."""
        pods = self._seen.cluster.pods if self._seen is not None else ()
        return answered(
            lambda: host_findings(self._api, self._settings.namespaces, budgets, pods), "the host cannot be looked at"
        )

    def requests(self) -> Mapping[tuple[str, str], int]:
        """Requests to the API server since the start, by verb and status."""
        return self._api.requests()

    def _look(self, orders: Sequence[Order]) -> Mapping[str, Claim]:
        """What each budget covers, by pods and nodes as they are at this moment: growth may rely on nothing older."""
        namespaces = self._settings.namespaces
        self._budgets |= {order.budget.key: order.budget for order in orders}
        if self._seen is None:
            self._read = self._clock()
            self._seen = survey(self._api, namespaces, self._read)
        else:
            cluster = read_cluster(self._api, namespaces, main_containers)
            self._seen = replace(self._seen, cluster=cluster, time=self._clock())
        loads = graph_loads(self._seen.graphs, self._known.rates)
        return claims(self._seen, list(self._budgets.values()), loads)

    def _shares(self, claimed: Mapping[str, Claim], orders: Sequence[Order]) -> list[Share]:
        assert self._seen is not None
        asked = self._resizer.asked(self._seen.cluster.pods)
        least, memory = self._settings.least, self._memory
        return [share_of(claimed[order.budget.key], order, least, memory, asked) for order in orders]


def _applied(share: Share, order: Order, outcome: Outcome, slow: Slow) -> Applied:
    """One budget's part of an outcome."""
    granted: dict[str, int] = {}
    for managed in share.pods:
        if not managed.pod.deleting:
            amount = max(managed.taken, outcome.taken.get(managed.pod.uid, 0), share.asked.get(managed.pod.uid, 0))
            granted[managed.pipeline] = granted.get(managed.pipeline, 0) + amount
    return Applied(
        granted=granted,
        changes=tuple(change for change in (*outcome.changes, *slow.changes) if change.pipeline in granted),
        pending={name: text for name, text in (slow.pending | outcome.pending).items() if name in granted},
        refused={
            name: less_of(refusal, granted[name], order.grants.get(name, 0))
            for name, refusal in outcome.refused.items()
            if name in granted
        },
    )
