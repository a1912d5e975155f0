"""The plug-ins of this installation for what runs once and beside no service: subcommands, and offline tools."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import cache

from headgate.controller.isolation.fleet import Isolated, others
from headgate.controller.isolation.process import Terms
from headgate.controller.plugins import Plugin, Plugins, built_in, installed, no_such
from headgate.core.policies import Policy

LOAD = 10.0
"""Seconds that a plug-in may take to be imported."""


def isolated(disabled: Iterable[str] = ()) -> Isolated:
    """Those of others in processes of their own; to be closed."""
    return Isolated(others(disabled), Terms(LOAD, LOAD), memory=None)


def listed(disabled: Iterable[str] = ()) -> list[Plugin]:
    """All plug-ins with what they implement; of others, those disabled are not loaded.

    Raises LookupError naming one that does not exist.
    """
    off = set(disabled)
    names = {each.name for each in installed()}
    for name in sorted(off - names):
        raise no_such(name, names)
    own = built_in()
    found = isolated(off)
    found.close()
    unseen = [replace(each.plugin(), enabled=False) for each in others() if each.name in off]
    theirs = sorted([*found, *unseen], key=lambda plugin: plugin.name)
    return [*own.without(off & {plugin.name for plugin in own}), *theirs]


@cache
def plugins() -> Plugins:
    """All of them in this process, but those whose import has been seen to fail or hang in another."""
    if not others():
        return built_in()
    found = isolated()
    found.close()
    sound = {plugin.name for plugin in found if plugin.error is None}
    own = {plugin.name for plugin in built_in()}
    return Plugins(each.point for each in installed() if each.name in own | sound)


def policies() -> dict[str, Policy]:
    """The allocation policies of this installation by name."""
    return _policies(plugins())


def find_policy(name: str) -> Policy:
    """The policy called `name`, a plug-in's included. Raises ValueError listing the known ones."""
    known = _policies(built_in())
    if name not in known:
        known = policies()
    if name not in known:
        raise ValueError(f"policy {name!r} is not known; known policies: {', '.join(known)}")
    return known[name]


def _policies(among: Plugins) -> dict[str, Policy]:
    offers = among.named("headgate_allocation_policies")
    return {name: mapping[name] for name, (_, mapping) in offers.items()}
