"""Where grants can be realised: replicas live on nodes, and a node has only so many CPUs free.

A grant of a pipeline is the sum of what its replicas get. All grants together are realisable exactly when, for every
set of pipelines, the nodes that host them have room for what they get together (Hall's condition for transport; by
max-flow min-cut, Ford and Fulkerson 1956). So a failed attempt to spread the grants yields a set of pipelines and the
room on their nodes: a limit to divide again with.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from headgate.core.laminar import Ints
from headgate.core.model import Node, Pipeline


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """Pipelines that together may have no more than `room` millicores, which is what is free on `nodes`."""

    members: Ints
    room: int
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Placement:
    """The replicas of those pipelines that are bound to nodes."""

    hosts: tuple[tuple[int, tuple[int, ...]], ...]
    """(pipeline, the nodes of its replicas, each once), by name; pipelines that live anywhere are left out."""
    order: tuple[int, ...]
    """The pipelines with replicas, by name."""
    replicas: tuple[tuple[tuple[str, int], ...], ...]
    """For each pipeline (replica, node), node -1: bound to none."""
    nodes: tuple[str, ...]
    free: tuple[int, ...]

    @classmethod
    def of(cls, pipelines: Sequence[Pipeline], nodes: Sequence[Node]) -> Placement | None:
        """The placement of `pipelines` on `nodes`; None when no pipeline has a replica.

        Raises ValueError on two nodes or replicas of one name, on an unknown node and on a negative free.
        """
        index: dict[str, int] = {}
        # In the order of names, here and below: in which order they are given must change no answer.
        nodes = sorted(nodes, key=lambda node: node.name)
        for node in nodes:
            if node.name in index:
                raise ValueError(f"nodes: {node.name!r} is the name of two of them: give each its own")
            if node.free < 0:
                raise ValueError(f"node {node.name}: free {node.free}m is negative")
            index[node.name] = len(index)
        seen: dict[str, str] = {}
        hosts = []
        for position, p in enumerate(pipelines):
            for replica in p.replicas:
                if replica.name in seen:
                    raise ValueError(
                        f"pipeline {p.name}: replica {replica.name!r} is one of {seen[replica.name]} already: "
                        "give each its own name"
                    )
                if replica.node is not None and replica.node not in index:
                    known = ", ".join(index) or "none"
                    raise ValueError(
                        f"pipeline {p.name}: node {replica.node!r} of replica {replica.name} is not defined; "
                        f"known nodes: {known}"
                    )
                seen[replica.name] = p.name
            if p.replicas and all(r.node is not None for r in p.replicas):
                hosts.append((position, tuple(sorted({index[r.node] for r in p.replicas if r.node is not None}))))
        if not seen:
            return None
        order = sorted(range(len(pipelines)), key=lambda position: pipelines[position].name)
        place = {position: rank for rank, position in enumerate(order)}
        return cls(
            hosts=tuple(sorted(hosts, key=lambda host: place[host[0]])),
            order=tuple(position for position in order if pipelines[position].replicas),
            replicas=tuple(
                tuple((r.name, -1 if r.node is None else index[r.node]) for r in p.replicas) for p in pipelines
            ),
            nodes=tuple(index),
            free=tuple(node.free for node in nodes),
        )

    def obvious_cuts(self) -> list[Cut]:
        """One for each node with pipelines that live on it alone."""
        alone: dict[int, list[int]] = {}
        for pipeline, where in self.hosts:
            if len(where) == 1:
                alone.setdefault(where[0], []).append(pipeline)
        return [Cut(np.array(who), self.free[node], (self.nodes[node],)) for node, who in sorted(alone.items())]

    def spread(self, grants: Ints) -> Flow:
        """What each node gives to each pipeline so that the pipelines have their `grants`, as far as that is possible.

        Starts from even shares of a pipeline's replicas, and moves only what a node cannot hold.
        """
        return Flow(self, grants)

    def split(self, grants: Ints, flow: Flow | None = None) -> dict[str, int]:
        """Millicores of each replica; a pipeline's replicas sum to its grant, as even as their nodes allow.

        `flow`: of these grants, when it is there already. What a node gives is shared evenly by the replicas on it;
        what does not divide goes to the first ones.
        """
        flow = flow or self.spread(grants)
        bound = {pipeline for pipeline, _ in self.hosts}
        result: dict[str, int] = {}
        for pipeline in self.order:
            replicas = self.replicas[pipeline]
            if pipeline in bound:
                for node in {node: None for _, node in replicas}:
                    names = [name for name, where in replicas if where == node]
                    result.update(zip(names, even(flow.given[pipeline].get(node, 0), len(names)), strict=True))
            else:
                result.update(self._split_loose(pipeline, int(grants[pipeline]), flow))
        return {name: result[name] for replicas in self.replicas for name, _ in replicas}

    def _split_loose(self, pipeline: int, grant: int, flow: Flow) -> dict[str, int]:
        """A pipeline with a replica that is bound to no node: that one takes what the others' nodes cannot hold."""
        replicas = self.replicas[pipeline]
        shares = dict(zip((name for name, _ in replicas), even(grant, len(replicas)), strict=True))
        loose = [name for name, node in replicas if node < 0]
        spill = 0
        for name, node in replicas:
            if node >= 0:
                kept = min(shares[name], flow.left[node])
                spill += shares[name] - kept
                shares[name] = kept
                flow.left[node] -= kept
        for name, extra in zip(loose, even(spill, len(loose)), strict=True):
            shares[name] += extra
        return shares


