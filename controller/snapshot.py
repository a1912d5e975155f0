"""A snapshot: pipelines, what they need and what there is, in one file. The input of `headgate allocate`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated

from pydantic import BeforeValidator, Field, model_validator

from headgate.controller.installed import policies
from headgate.core.config import FieldError, Millicores, Model, PipelineSettings, Seconds, check_names, number
from headgate.core.model import Budget, Demand, Group, Node, Pipeline, Replica, Unknown


def _listed(value: object) -> object:
    return value if isinstance(value, list | tuple) else (value,)


Amount = Annotated[float, BeforeValidator(number), Field(ge=0, lt=1e15, allow_inf_nan=False)]


class ReplicaSettings(Model):
    """One copy of a pipeline, and the node that it is on."""

    name: str = Field(min_length=1)
    node: str | None = None


class PipelineSnapshot(PipelineSettings):
    """A pipeline's limits, as every host's settings have them, and its demand and grant of the moment."""

    arrival_rate: Annotated[tuple[Amount, ...], BeforeValidator(_listed), Field(min_length=1)] | None
    """Requests per second; several: equally likely ones; null: not known."""
    cpu_seconds_per_request: Seconds
    service_cv: Amount = 1.0
    queue: Amount = 0.0
    group: str | None = None
    current: Millicores | None = None
    pinned: bool = False
    replicas: tuple[ReplicaSettings, ...] = ()
    parallel_fraction: Annotated[float, BeforeValidator(number)] = Field(default=1.0, ge=0, le=1)

    def value(self) -> Pipeline:
        """The same for the decision."""
        return replace(
            super().value(),
            group=self.group,
            pinned=self.pinned,
            replicas=tuple(Replica(r.name, r.node) for r in self.replicas),
            parallel_fraction=self.parallel_fraction,
        )

    def demand(self) -> Demand | Unknown:
        """What it needs."""
        if self.arrival_rate is None:
            return Unknown("arrival_rate is null: not known")
        return Demand(
            arrival_rates=self.arrival_rate,
            cpu_seconds_per_request=self.cpu_seconds_per_request,
            service_cv=self.service_cv,
            queue=self.queue,
        )


class GroupSettings(Model):
    """Pipelines that share a budget of their own, inside another group's or the whole."""

    name: str = Field(min_length=1)
    budget: Millicores
    parent: str | None = None


class NodeSettings(Model):
    """A machine, and what the pipelines' replicas on it may use together."""

    name: str = Field(min_length=1)
    free: Millicores


class Snapshot(Model):
    """Everything that one decision needs."""

    budget: Millicores
    reserve: Millicores = 0
    policy: str | None = None
    """None: slo where a pipeline has an SLO, else proportional."""
    pipelines: tuple[PipelineSnapshot, ...]
    groups: tuple[GroupSettings, ...] = ()
    nodes: tuple[NodeSettings, ...] = ()

    @model_validator(mode="after")
    def _references(self) -> Snapshot:
        if self.policy is not None and self.policy not in (offered := policies()):
            raise FieldError(("policy",), f"{self.policy!r} is not known; known policies: {', '.join(offered)}")
        check_names([p.name for p in self.pipelines])
        check_names([g.name for g in self.groups], "groups")
        check_names([n.name for n in self.nodes], "nodes")
        groups, nodes = {g.name for g in self.groups}, {n.name for n in self.nodes}
        for path, what, name, known in self._mentions(groups, nodes):
            if name is not None and name not in known:
                listed = ", ".join(sorted(known)) or "none"
                raise FieldError(path, f"{what} {name!r} is not defined; defined here: {listed}")
        return self

    def _mentions(
        self, groups: set[str], nodes: set[str]
    ) -> Iterator[tuple[tuple[str | int, ...], str, str | None, set[str]]]:
        for index, group in enumerate(self.groups):
            yield ("groups", index, "parent"), "group", group.parent, groups
        for index, pipeline in enumerate(self.pipelines):
            yield ("pipelines", index, "group"), "group", pipeline.group, groups
            for position, replica in enumerate(pipeline.replicas):
                yield ("pipelines", index, "replicas", position, "node"), "node", replica.node, nodes

    def policy_name(self) -> str:
        """The policy to divide by."""
        return self.policy or ("slo" if any(p.slo for p in self.pipelines) else "proportional")

    def limits(self) -> Budget:
        """What may be handed out."""
        return Budget(
            total=self.budget,
            reserve=self.reserve,
            groups=tuple(Group(g.name, g.budget, g.parent) for g in self.groups),
            nodes=tuple(Node(n.name, n.free) for n in self.nodes),
        )
