"""What the controller asks of a serving framework (HostAdapter) and of the place that it runs in (Home).

The controller is the only loop and the only clock; both of these answer calls and remember nothing that a restart may
not lose. How one turn goes:

    home.budgets() -> host.observe(budgets) -> decide() for each
        -> home.save(state) -> host.apply(orders) -> home.report()

Between turns, while something is pending, `host.apply` is called again about every second.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

from headgate.core.budgets import CPUBudget
from headgate.core.model import Demands, Node, Pipeline, Sample
from headgate.core.nodes.model import Cluster


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why headgate leaves a service, or a part of one, alone."""

    reason: str
    """One CamelCase word of docs/refusals.md, as conditions and metrics have it."""
    message: str
    """What is in the way and what to do about it."""
    most: int | None = None
    """Millicores that a pipeline may be given instead; None: it has to stay as it is."""


@dataclass(frozen=True, slots=True)
class GraphPart:
    """What a graph asks of one pipeline."""

    visits: float
    """Requests for one of the graph's."""
    share: float
    """Of the pipeline's requests, 0 to 1, that come by the graph."""


@dataclass(frozen=True, slots=True)
class GraphLoad:
    """A pipeline of pipelines: requests that pass several of them."""

    name: str
    rate: float | None
    """Requests per second; None: not known, and graphs of one pipeline are taken as equally busy."""
    parts: Mapping[str, GraphPart]
    """By pipeline."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """What a host serves under one budget, as it is now.

    A pipeline is what has pods of its own and one load: "namespace/service" for a predictor, and
    "namespace/service/transformer" or ".../explainer" for the others.
    """

    time: float
    total: int
    """Millicores of the budget, what its nodes have where it says so."""
    pipelines: tuple[Pipeline, ...]
    """Those that headgate may change, with their replicas. What it may not change but what counts is pinned."""
    nodes: tuple[Node, ...] = ()
    """Millicores that the replicas on each node may use together: what others' pods leave."""
    granted: Mapping[str, int] = field(default_factory=dict)
    """Millicores by pipeline that are taken: the larger of what is asked for, set aside and in force."""
    refused: Mapping[str, Refusal] = field(default_factory=dict)
    """By service or pipeline; by the budget's key where it cannot be looked at as a whole."""
    samples: Mapping[str, Sample] = field(default_factory=dict)
    """What the host itself knows of the load, if anything; sources say more."""
    details: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """For the report, by pipeline: plain values."""
    graphs: tuple[GraphLoad, ...] = ()


@dataclass(frozen=True, slots=True)
class Order:
    """What one budget's pipelines are to have."""

    budget: CPUBudget
    total: int
    """Millicores that the sum may not exceed at any instant."""
    grants: Mapping[str, int]
    replicas: Mapping[str, int]
    """Millicores of each replica."""


@dataclass(frozen=True, slots=True)
class Change:
    """One write to the host, made or, in a dry run, to be made: the exact request."""

    pipeline: str
    target: str
    """kind namespace/name, and the subresource: "pod models/fraud-predictor-0 resize"."""
    content_type: str
    body: Any
    path: str
    reason: str
    before: int
    """Millicores."""
    after: int
    refused: Refusal | None = None
    """The host's answer to the dry run, where it said no."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What a host made of an order so far."""

    granted: Mapping[str, int]
    """Millicores taken by pipeline, as in Inventory."""
    changes: tuple[Change, ...] = ()
    """What this call wrote, or would write."""
    pending: Mapping[str, str] = field(default_factory=dict)
    """Pipelines whose change has begun and is not in force, and what it waits for; calling again goes on with it."""
    refused: Mapping[str, Refusal] = field(default_factory=dict)
    """Pipelines that the host will not change; asking again is useless until something else changes."""


class HostAdapter(Protocol):
    """Translates grants into the resources of one serving framework.

    Calls block for single requests, never for an effect. Raises OSError for what may pass by itself, PermissionError
    for what somebody has to allow first; both are retried in the next turn, and until then everything serves with what
    it has.
    """

    def observe(self, budgets: Sequence[CPUBudget]) -> Mapping[str, Inventory]:
        """What each budget covers, by its key, read afresh. A service that two budgets want is the older one's."""
        ...

    def apply(
        self, orders: Sequence[Order], allowed: Callable[[], bool], *, dry_run: bool = False
    ) -> Mapping[str, Applied]:
        """Take the next steps towards `orders`, by budget key: shrinks first, growth only into what was given up.

        At no instant does the sum exceed the larger of the total and of what was taken before. Called again, also by
        another process after a crash, it goes on from what it observes. `allowed` is asked before every write; False
        ends the call. `dry_run` writes nothing, asks the host whether it would, and tells all steps.
        """
        ...

    def restore(self, allowed: Callable[[], bool]) -> None:
        """Bring what is half-way to rest, before a stop: changes that wait and may never happen are taken back."""
        ...

    def close(self) -> None:
        """Give up the connection; everything keeps serving with its last CPUs."""
        ...


@runtime_checkable
class InformedHost(Protocol):
    """A host that divides an SLO or a weight by the load of its parts."""

    def learn(self, demands: Demands) -> None:
        """What decisions have found of any pipelines' load."""
        ...


Keep = Callable[[Mapping[str, Any]], bool]
"""Writes plain JSON values down in the place of those before, and says whether they are there now."""


