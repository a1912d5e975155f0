"""A budget's status as people read it: of the custom resource, at /status, in the table of `headgate run --once`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field

from headgate.controller.run.judge import Refused, Trouble, Verdict
from headgate.core.budgets import CPUBudget, Mode
from headgate.core.config import Model
from headgate.core.hosting import Applied, GraphLoad, Inventory, Refusal, Rejected
from headgate.core.model import Demand, Sample
from headgate.core.units import MILLI, format_cpu

MOST_TEXT = 300
"""Characters of a reason: three hundred pipelines must fit into one object."""


class Condition(Model):
    """One thing that is so or not, and why."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str = ""


class PipelineStatus(Model):
    """One pipeline."""

    name: str
    granted: str = Field(description="CPUs that are taken: asked for, set aside or in force")
    wanted: str | None = Field(default=None, description="CPUs that it is to have")
    used: str | None = Field(default=None, description="CPUs that it used lately")
    load: str | None = Field(default=None, description="CPUs that its requests keep busy, as expected")
    unmet: str | None = Field(default=None, description="CPUs of the load that are not wanted for it, for lack of them")
    pending: str | None = Field(default=None, description="What its change waits for")
    reason: str = Field(default="", description="Why it has what it is to have")


class GraphPartStatus(Model):
    """What a graph asks of one pipeline."""

    name: str
    visits: float = Field(description="Requests for one of the graph's")
    share: float = Field(description="Of the pipeline's requests, 0 to 1, that come by the graph")


class GraphStatus(Model):
    """An InferenceGraph: a pipeline of pipelines, which may share some of them with other graphs."""

    name: str
    rate: float | None = Field(default=None, description="Requests per second; left out where not known")
    granted: str = Field(description="CPUs of its pipelines, each by the graph's share of its requests")
    load: str | None = Field(default=None, description="CPUs that its requests keep busy, as expected")
    pipelines: tuple[GraphPartStatus, ...] = ()


class RefusedStatus(Model):
    """What is left alone."""

    name: str
    reason: str
    message: str


class BudgetStatus(Model):
    """What a budget's pipelines have and are to have, and what stands in the way."""

    observedGeneration: int  # noqa: N815 - Kubernetes' own spelling
    mode: str = Field(default="", description="What is done: Recommend, Apply, or Paused")
    total: str | None = None
    granted: str | None = None
    unmet: str | None = None
    count: int = Field(default=0, description="Pipelines")
    pipelines: tuple[PipelineStatus, ...] = ()
    graphs: tuple[GraphStatus, ...] = ()
    refused: tuple[RefusedStatus, ...] = ()
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class View:
    """All that is known of one budget after a turn."""

    budget: CPUBudget
    applies: bool
    """Whether this process may put decisions in force at all."""
    held: str | None = None
    """Why nothing is changed."""
    inventory: Inventory | None = None
    samples: Mapping[str, Sample] = field(default_factory=dict)
    verdict: Verdict = field(default_factory=Verdict)
    applied: Applied | None = None
    failed: str | None = None
    """Why the host could not be changed."""
    refused: Mapping[str, Refused] = field(default_factory=dict)

    @property
    def granted(self) -> Mapping[str, int]:
        """Millicores taken by pipeline, as the host said last."""
        if self.applied is not None:
            return self.applied.granted
        return self.inventory.granted if self.inventory is not None else {}

    @property
    def wanted(self) -> Mapping[str, int]:
        """Millicores that are to be."""
        if self.verdict.order is not None:
            return self.verdict.order.grants
        return self.verdict.decision.allocation.grants if self.verdict.decision else {}

    @property
    def applying(self) -> bool:
        """Whether what is wanted is put in force."""
        return self.applies and self.held is None and self.budget.spec.mode is Mode.APPLY

    @property
    def refusals(self) -> Mapping[str, Refusal]:
        """All that is left alone, by service or pipeline."""
        found = dict(self.inventory.refused) if self.inventory is not None else {}
        found |= {name: refused.refusal for name, refused in self.refused.items()}
        return found | dict(self.applied.refused if self.applied is not None else {})

    @property
    def pending(self) -> Mapping[str, str]:
        """Pipelines whose change is not in force, and what it waits for."""
        return self.applied.pending if self.applied is not None else {}

    @property
    def drift(self) -> Mapping[str, tuple[int, int]]:
        """Wanted and taken millicores of pipelines that have something else than wanted, and nothing under way."""
        if not self.applying:
            return {}
        return {
            name: (wanted, self.granted[name])
            for name, wanted in self.wanted.items()
            if self.granted.get(name, wanted) != wanted and name not in self.pending and name not in self.refusals
        }

    def used(self, name: str) -> int | None:
        """Millicores that a pipeline used lately; None: not known."""
        sample = self.samples.get(name)
        if sample is None or sample.cpu_seconds is None or not sample.window:
            return None
        return round(sample.cpu_seconds / sample.window * MILLI)

    def load(self, name: str) -> int | None:
        """Millicores of the offered load; None: not known."""
        demand = self.verdict.decision.demands.get(name) if self.verdict.decision else None
        return round(demand.offered_load * MILLI) if isinstance(demand, Demand) else None

    def unmet(self) -> Mapping[str, int]:
        """Millicores of load beyond what is wanted, by pipeline."""
        return self.verdict.decision.allocation.unmet if self.verdict.decision else {}


