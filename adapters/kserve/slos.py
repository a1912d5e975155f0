"""The SLO of each pipeline: a service's own, divided among the stages that a request passes. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from headgate.adapters.kserve.graphs import Graph
from headgate.adapters.kserve.members import Claim, Member
from headgate.core.model import Demand, Demands, Slo

STAGES = ("predictor", "transformer")
"""Components that every prediction passes; an explainer answers requests of another kind."""


@dataclass(frozen=True, slots=True)
class Known:
    """What earlier decisions knew of the load."""

    rates: Mapping[str, float] = field(default_factory=dict)
    """Requests per second, by pipeline."""
    times: Mapping[str, float] = field(default_factory=dict)
    """CPU seconds per request, by pipeline."""


def learned(known: Known, demands: Demands) -> Known:
    """With what the latest decisions knew. A value stays until it has changed by a fifth: each change of an SLO or a
    weight has everything divided anew.
    """
    rates, times = dict(known.rates), dict(known.times)
    for name, demand in demands.items():
        if isinstance(demand, Demand) and demand.basis != "cpu":
            _follow(times, name, demand.cpu_seconds_per_request)
            _follow(rates, name, demand.arrival_rate)
    return Known(rates, times)


def _follow(values: dict[str, float], name: str, value: float) -> None:
    if value > 0 and abs(value - values.get(name, 0.0)) > 0.2 * values.get(name, 0.0):
        values[name] = value


def slos(claim: Claim, graphs: Mapping[str, Graph], times: Mapping[str, float]) -> Mapping[str, Slo]:
    """By pipeline. `times`: seconds of service by pipeline, where known.

    A latency is divided in proportion to the mean service times of the stages where all are known, else evenly: first
    among the services of a graph whose rule has it, then between transformer and predictor. Percentiles stay: when
    each stage keeps its part at the percentile, the whole keeps its own unless slow stages coincide. Of several that
    hold for a service the tightest counts.
    """
    members: dict[str, list[Member]] = {}
    for member in claim.members:
        if member.service is not None and member.component in STAGES:
            members.setdefault(member.service.key, []).append(member)
    services = {key: sum(times.get(m.name, 0.0) for m in found) for key, found in members.items()}
    complete = {key: t for key, t in services.items() if all(m.name in times for m in members[key])}
    result: dict[str, Slo] = {}
    for key, stages in members.items():
        if (own := _of_service(stages[0], graphs, complete)) is None:
            continue
        known = all(member.name in times for member in stages) and services[key] > 0
        for member in stages:
            part = times[member.name] / services[key] if known else 1 / len(stages)
            result[member.name] = Slo(own.latency * part, own.percentile)
    return result


def _of_service(member: Member, graphs: Mapping[str, Graph], times: Mapping[str, float]) -> Slo | None:
    found: list[Slo] = []
    for rule, _ in member.rules:
        if rule.slo is None or member.service is None:
            continue
        whole = rule.slo.value()
        within = [graphs[key] for key in member.graphs if key in rule.graphs or key.partition("/")[2] in rule.graphs]
        parts = [graph.parts(whole.latency, times).get(member.service.key, whole.latency) for graph in within]
        found.append(Slo(min(parts, default=whole.latency), whole.percentile))
    return min(found, key=lambda slo: slo.latency, default=None)
