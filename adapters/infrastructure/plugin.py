"""The built-in node providers, registered as anybody's plug-in registers its own. Their SDKs are loaded when opened."""

from __future__ import annotations

from collections.abc import Mapping

from headgate.adapters.infrastructure.aws import AwsProvider, AwsSettings
from headgate.adapters.infrastructure.aws import connect as connect_aws
from headgate.adapters.infrastructure.dry import DrySettings, open_dry
from headgate.adapters.infrastructure.settings import missing_extra
from headgate.core.config import Model
from headgate.core.hookspecs import ProviderKind, hookimpl
from headgate.core.providers import NodeProvider


@hookimpl
def headgate_node_providers() -> Mapping[str, ProviderKind]:
    """scale: Cluster API, Karpenter; aws: Auto Scaling groups; capacity: requests to the cluster's own autoscaler."""
    kinds = {"aws": ProviderKind(AwsSettings, _aws), "dry": ProviderKind(DrySettings, open_dry)}
    try:
        from headgate.adapters.infrastructure.capacity import CapacitySettings
        from headgate.adapters.infrastructure.scale import ScaleSettings
    except ImportError:
        # Without the extra `kubernetes` the kinds are known, and say what to install when one is opened.
        return kinds | {name: ProviderKind(Model, missing_extra(name, "kubernetes")) for name in ("scale", "capacity")}
    return kinds | {
        "scale": ProviderKind(ScaleSettings, _scale),
        "capacity": ProviderKind(CapacitySettings, _capacity),
    }


def _aws(settings: AwsSettings) -> NodeProvider:
    return AwsProvider(connect_aws(settings), settings.groups)


def _scale(settings: object) -> NodeProvider:
    from headgate.adapters.infrastructure.scale import ScaleProvider, ScaleSettings
    from headgate.adapters.kubernetes.api import Api, connect

    assert isinstance(settings, ScaleSettings)
    return ScaleProvider(Api(connect(settings.kubeconfig, settings.context)), settings.groups)


def _capacity(settings: object) -> NodeProvider:
    from headgate.adapters.infrastructure.capacity import CapacityProvider, CapacitySettings
    from headgate.adapters.kubernetes.api import Api, connect

    assert isinstance(settings, CapacitySettings)
    return CapacityProvider(Api(connect(settings.kubeconfig, settings.context)), settings.groups)
