"""Finds what extends headgate: the built-in features and whatever is installed with an entry point `headgate`."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pluggy

from headgate.controller.guard import brief
from headgate.core import hookspecs

log = logging.getLogger("headgate.plugins")

GROUP = "headgate"
BUILT_IN = "headgate"
"""The package whose plug-ins come with headgate."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """What is known of one entry point."""

    name: str
    package: str
    version: str
    hooks: tuple[str, ...] = ()
    enabled: bool = True
    error: str | None = None
    """Why it takes no part."""


@dataclass(frozen=True, slots=True)
class Hook:
    """One plug-in's implementation of a hook."""

    plugin: str
    name: str
    call: Callable[..., Any]
    """Takes all of the hook's arguments by name, whichever of them the plug-in asks for."""


@dataclass(frozen=True, slots=True)
class Named:
    """An entry point with the name that it goes by here."""

    point: EntryPoint
    name: str
    package: str
    version: str
    error: str | None = None
    """Why it cannot have its own name."""

    def plugin(self, hooks: Iterable[str] = (), error: str | None = None) -> Plugin:
        """It, with the hooks that it implements or why it takes no part."""
        hooks = () if error else tuple(sorted(hooks))
        return Plugin(self.name, self.package, self.version, hooks, enabled=error is None, error=error)


def named(points: Iterable[EntryPoint]) -> list[Named]:
    """Entry points by name; built-in features first, so that nobody can take their names."""
    found: dict[str, Named] = {}
    for point in sorted(points, key=lambda point: (_origin(point)[0] != BUILT_IN, point.name)):
        package, version = _origin(point)
        name, error = point.name, None
        if name in found:
            name = f"{package}:{name}"
            error = f"{point.name!r} is the name of another plug-in, from {found[point.name].package}"
        found[name] = Named(point, name, package, version, error)
    return list(found.values())


class Plugins:
    """Plug-ins in this process. One that cannot be loaded is listed with its error; the others go on."""

    def __init__(self, points: Iterable[EntryPoint]) -> None:
        self._manager = pluggy.PluginManager(GROUP)
        self._manager.add_hookspecs(hookspecs)
        self._found: dict[str, Plugin] = {}
        for each in named(points):
            error = each.error or self._register(each.point)
            self._found[each.name] = each.plugin(() if error else _hooks(self._manager, each.name), error)
            if error is not None:
                warn(self._found[each.name])

    def _register(self, point: EntryPoint) -> str | None:
        try:
            loaded = point.load()
            known = {name for name in vars(hookspecs) if name.startswith("headgate_")}
            for name, member in inspect.getmembers(loaded):
                options = getattr(member, "headgate_impl", None)
                if options is not None and name not in known:
                    return f"there is no hook {name}"
                if options is not None and (options["wrapper"] or options["hookwrapper"]):
                    return f"{name}: wrappers of hooks are not supported"
            self._manager.register(loaded, point.name)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            self._manager.unregister(name=point.name) if self._manager.has_plugin(point.name) else None
            return brief(error)
        return None

    def without(self, disabled: Iterable[str]) -> Plugins:
        """The same with some plug-ins disabled. Raises LookupError naming one that does not exist."""
        rest = object.__new__(Plugins)
        rest._manager, rest._found = self._manager, dict(self._found)
        for name in disabled:
            if name not in self._found:
                raise no_such(name, self._found)
            plugin = self._found[name]
            rest._found[name] = Plugin(plugin.name, plugin.package, plugin.version, plugin.hooks, False, plugin.error)
        return rest

    def __iter__(self) -> Iterator[Plugin]:
        """All that were found, built-in ones first."""
        return iter(self._found.values())

    def __getitem__(self, name: str) -> Plugin:
        return self._found[name]

    def hooks(self, name: str) -> list[Hook]:
        """Who implements the hook `name`, in the order in which they are to be called."""
        caller: pluggy.HookCaller = getattr(self._manager.hook, name)
        return [
            Hook(impl.plugin_name, name, _by_name(impl))
            for impl in reversed(caller.get_hookimpls())
            if self._found[impl.plugin_name].enabled
        ]

    def named(self, hook: str) -> Mapping[str, tuple[str, Any]]:
        """All that a hook's implementations offer by name, and whose each is. The first to offer a name has it."""
        offers: dict[str, tuple[str, Any]] = {}
        for found in reversed(self.hooks(hook)):
            try:
                mapping = found.call()
                names = list(mapping)
            except Exception as error:  # noqa: BLE001 - one plug-in's trouble is not the others'
                log.warning("plug-in %s, %s: %s", found.plugin, hook, brief(error))
                continue
            for name in names:
                if name in offers:
                    log.warning("plug-in %s, %s: %r is %s's already", found.plugin, hook, name, offers[name][0])
                else:
                    offers[name] = (found.plugin, mapping)
        return offers


def warn(plugin: Plugin) -> None:
    """Say in the log why a plug-in takes no part."""
    log.warning("plug-in %s of %s %s takes no part: %s", plugin.name, plugin.package, plugin.version, plugin.error)


def no_such(name: str, known: Iterable[str]) -> LookupError:
    """What to raise for a plug-in that does not exist."""
    return LookupError(f"there is no plug-in {name!r}; installed: {', '.join(sorted(known))}")


def _origin(point: EntryPoint) -> tuple[str, str]:
    return (point.dist.name, point.dist.version) if point.dist else ("?", "?")


def _hooks(manager: pluggy.PluginManager, name: str) -> list[str]:
    return [caller.name for caller in manager.get_hookcallers(manager.get_plugin(name)) or ()]


def _by_name(impl: pluggy.HookImpl) -> Callable[..., Any]:
    return lambda **given: impl.function(*(given[name] for name in impl.argnames))


@cache
def installed() -> tuple[Named, ...]:
    """All entry points of this installation; nothing is imported."""
    return tuple(named(entry_points(group=GROUP)))


@cache
def built_in() -> Plugins:
    """The plug-ins that come with headgate."""
    return Plugins(each.point for each in installed() if each.package == BUILT_IN)
