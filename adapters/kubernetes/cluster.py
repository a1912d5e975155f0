"""One look at a cluster: the pods that are of interest, and what every pod takes on every node.

Lists, read afresh and page by page, rather than a watch: nothing is ever older than the turn that it is used in, a lost
connection needs no care, and 1,000 pods cost two requests.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from headgate.adapters.kubernetes.api import Api, ApiError, Object, path
from headgate.adapters.kubernetes.pods import Pod, read_pod, reserved
from headgate.adapters.kubernetes.quantities import cpu

T = TypeVar("T")
Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Machine:
    """A node."""

    name: str
    labels: Labels
    allocatable: int
    """Millicores that its pods may ask for together."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """Pods and nodes at one time."""

    pods: tuple[Pod, ...]
    """Those that were asked for and have not finished."""
    nodes: Mapping[str, Machine] | None
    """None: headgate may not look at nodes, or not at all pods on them."""
    taken: Mapping[str, int] = field(default_factory=dict)
    """Millicores by node that all its pods together take."""

    def free(self) -> dict[str, int] | None:
        """Millicores by node that no pod has taken; None: not known."""
        if self.nodes is None:
            return None
        return {name: max(0, node.allocatable - self.taken.get(name, 0)) for name, node in self.nodes.items()}


def read_cluster(api: Api, namespaces: Sequence[str], main: Callable[[Labels], Sequence[str]]) -> Cluster:
    """Everything as it is now. `main`: the names that a pod's main container may have, by its labels; none: ignored.

    Without `namespaces` all of the cluster, nodes included. Raises PermissionError and ConnectionError.
    """
    pods: list[Pod] = []
    taken: dict[str, int] = defaultdict(int)
    nodes = None if namespaces else _nodes(api)
    for raw in listed(api, "v1", "pods", namespaces):
        if nodes is not None and (there := reserved(raw)) is not None:
            taken[there[0]] += there[1]
        names = main(raw["metadata"].get("labels") or {})
        pod = read_pod(raw, names) if names else None
        if pod is not None and not pod.finished:
            pods.append(pod)
    return Cluster(tuple(pods), nodes, taken)


def listed(api: Api, version: str, resource: str, namespaces: Sequence[str], **query: str) -> Iterator[Object]:
    """All objects of a kind in the namespaces, in all where none is named. Raises PermissionError, ConnectionError."""
    for namespace in namespaces or ("",):
        yield from _paged(api, path(version, resource, namespace=namespace), query)


def optional(api: Api, version: str, resource: str, namespaces: Sequence[str]) -> list[Object]:
    """As `listed`, of a kind that need not be installed."""
    try:
        return list(listed(api, version, resource, namespaces))
    except FileNotFoundError:
        return []


def answered(call: Callable[[], T], what: str) -> T:
    """What `call` returns, with the server's errors as the host's contract has them."""
    try:
        return call()
    except ApiError as error:
        raise translated(error, what) from None


def translated(error: ApiError, what: str) -> OSError:
    """An error of the server as the contract of hosts has it."""
    if error.status in (401, 403):
        return PermissionError(f"{what}: {error}. Allow headgate's account to do this")
    if error.status == 404:
        return FileNotFoundError(f"{what}: {error}")
    return ConnectionError(f"{what}: {error}")


def _paged(api: Api, where: str, query: Mapping[str, str]) -> Iterator[Object]:
    """A snapshot that expires between two pages is a failed look, which the next turn takes again."""
    try:
        for page in api.pages(where, **query):
            yield from page
    except ApiError as error:
        raise translated(error, f"cannot list {where}") from None


def _nodes(api: Api) -> Mapping[str, Machine] | None:
    try:
        return {node.name: node for node in map(_machine, listed(api, "v1", "nodes", ()))}
    except PermissionError:
        return None


def _machine(node: Object) -> Machine:
    meta = node["metadata"]
    offered = (node.get("status") or {}).get("allocatable") or {}
    return Machine(meta["name"], meta.get("labels") or {}, cpu(offered) or 0)
