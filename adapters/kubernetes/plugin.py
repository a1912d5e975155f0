"""Registers the home `kubernetes`. The kubernetes client is loaded when it is opened."""

from __future__ import annotations

from collections.abc import Mapping

from headgate.adapters.kubernetes.settings import KubernetesHomeSettings
from headgate.core.config import SettingsError
from headgate.core.hookspecs import HomeKind, hookimpl
from headgate.core.hosting import Home


@hookimpl
def headgate_homes() -> Mapping[str, HomeKind]:
    """kubernetes: the controller runs in a cluster, or beside one."""
    return {"kubernetes": HomeKind(KubernetesHomeSettings, _open)}


def _open(settings: KubernetesHomeSettings) -> Home:
    try:
        from headgate.adapters.kubernetes.home import open_home
    except ImportError as error:
        raise SettingsError(f"the home kubernetes needs `pip install headgate[kubernetes]`: {error}") from None
    return open_home(settings)