def status_of(view: View) -> dict[str, Any]:
    """Plain JSON values."""
    names = sorted({p.name for p in view.inventory.pipelines} if view.inventory is not None else view.granted)
    reasons = view.verdict.decision.allocation.reasons if view.verdict.decision else {}
    unmet = view.unmet()
    status = BudgetStatus(
        observedGeneration=view.budget.generation,
        mode="Paused" if view.held is not None else ("Apply" if view.applying else "Recommend"),
        total=_cpu(view.inventory.total if view.inventory is not None else view.budget.spec.total),
        granted=_cpu(sum(view.granted.values())) if view.inventory is not None else None,
        unmet=_cpu(sum(unmet.values())) if view.verdict.decision else None,
        count=len(names),
        pipelines=tuple(
            PipelineStatus(
                name=name,
                granted=format_cpu(view.granted.get(name, 0)),
                wanted=_cpu(view.wanted.get(name)),
                used=_cpu(view.used(name)),
                load=_cpu(view.load(name)),
                unmet=_cpu(unmet.get(name)) if unmet.get(name) else None,
                pending=view.pending.get(name),
                reason=reasons.get(name, "")[:MOST_TEXT],
            )
            for name in names
        ),
        graphs=tuple(_graph(view, graph) for graph in (view.inventory.graphs if view.inventory is not None else ())),
        refused=tuple(
            RefusedStatus(name=name, reason=refusal.reason, message=refusal.message[:MOST_TEXT])
            for name, refusal in sorted(view.refusals.items())
        ),
        conditions=tuple(conditions_of(view)),
    )
    return status.model_dump(mode="json", exclude_none=True)


def _graph(view: View, graph: GraphLoad) -> GraphStatus:
    loads = {name: view.load(name) for name in graph.parts}
    known = {name: load for name, load in loads.items() if load is not None}
    return GraphStatus(
        name=graph.name,
        rate=None if graph.rate is None else float(f"{graph.rate:.3g}"),
        granted=format_cpu(round(sum(part.share * view.granted.get(name, 0) for name, part in graph.parts.items()))),
        load=_cpu(round(sum(graph.parts[name].share * load for name, load in known.items())))
        if known.keys() == loads.keys()
        else None,
        pipelines=tuple(
            GraphPartStatus(name=name, visits=round(part.visits, 3), share=round(part.share, 3))
            for name, part in sorted(graph.parts.items())
        ),
    )


def rejected_status(rejected: Rejected) -> dict[str, Any]:
    """The status of a budget that has no effect."""
    accepted = Condition(type="Accepted", status="False", reason=rejected.reason, message=rejected.message[:1000])
    ready = Condition(type="Ready", status="False", reason="NotAccepted", message="see Accepted")
    status = BudgetStatus(observedGeneration=rejected.generation, conditions=(accepted, ready))
    # What it had before stays in force; the numbers of then would only mislead.
    return status.model_dump(mode="json", exclude_none=True)


def conditions_of(view: View) -> list[Condition]:
    """Accepted, Ready, Applied, Conflict and Paused."""
    trouble = view.verdict.trouble
    refusals = view.refusals
    listed = "; ".join(f"{name}: {refusal.reason}" for name, refusal in sorted(refusals.items()))
    held = view.held is not None
    return [
        Condition(type="Accepted", status="True", reason="Valid"),
        Condition(type="Ready", status="False", reason=trouble.reason, message=trouble.message)
        if trouble
        else Condition(type="Ready", status="True", reason="Decided"),
        _applied(view, trouble),
        Condition(type="Conflict", status="True", reason="Refused", message=listed[:1000])
        if refusals
        else Condition(type="Conflict", status="False", reason="NothingRefused"),
        Condition(type="Paused", status=str(held), reason="Paused" if held else "Running", message=view.held or ""),  # type: ignore[arg-type]
    ]


def _applied(view: View, trouble: Trouble | None) -> Condition:
    """Whether the hosts have what is wanted, and if not, why."""
    reason, message = "", ""
    if view.held is not None:
        reason, message = "Paused", view.held
    elif view.budget.spec.mode is not Mode.APPLY:
        reason, message = "Recommending", "spec.mode is Recommend: nothing is changed"
    elif not view.applies:
        reason, message = "Recommending", "the controller runs without apply: nothing is changed"
    elif view.failed is not None:
        reason, message = "Failed", view.failed
    elif trouble is not None and view.verdict.order is None:
        reason, message = "NotReady", "see Ready; everything keeps what it has"
    elif view.pending:
        first, why = min(view.pending.items())
        reason, message = "Pending", f"{len(view.pending)} under way, such as {first}: {why}"
    elif drift := view.drift:
        name, (wanted, granted) = min(drift.items())
        reason = "Drift"
        message = f"{len(drift)} differ, such as {name}: {format_cpu(granted)} instead of {format_cpu(wanted)}"
    if not reason:
        return Condition(type="Applied", status="True", reason="InForce")
    return Condition(type="Applied", status="False", reason=reason, message=message[:1000])


def significant(status: Mapping[str, Any]) -> Any:
    """The part of a status whose change is shown at once: not what flickers with the load, texts included."""
    quiet = {"used", "load", "reason", "unmet"}
    pipelines = [{k: v for k, v in p.items() if k not in quiet} for p in status.get("pipelines", ())]
    conditions = [{k: v for k, v in c.items() if k != "message"} for c in status.get("conditions", ())]
    graphs = [(graph["name"], [part["name"] for part in graph["pipelines"]]) for graph in status.get("graphs", ())]
    rest = {k: v for k, v in status.items() if k not in ("pipelines", "graphs", "conditions", "unmet")}
    return rest, pipelines, graphs, conditions


def _cpu(millicores: int | None) -> str | None:
    return None if millicores is None else format_cpu(millicores)
