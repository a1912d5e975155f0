"""One look at everything that KServe runs and that stands around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headgate.adapters.kserve import graphs, services
from headgate.adapters.kserve.graphs import Graph, read_graph
from headgate.adapters.kserve.services import Service, main_containers, read_service
from headgate.adapters.kubernetes.api import Api
from headgate.adapters.kubernetes.autoscalers import Autoscaler, gitops_owner, read_autoscalers
from headgate.adapters.kubernetes.cluster import Cluster, listed, optional, read_cluster
from headgate.adapters.kubernetes.quantities import cpu


@dataclass(frozen=True, slots=True)
class Range:
    """What a container's CPU may be in a namespace, by its LimitRanges; None: no limit."""

    least: int | None = None
    most: int | None = None


@dataclass(frozen=True, slots=True)
class Survey:
    """What was found, all of it at about one time."""

    time: float
    services: Mapping[str, Service]
    """By namespace/name."""
    graphs: Mapping[str, Graph]
    autoscalers: tuple[Autoscaler, ...]
    ranges: Mapping[str, Range]
    """By namespace."""
    cluster: Cluster


def survey(api: Api, namespaces: Sequence[str], now: float) -> Survey:
    """Look at everything. Raises PermissionError and ConnectionError."""
    found = [
        read_service(item, gitops_owner(item["metadata"]))
        for item in listed(api, services.API, services.RESOURCE, namespaces)
    ]
    routed = [read_graph(item) for item in optional(api, graphs.API, graphs.RESOURCE, namespaces)]
    return Survey(
        time=now,
        services={service.key: service for service in found},
        graphs={graph.key: graph for graph in routed},
        autoscalers=read_autoscalers(api, namespaces),
        ranges=_ranges(api, namespaces),
        cluster=read_cluster(api, namespaces, main_containers),
    )


def _ranges(api: Api, namespaces: Sequence[str]) -> Mapping[str, Range]:
    """The LimitRanges, where headgate may see them; where not, a dry run tells."""
    found: dict[str, Range] = {}
    try:
        items = optional(api, "v1", "limitranges", namespaces)
    except PermissionError:
        return {}
    for item in items:
        space = item["metadata"]["namespace"]
        for limit in (item.get("spec") or {}).get("limits") or ():
            if limit.get("type") == "Container":
                found[space] = _narrowed(found.get(space, Range()), cpu(limit.get("min")), cpu(limit.get("max")))
    return found


def _narrowed(known: Range, least: int | None, most: int | None) -> Range:
    lows = [value for value in (known.least, least) if value is not None]
    highs = [value for value in (known.most, most) if value is not None]
    return Range(max(lows, default=None), min(highs, default=None))
