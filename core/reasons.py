"""Why each pipeline has what it has, in one line for people, written only when somebody asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from headgate.core.filling import next_step
from headgate.core.laminar import Floats, Ints
from headgate.core.model import Basis
from headgate.core.policies.base import Division, Policy
from headgate.core.problem import Problem
from headgate.core.units import MILLI, format_cpu

BASES: Mapping[Basis, str] = {
    "requests": "",
    "cost": " (by the CPU in use: requests are not counted now)",
    "cpu": " (by the CPU in use alone: requests are not counted)",
}


class Texts(Mapping[str, str]):
    """Texts by name that are written when they are read: a hundred thousand reasons cost nothing until then."""

    def __init__(self, names: Sequence[str], write: Callable[[int], str]) -> None:
        self._names = names
        self._write = write
        self._index: dict[str, int] = {}

    def __getitem__(self, name: str) -> str:
        self._index = self._index or {name: index for index, name in enumerate(self._names)}
        return self._write(self._index[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return repr(dict(self))

    def __reduce__(self) -> tuple[type[dict[str, str]], tuple[dict[str, str]]]:
        """Pickled as what is written."""
        return dict, (dict(self),)


class Numbers(Mapping[str, float]):
    """Numbers by name that are worked out, all at once, when the first of them is read."""

    def __init__(self, names: Sequence[str], find: Callable[[], Floats]) -> None:
        self._names = names
        self._find = find
        self._found: dict[str, float] | None = None

    def _all(self) -> dict[str, float]:
        if self._found is None:
            self._found = dict(zip(self._names, self._find().tolist(), strict=True))
        return self._found

    def __getitem__(self, name: str) -> float:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return repr(self._all())


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """Writes the reasons of one division."""

    problem: Problem
    policy: Policy
    division: Division
    held: Mapping[int, str]
    """Why a pipeline keeps what it has, by index."""

    def of(self, index: int) -> str:
        """The demand; what the policy makes of it; the limit that binds; from whom it came or to whom it went."""
        parts = [self._demand(index)]
        if index in self.held:
            parts.append(f"keeps {format_cpu(int(self.division.grants[index]))}: {self.held[index]}")
        else:
            if self.problem.wants.known[index]:
                parts.append(self.policy.explain(self.problem, self.division, index))
            parts.append(self._limit(index))
            parts.append(self._move(index))
        return "; ".join(part for part in parts if part)

    def _demand(self, index: int) -> str:
        if not self.problem.wants.known[index]:
            if index in self.held:
                return ""
            if (load := float(self.problem.load[index])) > 0:
                return f"its demand is not known: the {format_cpu(round(load * MILLI))} that it holds count as its load"
            return "its demand is not known and it holds nothing: counts as idle"
        basis = self.problem.wants.basis
        how = BASES[basis[index]] if basis else ""
        text = f"offered load {self.problem.load[index]:.3g} CPUs{how}"
        if missing := _unmet(self.problem, self.division.grants, index):
            text += f", of which {format_cpu(missing)} unmet"
        return text

    def _limit(self, index: int) -> str:
        """The innermost limit that keeps it from getting its next step."""
        limits, grants = self.problem.limits, self.division.grants
        grant = int(grants[index])
        if grant >= limits.ceiling[index]:
            if index in limits.capped:
                return f"at its ceiling of {format_cpu(grant)}"
            if not self.problem.wants.known[index]:
                return "has what it holds"
            if grant >= limits.total:
                return "has the whole budget"
            # Not even alone could it have its next step.
            return f"limited by the budget of {format_cpu(limits.total)}"
        size = int(next_step(limits, grants)[index]) - grant
        at_floor = f"at its floor of {format_cpu(grant)}, " if 0 < grant == limits.floor[index] else ""
        for cut in self.problem.space.cuts:
            if index in cut.members and cut.room - grants[cut.members].sum() < size:
                where = "node " if len(cut.nodes) == 1 else "nodes "
                return f"{at_floor}limited by what is free on {where}{', '.join(cut.nodes)}: {format_cpu(cut.room)}"
        for level in self.problem.space.tree:
            group = int(level.member[index])
            granted = int(grants[level.member == group].sum())
            if level.budget[group] - granted < size:
                name = f"group {level.names[group]}" if level.names[group] else "the budget"
                return f"{at_floor}limited by {name} of {format_cpu(int(level.budget[group]))}"
        return at_floor + "the budget is not used up"

    def _move(self, index: int) -> str:
        current, grants = self.problem.current, self.division.grants
        if current[index] < 0 or current[index] == grants[index]:
            return ""
        change = np.where(current >= 0, grants - current, 0)
        own = int(change[index])
        others = -change if own > 0 else change
        word = "from" if own > 0 else "to"
        partners = [int(i) for i in np.argsort(-others, kind="stable")[:3] if others[i] > 0]
        text = f"{'+' if own > 0 else '-'}{format_cpu(abs(own))}"
        names = self.problem.limits.names
        listed = ", ".join(f"{names[i]} ({format_cpu(int(others[i]))})" for i in partners)
        return f"{text} {word} {listed}" if listed else f"{text} {'out of' if own > 0 else 'into'} what is free"


def _unmet(problem: Problem, grants: Ints, index: int) -> int:
    return max(0, int(np.ceil(problem.wants.load[index] * MILLI - 1e-6)) - int(grants[index]))
