"""What each InferenceGraph asks of its services: its own requests, and its share of theirs. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from headgate.adapters.kserve.graphs import Graph
from headgate.adapters.kserve.members import Claim, Member
from headgate.core.hosting import GraphLoad, GraphPart


def graph_loads(graphs: Mapping[str, Graph], rates: Mapping[str, float]) -> Mapping[str, float]:
    """Requests per second of each graph of which that can be told. `rates`: of pipelines, as far as they are known.

    The router's own where it is known. Otherwise a service that no other graph asks tells it, by its requests over its
    visits: those that come past the graph only add to them, so of several the least counts.
    """
    users: dict[str, int] = {}
    for graph in graphs.values():
        for service in graph.services:
            users[service] = users.get(service, 0) + 1
    found: dict[str, float] = {}
    for key, graph in graphs.items():
        own = rates.get(f"{key}/router")
        told = [
            rates[service] / visits
            for service, visits in graph.visits().items()
            if visits > 0 and users[service] == 1 and service in rates
        ]
        if own is not None:
            found[key] = own
        elif told:
            found[key] = min(told)
    return found


def figures(claim: Claim, graphs: Mapping[str, Graph], rates: Mapping[str, float]) -> tuple[GraphLoad, ...]:
    """The graphs that a budget's pipelines are part of, with what each asks of them."""
    loads = graph_loads(graphs, rates)
    found = []
    for key, graph in graphs.items():
        parts = {member.name: _part(member, graph, graphs, loads, rates) for member in claim.members}
        known = {name: part for name, part in parts.items() if part is not None}
        if known:
            found.append(GraphLoad(key, loads.get(key), known))
    return tuple(found)


def _part(
    member: Member,
    graph: Graph,
    graphs: Mapping[str, Graph],
    loads: Mapping[str, float],
    rates: Mapping[str, float],
) -> GraphPart | None:
    if graph.key not in member.graphs:
        return None
    if member.service is None:
        return GraphPart(1.0, 1.0)  # its router
    service = member.service.key
    known = all(key in loads for key in member.graphs)
    brought = {key: (loads[key] if known else 1.0) * graphs[key].visits().get(service, 0.0) for key in member.graphs}
    whole = sum(brought.values())
    if known:
        whole = max(whole, rates.get(service, 0.0))  # the rest comes past all graphs
    return GraphPart(graph.visits().get(service, 0.0), brought[graph.key] / whole if whole else 0.0)