@runtime_checkable
class LastingHost(Protocol):
    """A host with something that must survive a restart: what it may have to undo."""

    def resume(self, kept: Mapping[str, Any], keep: Keep) -> None:
        """When a term begins: go on from what was kept last, empty at first. `keep` is for the whole term."""
        ...


@dataclass(frozen=True, slots=True)
class Rejected:
    """A budget that has no effect, because its spec is wrong or is nobody's."""

    key: str
    generation: int
    message: str
    reason: str = "Invalid"
    """One CamelCase word of docs/refusals.md."""


class Home(Protocol):
    """Where the controller runs: who leads, where the budgets come from, where state and reports go.

    Raises as HostAdapter does.
    """

    def budgets(self) -> Sequence[CPUBudget | Rejected]:
        """All budgets as they are now."""
        ...

    def campaign(self) -> None:
        """Begin to compete for the lead; whoever only looks never calls it."""
        ...

    def leads(self) -> bool:
        """Whether this process may write, now and for as long as one request may take."""
        ...

    def paused(self) -> str | None:
        """Why nothing may be changed, under no budget: what `pause` was told. None: go on."""
        ...

    def pause(self, reason: str | None) -> None:
        """Hold or, with None, let go every controller of this home; needs no lead."""
        ...

    def load(self) -> Mapping[str, Any]:
        """What is kept, by key; what cannot be read is left out and logged."""
        ...

    def save(self, state: Mapping[str, Any]) -> None:
        """Keep plain JSON values in objects of headgate's own, each as a whole; None forgets. Other keys stay."""
        ...

    def report(self, budget: str, status: Mapping[str, Any]) -> None:
        """Show a budget's status (by its key); plain JSON values, the same status twice costs nothing."""
        ...

    def event(self, budget: str, kind: str, reason: str, message: str) -> None:
        """Tell people of a change that matters; `kind` is Normal or Warning. Repetitions are counted, not repeated.

        Raises nothing: what cannot be told is logged.
        """
        ...

    def close(self) -> None:
        """Give up the lead, so that another process takes over at once."""
        ...


@runtime_checkable
class Counted(Protocol):
    """A host, a home or a node provider that counts its requests to the API server; each may."""

    def requests(self) -> Mapping[tuple[str, str], int]:
        """Requests since the start by verb and outcome: the HTTP status, "0" where no answer came."""
        ...


class Outcome(StrEnum):
    """How a check went."""

    OK = "ok"
    WARN = "warn"
    """It works, and somebody should look at it."""
    FAIL = "fail"
    """headgate cannot do its work until it is mended."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check of `headgate doctor` found. Never a secret."""

    check: str
    """What was looked at, in a few words."""
    outcome: Outcome
    found: str
    advice: str = ""
    """What to do about it."""


@runtime_checkable
class ExaminedHost(Protocol):
    """A host that can tell whether it could do its work: for `headgate doctor`."""

    def checks(self, budgets: Sequence[CPUBudget]) -> Sequence[Finding]:
        """What it needs for these budgets, and whether that is there; writes nothing. Raises as HostAdapter does."""
        ...


@runtime_checkable
class ExaminedHome(Protocol):
    """A home that can tell whether it could do its work: for `headgate doctor`."""

    def checks(self, *, budgets: bool) -> Sequence[Finding]:
        """What it needs, and whether that is there; writes nothing. `budgets`: they come from it.

        Raises as Home does.
        """
        ...


@dataclass(frozen=True, slots=True)
class Sized:
    """What the node scaler is told of a pod whose CPUs a budget sets."""

    pipeline: str
    floor: int
    """Millicores that it keeps in any case."""


class NodeHost(Protocol):
    """A cluster's nodes: what is on them, and the steps by which one is emptied.

    Every step may be repeated, and one that is done already, or whose node or pod is gone, is success. Raises OSError
    for what may pass by itself (a PodDisruptionBudget's no, too), PermissionError for what somebody has to allow.
    """

    def observe_nodes(self, sized: Mapping[str, Sized]) -> Cluster:
        """Nodes, pods, budgets of disruption and usage as they are now; `sized` by pod, "namespace/name".

        `groups`, `demand` and `outcomes` are the caller's to fill in. `instance` of a node is the last part of its
        provider's id; what cannot be measured is None.
        """
        ...

    def mark(self, node: str) -> None:
        """Put headgate's soft taint on it: new pods rather go elsewhere."""
        ...

    def unmark(self, node: str) -> None:
        """Take it off."""
        ...

    def cordon(self, node: str) -> None:
        """Make it unschedulable and note that headgate did; a node that somebody else cordoned stays theirs."""
        ...

    def uncordon(self, node: str) -> None:
        """Undo `cordon`, and nobody else's."""
        ...

    def evict(self, pod: str, grace: float) -> None:
        """Ask for the eviction of the pod that was observed under this name, and of no other that has it by now."""
        ...

    def serving(self, node: str) -> Sequence[str]:
        """Pods on it, at this moment, that do not end with it."""
        ...

    def tell(self, node: str, kind: str, reason: str, message: str) -> None:
        """An event about a node, as Home.event."""
        ...


@runtime_checkable
class Housed(Protocol):
    """A home that stands in a cluster with nodes."""

    def nodes(self) -> NodeHost:
        """The cluster's."""
        ...
