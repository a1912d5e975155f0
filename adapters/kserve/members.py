"""What each budget covers: the rules that hold for a service, its pods, and why some are left alone. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from headgate.adapters.kserve.graphs import Graph
from headgate.adapters.kserve.leftovers import Leftover, leftovers
from headgate.adapters.kserve.services import (
    GRAPH_LABEL,
    REVISION_LABEL,
    SERVICE_LABEL,
    Deployed,
    Service,
    component_of,
)
from headgate.adapters.kserve.survey import Survey
from headgate.adapters.kubernetes.autoscalers import Autoscaler
from headgate.adapters.kubernetes.pods import Pod
from headgate.adapters.kubernetes.shape import impediment, taken
from headgate.core.budgets import CPUBudget, PipelineRule, by_age
from headgate.core.hosting import Refusal

PodsByPipeline = Mapping[str, Sequence[Pod]]


@dataclass(frozen=True, slots=True)
class Member:
    """A pipeline that a budget covers: one component of a service, or the router of a graph."""

    name: str
    rules: tuple[tuple[PipelineRule, float], ...]
    """The rules that hold for it and the weight of each: several where graphs share a service."""
    live: tuple[Pod, ...] = ()
    leaving: tuple[Pod, ...] = ()
    """Pods on their way out: they still take their CPUs, and get no others."""
    service: Service | None = None
    component: str = "predictor"
    mode: Deployed = Deployed.STANDARD
    refused: Refusal | None = None
    limits_only: bool = False
    graphs: tuple[str, ...] = ()

    @property
    def taken(self) -> int:
        """Millicores of the pods that stay."""
        return sum(taken(pod, self.limits_only) for pod in self.live)


@dataclass(frozen=True, slots=True)
class Claim:
    """What one budget covers."""

    budget: CPUBudget
    members: tuple[Member, ...]
    refused: Mapping[str, Refusal] = field(default_factory=dict)
    """Services that it does not have, by namespace/name."""


def claims(found: Survey, budgets: Sequence[CPUBudget], loads: Mapping[str, float]) -> dict[str, Claim]:
    """By the budgets' keys; a service goes to the oldest of those that want it.

    `loads`: requests per second of graphs, as far as they are known, by namespace/name.
    """
    pods = _by_pipeline(found)
    left = tuple(leftovers(found))
    owned: dict[str, str] = {}
    result = {}
    for budget in by_age(budgets):
        members: list[Member] = []
        refused: dict[str, Refusal] = {}
        for service in found.services.values():
            rules, of = rules_for(budget, service, found.graphs, loads)
            if not rules:
                continue
            if (other := owned.setdefault(service.key, budget.key)) != budget.key:
                refused[service.key] = Refusal(
                    "OtherBudget", f"{service.key} belongs to the older budget {other}: let one of the two select it"
                )
                continue
            members += _components(budget, service, rules, of, pods, found)
        for graph in found.graphs.values():
            rule = _graph_rule(budget, graph)
            if rule is not None and owned.setdefault(f"{graph.key}/router", budget.key) == budget.key:
                members += _router(graph, rule, pods)
        for leftover in left:
            members += _left(budget, leftover, found, loads, owned)
        result[budget.key] = Claim(budget, tuple(members), refused)
    return {budget.key: result[budget.key] for budget in budgets}


def rules_for(
    budget: CPUBudget, service: Service, graphs: Mapping[str, Graph], loads: Mapping[str, float]
) -> tuple[tuple[tuple[PipelineRule, float], ...], tuple[str, ...]]:
    """The rules of a budget that hold for a service with the weight of each, and the graphs that it is in.

    The first rule that matches holds. Where it matches by a graph, the rules of other graphs with the same service
    hold too, each weighted by the load that its graphs bring; loads that are not known count alike.
    """
    within = {key: graph for key, graph in graphs.items() if service.key in graph.services}
    shared: list[tuple[PipelineRule, float]] = []
    for rule in budget.spec.pipelines:
        own = rule.matches(budget.namespace, service.namespace, service.name, service.labels)
        if own and not shared:
            return ((rule, 1.0),), tuple(within)
        named = [graph for graph in within.values() if names_graph(budget, rule, graph)]
        if named:
            known = all(graph.key in loads for graph in within.values())
            brought = [(loads[graph.key] if known else 1.0) * graph.visits().get(service.key, 0.0) for graph in named]
            shared.append((rule, sum(brought)))
    if shared and not sum(weight for _, weight in shared):
        shared = [(rule, 1.0) for rule, _ in shared]
    return tuple(shared), tuple(within)


def names_graph(budget: CPUBudget, rule: PipelineRule, graph: Graph) -> bool:
    """Whether a rule names a graph."""
    return graph.key in rule.graphs or (graph.name in rule.graphs and rule.covers(budget.namespace, graph.namespace))


def _graph_rule(budget: CPUBudget, graph: Graph) -> PipelineRule | None:
    return next((rule for rule in budget.spec.pipelines if names_graph(budget, rule, graph)), None)


def _by_pipeline(found: Survey) -> PodsByPipeline:
    pods: dict[str, list[Pod]] = defaultdict(list)
    for pod in found.cluster.pods:
        service = found.services.get(f"{pod.namespace}/{pod.labels.get(SERVICE_LABEL, '')}")
        if service is not None:
            pods[service.pipeline(component_of(pod))].append(pod)
        elif GRAPH_LABEL in pod.labels:
            pods[f"{pod.namespace}/{pod.labels[GRAPH_LABEL]}/router"].append(pod)
    return pods


def _components(
    budget: CPUBudget,
    service: Service,
    rules: tuple[tuple[PipelineRule, float], ...],
    graphs: tuple[str, ...],
    pods: PodsByPipeline,
    found: Survey,
) -> Iterator[Member]:
    for component in service.components:
        name = service.pipeline(component)
        all_of = sorted(pods.get(name, ()), key=lambda pod: pod.key)
        live = tuple(pod for pod in all_of if not pod.deleting)
        knative = any(REVISION_LABEL in pod.labels for pod in all_of)
        scalers = _followers(service, component, all_of, found.autoscalers)
        limits_only = budget.spec.others.utilisation == "LimitsOnly" and any(s.utilisation for s in scalers)
        yield Member(
            name=name,
            rules=rules,
            live=live,
            leaving=tuple(pod for pod in all_of if pod.deleting),
            service=service,
            component=component,
            mode=Deployed.KNATIVE if knative else Deployed.STANDARD if all_of else service.mode or Deployed.STANDARD,
            refused=_refusal(service, live, scalers, limits_only),
            limits_only=limits_only,
            graphs=graphs,
        )


def _router(graph: Graph, rule: PipelineRule, pods: PodsByPipeline) -> Iterator[Member]:
    name = f"{graph.key}/router"
    all_of = sorted(pods.get(name, ()), key=lambda pod: pod.key)
    if any(pod.taken for pod in all_of):  # without CPU of its own there is nothing to move
        live = tuple(pod for pod in all_of if not pod.deleting)
        leaving = tuple(pod for pod in all_of if pod.deleting)
        refused = next(filter(None, map(impediment, live)), None)
        yield Member(name, ((rule, 1.0),), live, leaving, component="router", refused=refused, graphs=(graph.key,))


def _left(
    budget: CPUBudget, leftover: Leftover, found: Survey, loads: Mapping[str, float], owned: dict[str, str]
) -> Iterator[Member]:
    """Pods without a service or graph count against the budget that would have these."""
    owner = leftover.owner
    rules: tuple[tuple[PipelineRule, float], ...]
    if isinstance(owner, Graph):
        key, rule = leftover.name, _graph_rule(budget, owner)
        rules = () if rule is None else ((rule, 1.0),)
    else:
        key, (rules, _) = owner.key, rules_for(budget, owner, found.graphs, loads)
    if rules and owned.setdefault(key, budget.key) == budget.key:
        yield Member(
            leftover.name, rules, leaving=leftover.pods, component=leftover.component, refused=leftover.refused
        )


def _followers(
    service: Service, component: str, pods: Sequence[Pod], autoscalers: Sequence[Autoscaler]
) -> list[Autoscaler]:
    """The autoscalers that follow the workloads of a component."""
    targets = {pod.owner for pod in pods} | {f"Deployment/{service.name}-{component}"}
    if component == "predictor":
        targets.add(f"InferenceService/{service.name}")
    return [s for s in autoscalers if s.namespace == service.namespace and s.target in targets]


def _refusal(service: Service, live: Sequence[Pod], scalers: Sequence[Autoscaler], limits_only: bool) -> Refusal | None:
    """Why a component is left alone, if so; what has to be done first comes first."""
    if service.stopped:
        return Refusal(
            "Stopped", f"{service.key} is stopped (serving.kserve.io/stop): remove the annotation to serve it"
        )
    for scaler in scalers:
        if scaler.sizes:
            return Refusal(
                "VerticalPodAutoscaler",
                f"{scaler.kind} {scaler.namespace}/{scaler.name} sets the requests of {scaler.target}: "
                "set its updateMode to Off or Initial, or delete it",
            )
        if scaler.utilisation and not limits_only:
            return Refusal(
                "UtilisationAutoscaler",
                f"{scaler.kind} {scaler.namespace}/{scaler.name} scales {scaler.target} by CPU utilisation, which is "
                "relative to requests: set serving.kserve.io/autoscalerClass to external or none, let it follow "
                "another metric, or set others.utilisation of the budget to LimitsOnly",
            )
    for pod in live:
        if (found := impediment(pod, limits_only)) is not None:
            return found
    if not live:
        return Refusal(
            "NoPods", f"{service.key} has no pods now (scaled to zero, or not started): they are sized when they appear"
        )
    return None
