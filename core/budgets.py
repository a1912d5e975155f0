"""A CPU budget as people write it: the spec of the custom resource CPUBudget, and the same in a settings file.

Keys are the resource's own, so one model validates both and the resource's schema is made from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from pydantic import Field, model_validator

from headgate.core.calm import Calm
from headgate.core.config import FieldError, Millicores, Model, Seconds, SloSettings, check_names
from headgate.core.model import Group, Pipeline
from headgate.core.units import format_cpu


class Mode(StrEnum):
    """What is done about a decision."""

    RECOMMEND = "Recommend"
    """It is reported, and nothing else."""
    APPLY = "Apply"


class Requirement(Model):
    """One expression of a label selector."""

    key: str = Field(min_length=1)
    operator: Annotated[str, Field(pattern="^(In|NotIn|Exists|DoesNotExist)$")]
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """As Kubernetes reads it."""
        value = labels.get(self.key)
        if self.operator == "In":
            return value in self.values
        if self.operator == "NotIn":
            return value not in self.values
        return (value is not None) == (self.operator == "Exists")


class Selector(Model):
    """A label selector; empty: everything."""

    matchLabels: Mapping[str, str] = Field(default_factory=dict)  # noqa: N815 - Kubernetes' own spelling
    matchExpressions: tuple[Requirement, ...] = ()  # noqa: N815

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether all of it holds."""
        return self.matchLabels.items() <= labels.items() and all(r.matches(labels) for r in self.matchExpressions)


class PipelineRule(Model):
    """Which services, and what each of them may have. The first rule that matches a service holds for it."""

    services: tuple[str, ...] = Field(default=(), description="Names, or namespace/name")
    graphs: tuple[str, ...] = Field(default=(), description="InferenceGraphs: all services of their nodes")
    selector: Selector | None = Field(default=None, description="Labels of the services")
    namespaces: tuple[str, ...] = Field(default=(), description="By default the budget's own namespace; '*': all")
    floor: Millicores = Field(default=0, description="CPUs that each always keeps")
    ceiling: Millicores | None = Field(default=None, description="CPUs that none exceeds; by default the budget")
    step: Annotated[Millicores, Field(gt=0)] = Field(default=10, description="Grants are multiples of this")
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False, description="Relative importance")
    priority: int = Field(default=0, ge=-1000, le=1000, description="Class: a higher one is satisfied first")
    slo: SloSettings | None = None
    group: str | None = Field(default=None, description="One of `groups`")
    pinned: bool = Field(default=False, description="Keeps what it has; its CPUs still count against the budget")

    @model_validator(mode="after")
    def _floor_below_ceiling(self) -> PipelineRule:
        if self.ceiling is not None and self.floor > self.ceiling:
            raise FieldError(
                ("floor",), f"{format_cpu(self.floor)} is above the ceiling {format_cpu(self.ceiling)}: lower one"
            )
        if not (self.services or self.graphs or self.selector):
            raise FieldError(("selector",), "name services or graphs, or give a selector ({} selects every service)")
        return self

    def covers(self, home: str, namespace: str) -> bool:
        """Whether it looks into `namespace` when its budget lives in the namespace `home`."""
        return "*" in self.namespaces or namespace in (self.namespaces or (home,))

    def matches(self, home: str, namespace: str, name: str, labels: Mapping[str, str]) -> bool:
        """Whether a service is one of its own; graphs are the adapter's to follow."""
        if f"{namespace}/{name}" in self.services:
            return True
        if not self.covers(home, namespace):
            return False
        return name in self.services or (self.selector is not None and self.selector.matches(labels))

    def pipeline(self, name: str) -> Pipeline:
        """The limits of one pipeline by this rule."""
        return Pipeline(
            name=name,
            floor=self.floor,
            ceiling=self.ceiling,
            step=self.step,
            weight=self.weight,
            priority=self.priority,
            slo=self.slo.value() if self.slo else None,
            group=self.group,
            pinned=self.pinned,
        )


class BudgetGroup(Model):
    """Pipelines that share a budget of their own inside the whole: a tenant, a team."""

    name: str = Field(min_length=1)
    total: Millicores
    parent: str | None = None