def even(amount: int, parts: int) -> list[int]:
    """`amount` in `parts` integers that differ by one at the most, the larger ones first."""
    share, rest = divmod(amount, parts)
    return [share + (index < rest) for index in range(parts)]


class Flow:
    """A transport of grants to nodes: a maximum flow by shortest augmenting paths, started from even shares."""

    def __init__(self, placement: Placement, grants: Ints) -> None:
        self.placement = placement
        self.left = list(placement.free)
        """Millicores that each node has left."""
        self.given: dict[int, dict[int, int]] = {}
        """pipeline -> node -> millicores."""
        self.cuts: list[Cut] = []
        """Sets of pipelines that cannot have their grants together; empty when all is placed."""
        self._guests: list[dict[int, None]] = [{} for _ in placement.free]
        self._missing: dict[int, int] = {}
        wishes: list[list[tuple[int, int]]] = [[] for _ in placement.free]
        for pipeline, where in placement.hosts:
            self.given[pipeline] = dict.fromkeys(where, 0)
            replicas = placement.replicas[pipeline]
            for (_, node), share in zip(replicas, even(int(grants[pipeline]), len(replicas)), strict=True):
                wishes[node].append((pipeline, share))
                self._guests[node][pipeline] = None
            self._missing[pipeline] = int(grants[pipeline])
        for node, wanted in enumerate(wishes):
            free, asked = placement.free[node], sum(share for _, share in wanted)
            for pipeline, share in wanted:
                amount = share if asked <= free else share * free // asked
                self.given[pipeline][node] += amount
                self._missing[pipeline] -= amount
                self.left[node] -= amount
        self._place_missing()

    def _place_missing(self) -> None:
        # What a failed search reached is full, leads only to what is full and stays so: no search need go there again.
        full: set[int] = set()
        for pipeline in self._missing:
            while self._missing[pipeline] and pipeline not in full:
                reached, path = self._search(pipeline, full)
                if path is None:
                    full |= reached
                else:
                    self._push(pipeline, path)
        while full:
            self.cuts.append(self._cut(full))

    def _search(self, start: int, full: set[int]) -> tuple[set[int], list[tuple[int, int]] | None]:
        """The pipelines reached, and the shortest [(pipeline, node), ...] whose last node has room: each pipeline takes
        from its node, where the next one of the path gives way.
        """
        came: dict[int, tuple[int, int] | None] = {start: None}
        seen: set[int] = set()
        queue = deque([start])
        while queue:
            pipeline = queue.popleft()
            for node in self.given[pipeline]:
                if self.left[node] > 0:
                    path = [(pipeline, node)]
                    while (step := came[path[-1][0]]) is not None:
                        path.append(step)
                    return set(came), path[::-1]
                if node not in seen:
                    seen.add(node)
                    for guest in self._guests[node]:
                        if guest not in came and guest not in full and self.given[guest][node] > 0:
                            came[guest] = (pipeline, node)
                            queue.append(guest)
        return set(came), None

    def _push(self, start: int, path: list[tuple[int, int]]) -> None:
        amount = min(self._missing[start], self.left[path[-1][1]])
        for (_, node), (guest, _) in pairwise(path):
            amount = min(amount, self.given[guest][node])
        for (_, node), (guest, _) in pairwise(path):
            self.given[guest][node] -= amount
        for pipeline, node in path:
            self.given[pipeline][node] += amount
        self.left[path[-1][1]] -= amount
        self._missing[start] -= amount

    def _cut(self, full: set[int]) -> Cut:
        """Takes one set of pipelines that share nodes out of `full`."""
        members, nodes = [full.pop()], set[int]()
        for member in members:
            for node in self.given[member].keys() - nodes:
                nodes.add(node)
                neighbours = full & self._guests[node].keys()
                members += neighbours
                full -= neighbours
        room = sum(self.placement.free[node] for node in nodes)
        return Cut(np.array(sorted(members)), room, tuple(self.placement.nodes[node] for node in sorted(nodes)))
