"""Finds what extends headgate: the built-in features and whatever is installed with an entry point `headgate`."""

from __future__ import annotations

from functools import cache

import pluggy

from headgate.core import hookspecs


@cache
def plugins() -> pluggy.PluginManager:
    """The plug-ins of this installation, loaded once."""
    manager = pluggy.PluginManager("headgate")
    manager.add_hookspecs(hookspecs)
    manager.load_setuptools_entrypoints("headgate")
    return manager