class CalmRules(Model):
    """When CPUs move. A pod's CPUs change in place and at once, so the defaults are those of live CPU."""

    band: float = Field(default=0.1, ge=0, allow_inf_nan=False, description="Changes of load below this share stay")
    noise: float = Field(default=5.0, ge=0, allow_inf_nan=False, description="So do those within so many deviations")
    stabilisation: Seconds = Field(default=60.0, description="Time that a load must have fallen before CPUs are taken")
    most: Annotated[Millicores, Field(gt=0)] | None = Field(
        default=None, description="CPUs that change hands in one decision at the most"
    )

    def value(self) -> Calm:
        """The same for the decision."""
        return Calm(band=self.band, noise=self.noise, stabilisation=self.stabilisation, most_moved=self.most)


class TemplateRules(Model):
    """The durable path: a grant that stood long enough becomes the service's own setting, which rolls its pods."""

    write: bool = False
    after: Annotated[Seconds, Field(gt=0)] = Field(default=1800.0, description="How long a grant must have stood")
    band: float = Field(default=0.1, ge=0, le=1, description="... within this share of itself")
    timeout: Annotated[Seconds, Field(gt=0)] = Field(default=600.0, description="A rollout that takes longer is undone")
    knative: bool = Field(default=False, description="Also where that makes a new Revision")


class ReplicaRules(Model):
    """Number of replicas, where the service leaves it to somebody else (autoscalerClass external or none)."""

    manage: bool = False
    most: Annotated[Millicores, Field(gt=0)] = Field(default=4000, description="CPUs of a replica; beyond: one more")
    least: Annotated[Millicores, Field(gt=0)] = Field(default=500, description="Below this in each: one fewer")


class LivingRules(Model):
    """What to do about others who set CPUs or replicas of the same services."""

    utilisation: Annotated[str, Field(pattern="^(Refuse|LimitsOnly)$")] = Field(
        default="Refuse", description="HPA or KEDA on CPU utilisation: leave it alone, or change limits, not requests"
    )


class BudgetSpec(Model):
    """What is shared, among whom, by which rule, and whether it is put in force."""

    host: str = Field(default="kserve", description="The serving framework")
    mode: Mode = Mode.RECOMMEND
    paused: bool = Field(default=False, description="Nothing is changed while it is true; takes effect at once")
    total: Millicores | None = Field(default=None, description="CPUs to share; by default what `nodes` have")
    nodes: Selector | None = Field(default=None, description="The nodes whose CPUs, others' pods aside, are shared")
    reserve: Millicores = Field(default=0, description="CPUs of the total that are kept free")
    policy: str | None = Field(default=None, description="By default slo where a pipeline has one, else proportional")
    groups: tuple[BudgetGroup, ...] = ()
    pipelines: tuple[PipelineRule, ...] = Field(min_length=1)
    calm: CalmRules = CalmRules()
    template: TemplateRules = TemplateRules()
    replicas: ReplicaRules = ReplicaRules()
    others: LivingRules = LivingRules()

    @model_validator(mode="after")
    def _fits(self) -> BudgetSpec:
        if self.total is None and self.nodes is None:
            raise FieldError(("total",), "give the CPUs to share, or `nodes` to share what these have")
        check_names([group.name for group in self.groups], "groups")
        known = {group.name for group in self.groups}
        for index, group in enumerate(self.groups):
            if group.parent is not None and group.parent not in known:
                raise FieldError(("groups", index, "parent"), f"group {group.parent!r} is not one of `groups`")
        for index, rule in enumerate(self.pipelines):
            if rule.group is not None and rule.group not in known:
                raise FieldError(("pipelines", index, "group"), f"group {rule.group!r} is not one of `groups`")
        return self

    def policy_name(self, pipelines: Iterable[Pipeline]) -> str:
        """The policy to divide by."""
        return self.policy or ("slo" if any(p.slo for p in pipelines) else "proportional")

    def core_groups(self) -> tuple[Group, ...]:
        """The groups for the decision."""
        return tuple(Group(g.name, g.total, g.parent) for g in self.groups)


@dataclass(frozen=True, slots=True)
class CPUBudget:
    """A budget and where it stands."""

    name: str
    namespace: str
    spec: BudgetSpec
    generation: int = 1
    created: str = ""
    """RFC 3339; where two budgets want one service, the older one has it (then the first by name)."""
    uid: str = ""
    reported: bool = False
    """Whether a controller that took it up has reported on this generation."""

    @property
    def key(self) -> str:
        """namespace/name."""
        return f"{self.namespace}/{self.name}"


def by_age(budgets: Iterable[CPUBudget]) -> Sequence[CPUBudget]:
    """The order in which budgets may claim services."""
    return sorted(budgets, key=lambda budget: (budget.created, budget.key))
