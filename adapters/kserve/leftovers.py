"""Pods whose service, component or graph is not there: no more, or not yet seen. They have their CPUs. Pure.

A service that is deleted leaves its pods behind for a while, and one that is made while a change is under way has pods
before it is looked at. Whoever did not count them would give their CPUs away.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from headgate.adapters.kserve.graphs import Graph
from headgate.adapters.kserve.services import COMPONENTS, GRAPH_LABEL, SERVICE_LABEL, Service, component_of
from headgate.adapters.kserve.survey import Survey
from headgate.adapters.kubernetes.pods import Pod
from headgate.core.hosting import Refusal


@dataclass(frozen=True, slots=True)
class Leftover:
    """Pods of one component, with what tells whose budget they count against."""

    name: str
    """As a pipeline's."""
    component: str
    owner: Service | Graph
    """As far as it is known from the pods."""
    pods: tuple[Pod, ...]

    @property
    def refused(self) -> Refusal | None:
        """What is to be said of it; None: the pods are on their way out."""
        staying = [pod.key for pod in self.pods if not pod.deleting]
        if not staying:
            return None
        return Refusal(
            "NoService",
            f"pod {staying[0]} is of {self.name}, which is not there: it counts against the budget until it is gone, "
            "and is not resized; delete it if nobody does",
        )


def leftovers(found: Survey) -> Iterator[Leftover]:
    """All of them, in order."""
    groups: dict[tuple[str, str, bool, str], list[Pod]] = defaultdict(list)
    for pod in found.cluster.pods:
        if (service := pod.labels.get(SERVICE_LABEL)) is not None:
            known, component = found.services.get(f"{pod.namespace}/{service}"), component_of(pod)
            if component in COMPONENTS and (known is None or component not in known.components):
                groups[pod.namespace, service, False, component].append(pod)
        elif (graph := pod.labels.get(GRAPH_LABEL)) is not None and f"{pod.namespace}/{graph}" not in found.graphs:
            groups[pod.namespace, graph, True, "router"].append(pod)
    for (namespace, name, routes, component), pods in sorted(groups.items()):
        ordered = tuple(sorted(pods, key=lambda pod: pod.key))
        if routes:
            yield Leftover(f"{namespace}/{name}/router", component, Graph(namespace, name, {}), ordered)
            continue
        owner = found.services.get(f"{namespace}/{name}") or _gone(namespace, name, ordered[0])
        yield Leftover(owner.pipeline(component), component, owner, ordered)


def _gone(namespace: str, name: str, pod: Pod) -> Service:
    """A service as its pods tell of it: they have its labels among theirs."""
    return Service(
        namespace=namespace,
        name=name,
        labels=pod.labels,
        components=(),
        mode=None,
        stopped=False,
        frozen=False,
        autoscaler="",
        spec={},
    )
