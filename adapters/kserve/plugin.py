"""Registers KServe as a host. The kubernetes client is loaded when the host is opened."""

from __future__ import annotations

from collections.abc import Mapping

from headgate.adapters.kserve.settings import KserveSettings
from headgate.core.config import SettingsError
from headgate.core.hookspecs import HostKind, hookimpl
from headgate.core.hosting import HostAdapter


@hookimpl
def headgate_host_adapters() -> Mapping[str, HostKind]:
    """kserve: InferenceServices and InferenceGraphs, by in-place resize of their pods."""
    return {"kserve": HostKind(KserveSettings, _open)}


def _open(settings: KserveSettings) -> HostAdapter:
    try:
        from headgate.adapters.kserve.adapter import KserveAdapter
        from headgate.adapters.kubernetes.api import Api, Rate, connect
    except ImportError as error:
        raise SettingsError(f"the host kserve needs `pip install headgate[kubernetes]`: {error}") from None
    rate = Rate(settings.rate, burst=max(1, int(2 * settings.rate)))
    return KserveAdapter(Api(connect(settings.kubeconfig, settings.context), settings.timeout, rate), settings)
