"""The plug-ins of others in an installation, each loaded in a process of its own."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from headgate.controller.guard import Trouble
from headgate.controller.isolation.child import Task
from headgate.controller.isolation.process import GOODBYE, Child, Terms
from headgate.controller.plugins import BUILT_IN, Named, Plugin, built_in, installed, warn
from headgate.core.observation import Nonsense

log = logging.getLogger("headgate.plugins")

DECISIONS = "decisions"
"""The process of a plug-in that estimates, divides and reviews; others are of a source each, and of `APPLIED`."""
APPLIED = "applied"


class Isolated:
    """Plug-ins and their processes. One that cannot be loaded is listed with its error; the others go on.

    Each plug-in has one process for what decisions ask it, one for what it is told of them, and one for each source:
    so one that hangs holds up nothing else, and can be ended by itself.
    """

    def __init__(self, points: Iterable[Named], terms: Terms, memory: int | None) -> None:
        """Loads them all at the same time, and waits no longer than `terms.load`. `memory`: bytes for each process."""
        self._terms = terms
        self._memory = memory
        self._named = {each.name: each for each in points}
        self._children: dict[tuple[str, str], Child] = {}
        self._starts: Counter[tuple[str, str]] = Counter()
        """Of processes that others have taken the place of."""
        self._offers: dict[str, dict[str, str]] = {}
        self.plugins: dict[str, Plugin] = {}
        for each in self._named.values():
            if each.error is None:
                self.start(each.name, DECISIONS)
        for each in self._named.values():
            self.plugins[each.name] = plugin = self._loaded(each)
            if plugin.error is not None:
                warn(plugin)

    def _loaded(self, each: Named) -> Plugin:
        if each.error is not None:
            return each.plugin(error=each.error)
        child = self._children[each.name, DECISIONS]
        try:
            hello: Mapping[str, Any] = child.ready()
        except (Trouble, Nonsense) as error:
            return each.plugin(error=str(error))
        for hook, names in hello["offers"].items():
            own, offers = built_in().named(hook), self._offers.setdefault(hook, {})
            for name in names:
                if (whose := own[name][0] if name in own else offers.get(name)) is not None:
                    log.warning("plug-in %s, %s: %r is %s's already", each.name, hook, name, whose)
                else:
                    offers[name] = each.name
        return each.plugin(hello["hooks"], hello["error"])

    def offers(self, hook: str) -> Mapping[str, str]:
        """Whose is what the hook's implementations offer by name. The first to offer a name has it."""
        return self._offers.get(hook, {})

    def hooks(self, hook: str) -> list[str]:
        """Who implements a hook, in the order in which they are to be called."""
        return [plugin.name for plugin in self.plugins.values() if hook in plugin.hooks]

    def point(self, plugin: str) -> Named:
        """The entry point of a plug-in."""
        return self._named[plugin]

    def start(
        self, plugin: str, part: str, setup: tuple[str, tuple[Any, ...]] | None = None, patience: float = 0.0
    ) -> Child:
        """Another process of a plug-in, which begins with the call `setup`. Does not wait."""
        point = self._named[plugin].point
        task = Task(point.name, point.value, self._memory, () if setup is None else (setup,))
        terms = replace(self._terms, patience=max(patience, self._terms.patience))
        if (before := self._children.get((plugin, part))) is not None:
            self._starts[plugin, part] += before.starts
        self._children[plugin, part] = child = Child(task, terms)
        return child

    def decisions(self, plugin: str) -> Child:
        """The process of a plug-in that decisions ask. One that was released is started again, without waiting."""
        return self._children.get((plugin, DECISIONS)) or self.start(plugin, DECISIONS)

    def release(self, used: Iterable[str]) -> None:
        """End the processes for decisions of all plug-ins but those `used`."""
        for name in set(self.plugins) - set(used):
            if (child := self._children.pop((name, DECISIONS), None)) is not None:
                child.close()

    def starts(self) -> Mapping[tuple[str, str], int]:
        """How often each process was started, by plug-in and part."""
        return {key: self._starts[key] + child.starts for key, child in tuple(self._children.items())}

    def __iter__(self) -> Iterator[Plugin]:
        return iter(self.plugins.values())

    def hang_up(self) -> None:
        """Tell all processes to end."""
        for child in tuple(self._children.values()):
            child.hang_up()

    def close(self) -> None:
        """End all processes; those that do not end by themselves soon are ended by force."""
        self.hang_up()
        end = time.monotonic() + GOODBYE
        for child in tuple(self._children.values()):
            child.close(end)


def others(disabled: Iterable[str] = ()) -> list[Named]:
    """The entry points that do not come with headgate."""
    return [each for each in installed() if each.package != BUILT_IN and each.name not in set(disabled)]
