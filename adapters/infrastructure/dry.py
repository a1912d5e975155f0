"""A provider that records what it is asked for, for tries and tests: its machines come when told to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from pydantic import Field

from headgate.adapters.infrastructure.settings import GroupLimits
from headgate.core.config import Model
from headgate.core.providers import Conflict, Instance, InstanceState, NodeTemplate, ProviderGroup, Refused


class DryGroup(GroupLimits):
    """A group that exists only here."""

    size: int = Field(default=0, ge=0)


class DrySettings(Model):
    """Groups to try settings with."""

    groups: list[DryGroup]


def open_dry(settings: DrySettings) -> DryProvider:
    """A provider with the groups of `settings`."""
    provider = DryProvider.of(ProviderGroup(g.name, g.size, g.minimum, g.maximum) for g in settings.groups)
    provider.templates = {g.name: g.template.value() for g in settings.groups if g.template}
    return provider


@dataclass
class DryProvider:
    """Groups that exist only here. `calls` holds every change in the order in which it was asked for."""

    known: dict[str, ProviderGroup]
    templates: dict[str, NodeTemplate] = field(default_factory=dict)
    machines: dict[str, dict[str, Instance]] = field(default_factory=dict)
    calls: list[tuple[object, ...]] = field(default_factory=list)

    @classmethod
    def of(cls, groups: Iterable[ProviderGroup]) -> DryProvider:
        """A provider whose groups have their target's number of machines running."""
        provider = cls({group.name: group for group in groups})
        for group in provider.known.values():
            provider.machines[group.name] = {}
            provider._add(group.name, group.target)
            provider.arrive(group.name)
        return provider

    def groups(self) -> Sequence[ProviderGroup]:
        """As NodeProvider."""
        return list(self.known.values())

    def instances(self, group: str) -> Sequence[Instance]:
        """As NodeProvider."""
        self._group(group)
        return list(self.machines[group].values())

    def increase(self, group: str, count: int, *, seen: int) -> None:
        """As NodeProvider."""
        own = self._group(group)
        if own.target == seen + count:
            return
        self._compare(own, seen)
        if own.maximum is not None and own.target + count > own.maximum:
            raise Refused(f"{group} has a maximum of {own.maximum} machines, {own.target + count} were asked for")
        self.calls.append(("increase", group, count))
        self._add(group, count)
        self._resize(own, count)

    def delete(self, group: str, instances: Sequence[str]) -> None:
        """As NodeProvider."""
        own = self._group(group)
        known = self.machines[group]
        going = [n for n in dict.fromkeys(instances) if n in known and known[n].state is not InstanceState.DELETING]
        if own.target - len(going) < own.minimum:
            raise Refused(f"{group} has a minimum of {own.minimum} machines")
        if going:
            self.calls.append(("delete", group, *going))
        for name in going:
            known[name] = replace(known[name], state=InstanceState.DELETING)
        self._resize(own, -len(going))

    def cancel_pending(self, group: str, count: int, *, seen: int) -> int:
        """As NodeProvider."""
        own = self._group(group)
        if own.target == seen - count:
            return 0
        self._compare(own, seen)
        pending = [i.name for i in self.machines[group].values() if i.state is InstanceState.PENDING]
        going = pending[: min(count, own.target - own.minimum)]
        for name in going:
            del self.machines[group][name]
        if going:
            self.calls.append(("cancel_pending", group, len(going)))
        self._resize(own, -len(going))
        return len(going)

    def template(self, group: str) -> NodeTemplate | None:
        """As NodeProvider."""
        self._group(group)
        return self.templates.get(group)

    def arrive(self, group: str) -> None:
        """Let what is pending run and what is being deleted be gone."""
        self.machines[group] = {
            name: replace(machine, state=InstanceState.RUNNING, node=name)
            for name, machine in self.machines[group].items()
            if machine.state is not InstanceState.DELETING
        }

    def _add(self, group: str, count: int) -> None:
        taken = self.machines[group]
        free = (name for number in range(len(taken) + count + 1) if (name := f"{group}-{number}") not in taken)
        for name in [next(free) for _ in range(count)]:
            taken[name] = Instance(name, InstanceState.PENDING)

    def _group(self, group: str) -> ProviderGroup:
        if group not in self.known:
            raise Refused(f"there is no group {group}")
        return self.known[group]

    def _compare(self, own: ProviderGroup, seen: int) -> None:
        if own.target != seen:
            raise Conflict(f"{own.name} has {own.target} machines, the decision was made on {seen}")

    def _resize(self, own: ProviderGroup, by: int) -> None:
        self.known[own.name] = replace(own, target=own.target + by)
