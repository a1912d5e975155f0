"""Where metrics are read from. The kinds are registered as anybody's plug-in registers its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module

from headgate.core.hookspecs import SourceKind, hookimpl

_KINDS = {
    "prometheus": ("prometheus", "PrometheusSettings", "PrometheusSource", "prometheus"),
    "openmetrics": ("scrape", "ScrapeSettings", "Scrape", "openmetrics"),
    "engine": ("recipes", "EngineSettings", "Scrape", "openmetrics"),
    "bentoml": ("recipes", "BentoSettings", "Scrape", "openmetrics"),
    "kubernetes": ("kubernetes", "KubernetesSettings", "KubernetesSource", "kubernetes"),
    "file": ("file", "FileSettings", "FileSource", "file"),
}


class _Kinds(Mapping[str, SourceKind]):
    """Imports a kind when it is asked for: each needs packages that an installation may well do without."""

    def __getitem__(self, name: str) -> SourceKind:
        module, settings, source, extra = _KINDS[name]
        try:
            loaded = import_module(f"{__name__}.{module}")
        except ModuleNotFoundError as error:
            hint = f"the package {error.name} is missing: pip install 'headgate[{extra}]'"
            raise ModuleNotFoundError(hint, name=error.name) from None
        return SourceKind(getattr(loaded, settings), getattr(loaded, source))

    def __iter__(self) -> Iterator[str]:
        return iter(_KINDS)

    def __len__(self) -> int:
        return len(_KINDS)


@hookimpl
def headgate_metric_sources() -> Mapping[str, SourceKind]:
    """Prometheus, metrics pages, the Kubernetes metrics API and files."""
    return _Kinds()
