"""InferenceGraphs: a pipeline of services. Which services, how often each is asked, and its part of a latency."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

API = "serving.kserve.io/v1alpha1"
RESOURCE = "inferencegraphs"
ROOT = "root"

Path = tuple[str, ...]
"""Nodes from the root to here."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of a graph's node."""

    service: str | None
    """In the graph's namespace."""
    node: str | None
    share: float
    """Of the node's requests."""


@dataclass(frozen=True, slots=True)
class Graph:
    """An InferenceGraph."""

    namespace: str
    name: str
    nodes: Mapping[str, tuple[bool, tuple[Stage, ...]]]
    """Whether its steps run one after the other, and the steps."""

    @property
    def key(self) -> str:
        """namespace/name."""
        return f"{self.namespace}/{self.name}"

    @property
    def services(self) -> frozenset[str]:
        """namespace/name of all services in it."""
        steps = (step for _, steps in self.nodes.values() for step in steps)
        return frozenset(f"{self.namespace}/{step.service}" for step in steps if step.service)

    def visits(self) -> Mapping[str, float]:
        """Requests that each service gets for one of the graph. What a Switch chooses is not known: each alike."""
        found: dict[str, float] = {}
        for service, share in self._visits(ROOT, 1.0, ()):
            found[service] = found.get(service, 0.0) + share
        return found

    def parts(self, latency: float, times: Mapping[str, float]) -> Mapping[str, float]:
        """The part of a latency in seconds that each service may take, in proportion to its service time.

        `times`: seconds by service; where any is missing they count alike. Steps in sequence share what their node
        has; steps of which one is chosen, or that run at once, have all of it.
        """
        known = dict(times) if self.services and self.services <= times.keys() else dict.fromkeys(self.services, 1.0)
        found: dict[str, float] = {}
        for service, part in self._parts(ROOT, latency, known, ()):
            found[service] = min(part, found.get(service, part))
        return found

    def _visits(self, node: str, share: float, above: Path) -> Iterator[tuple[str, float]]:
        for step in self._steps(node, above)[1]:
            if step.service:
                yield f"{self.namespace}/{step.service}", share * step.share
            elif step.node:
                yield from self._visits(step.node, share * step.share, (*above, node))

    def _parts(self, node: str, latency: float, times: Mapping[str, float], above: Path) -> Iterator[tuple[str, float]]:
        sequence, steps = self._steps(node, above)
        lengths = [self._length(step, times, (*above, node)) for step in steps]
        whole = sum(lengths) if sequence else 0.0
        for step, length in zip(steps, lengths, strict=True):
            own = latency * length / whole if sequence and whole else latency
            if step.service:
                yield f"{self.namespace}/{step.service}", own
            elif step.node:
                yield from self._parts(step.node, own, times, (*above, node))

    def _length(self, step: Stage, times: Mapping[str, float], above: Path) -> float:
        if step.service:
            return times.get(f"{self.namespace}/{step.service}", 0.0)
        sequence, steps = self._steps(step.node or "", above)
        lengths = [self._length(inner, times, (*above, step.node or "")) for inner in steps]
        return sum(lengths) if sequence else max(lengths, default=0.0)

    def _steps(self, node: str, above: Path) -> tuple[bool, tuple[Stage, ...]]:
        # KServe does not forbid a node that leads back to itself.
        return (True, ()) if node in above else self.nodes.get(node, (True, ()))


def read_graph(found: Mapping[str, Any]) -> Graph:
    """An InferenceGraph of the API."""
    meta = found["metadata"]
    nodes = {name: _node(node) for name, node in ((found.get("spec") or {}).get("nodes") or {}).items()}
    return Graph(meta["namespace"], meta["name"], nodes)


def _node(node: Mapping[str, Any]) -> tuple[bool, tuple[Stage, ...]]:
    kind, steps = node.get("routerType"), node.get("steps") or ()
    weights = [max(0, step.get("weight") or 0) for step in steps]
    whole = sum(weights)
    stages = []
    for step, weight in zip(steps, weights, strict=True):
        share = 1.0
        if kind == "Splitter":
            share = weight / whole if whole else 1 / len(steps)
        elif kind == "Switch":
            share = 1 / len(steps)
        stages.append(Stage(step.get("serviceName"), step.get("nodeName"), share))
    return kind == "Sequence", tuple(stages)
