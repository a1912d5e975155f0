"""Would the pods of a node fit elsewhere, and may they be evicted? A drain, simulated before anything is touched."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headgate.core.nodes.model import NodeInfo, PodDisruptionBudget, PodInfo, Toleration
from headgate.core.providers import NodeTemplate, Taint
from headgate.core.units import format_cpu

UNLIMITED = 2**62

Budgets = Mapping[str, Sequence[PodDisruptionBudget]]
"""By namespace."""


def by_namespace(budgets: Iterable[PodDisruptionBudget]) -> Budgets:
    """The budgets, so that those of one pod are found at once."""
    found = defaultdict(list)
    for budget in budgets:
        found[budget.namespace].append(budget)
    return found


@dataclass(frozen=True, slots=True)
class Place:
    """What a node has left for pods."""

    name: str
    cpu: int
    memory: int
    pods: int
    labels: Mapping[str, str]
    taints: tuple[Taint, ...]
    exclusive: frozenset[str] = frozenset()


def place(node: NodeInfo, sizes: Mapping[str, int]) -> Place:
    """What `node` has left when its pods have `sizes` (by name; otherwise what is committed to them)."""
    taken = sum(sizes.get(p.name, p.committed) for p in node.pods) if sizes else node.committed
    return Place(
        name=node.name,
        cpu=node.cpu - taken,
        memory=node.memory - sum(p.memory for p in node.pods) if node.memory else UNLIMITED,
        pods=node.pods_limit - len(node.pods),
        labels=node.labels,
        taints=tuple(t for t in node.taints if t.effect != "PreferNoSchedule"),
        exclusive=frozenset().union(*(p.exclusive for p in node.pods if p.exclusive)),
    )


def fresh(name: str, template: NodeTemplate, daemons: int) -> Place:
    """What a new node of a group has for pods once its daemon sets run."""
    taints = tuple(t for t in template.taints if t.effect != "PreferNoSchedule")
    memory = template.memory or UNLIMITED
    return Place(name, template.cpu - daemons, memory, template.pods, template.labels, taints)


class Board:
    """Nodes with room, on which pods are put one after the other, best fit; a failed attempt can be taken back."""

    def __init__(self, places: Iterable[Place]) -> None:
        self.places = list(places)
        self.cpu = np.array([p.cpu for p in self.places], dtype=np.int64)
        self.memory = np.array([p.memory for p in self.places], dtype=np.int64)
        self.pods = np.array([p.pods for p in self.places], dtype=np.int64)
        self.keys: list[frozenset[str]] = [p.exclusive for p in self.places]
        self._index = {p.name: i for i, p in enumerate(self.places)}
        self._admits: dict[object, npt.NDArray[np.bool_]] = {}
        self._log: list[tuple[int, int, int, frozenset[str]]] = []

    def add(self, new: Place) -> None:
        """One node more."""
        self._index[new.name] = len(self.places)
        self.places.append(new)
        self.cpu = np.append(self.cpu, new.cpu)
        self.memory = np.append(self.memory, new.memory)
        self.pods = np.append(self.pods, new.pods)
        self.keys.append(new.exclusive)
        self._admits.clear()

    def close(self, name: str) -> int:
        """Put nothing more on this node. What `open` needs to take that back."""
        index = self._index[name]
        before = int(self.pods[index])
        self.pods[index] = 0
        return before

    def open(self, name: str, pods: int) -> None:
        """Take back `close`."""
        self.pods[self._index[name]] = pods

    def since(self, start: int) -> dict[str, int]:
        """Millicores put on each node since `mark` gave `start`."""
        put: dict[str, int] = {}
        for index, cpu, *_ in self._log[start:]:
            name = self.places[index].name
            put[name] = put.get(name, 0) + cpu
        return put

    def put(self, pod: PodInfo, cpu: int, beside: str = "") -> str | None:
        """Put `pod` with `cpu` millicores where least is left over, not on `beside`. The node's name; None: it fits
        nowhere.
        """
        if not self.places:
            return None
        fits = self._admitting(pod) & (self.cpu >= cpu) & (self.memory >= pod.memory) & (self.pods > 0)
        if pod.exclusive:
            fits = fits & np.array([not (pod.exclusive & keys) for keys in self.keys])
        if beside in self._index:
            fits[self._index[beside]] = False
        index = int(np.argmin(np.where(fits, self.cpu, UNLIMITED)))
        if not fits[index]:
            return None
        self.cpu[index] -= cpu
        self.memory[index] -= pod.memory
        self.pods[index] -= 1
        self._log.append((index, cpu, pod.memory, self.keys[index]))
        if pod.exclusive:
            self.keys[index] |= pod.exclusive
        return self.places[index].name

    def widest(self, pod: PodInfo) -> tuple[str, int] | None:
        """The node with the most free CPU that would admit `pod`, for a reason."""
        if not self.places or not (open_ := self._admitting(pod) & (self.pods > 0)).any():
            return None
        index = int(np.argmax(np.where(open_, self.cpu, -UNLIMITED)))
        return self.places[index].name, int(self.cpu[index])

    def mark(self) -> int:
        """A point to return to."""
        return len(self._log)

    def undo(self, to: int) -> None:
        """Take back what was put since `mark` gave `to`."""
        while len(self._log) > to:
            index, cpu, memory, keys = self._log.pop()
            self.cpu[index] += cpu
            self.memory[index] += memory
            self.pods[index] += 1
            self.keys[index] = keys

    def _admitting(self, pod: PodInfo) -> npt.NDArray[np.bool_]:
        key = (tuple(sorted(pod.selector.items())), pod.tolerations)
        found = self._admits.get(key)
        if found is None:
            found = np.array([admits(p.labels, p.taints, pod.selector, pod.tolerations) for p in self.places], np.bool_)
            self._admits[key] = found
        return found


def admits(
    labels: Mapping[str, str],
    taints: Sequence[Taint],
    selector: Mapping[str, str],
    tolerations: Sequence[Toleration],
) -> bool:
    """Whether a node with these labels and taints takes a pod with this selector and these tolerations."""
    return selector.items() <= labels.items() and all(any(t.allows(taint) for t in tolerations) for taint in taints)


def evictable(pod: PodInfo, budgets: Budgets, most_grace: float) -> str:
    """Why `pod` must not be evicted; empty: it may."""
    covering = [b for b in budgets.get(pod.namespace, ()) if b.covers(pod)]
    obstacles = (
        (pod.safe_to_evict is False, "is not safe to evict, as its owner says"),
        (not pod.controlled and not pod.safe_to_evict, "has no controller that would replace it"),
        (pod.local_storage and not pod.safe_to_evict, "has local storage"),
        (pod.grace > most_grace, f"wants {pod.grace:g} s to end, at most {most_grace:g} s are granted"),
        (bool(pod.unmodelled), f"has a {pod.unmodelled}, which the simulation does not know"),
        (len(covering) > 1, "is under two PodDisruptionBudgets, which the eviction API refuses"),
    )
    for holds, why in obstacles:
        if holds:
            return f"pod {pod.name} {why}"
    for budget in covering:
        if budget.allowed < 1:
            return f"pod {pod.name}: PodDisruptionBudget {budget.name} allows no disruption now"
    return ""


def moving_size(pod: PodInfo, sizes: Mapping[str, int]) -> int:
    """Millicores that the pod's replacement needs: its controller's template asks first, then it is sized."""
    before = pod.committed if pod.template_cpu is None else max(pod.template_cpu, pod.floor)
    return max(before, sizes.get(pod.name, 0))


def simulate(
    node: NodeInfo,
    board: Board,
    budgets: Budgets,
    most_grace: float,
    sizes: Mapping[str, int],
) -> str:
    """Drain `node` onto `board`, largest pod first. Why that does not work, and the board as before; or empty.

    Pods of negative priority are expendable: they are evicted without a place.
    """
    start = board.mark()
    moving = [p for p in node.serving if not p.terminating]
    for pod in moving:
        if obstacle := evictable(pod, budgets, most_grace):
            return obstacle
    order = sorted((p for p in moving if p.priority >= 0), key=lambda p: (-moving_size(p, sizes), p.name))
    for pod in order:
        cpu = moving_size(pod, sizes)
        if board.put(pod, cpu) is None:
            widest = board.widest(pod)
            board.undo(start)
            if widest is None:
                return f"pod {pod.name}: no other node admits it (selector, taints)"
            return (
                f"pod {pod.name} needs {format_cpu(cpu)} CPUs, the most that is free is "
                f"{format_cpu(max(0, widest[1]))} on {widest[0]}"
            )
    return ""
