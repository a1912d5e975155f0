"""What settings choose by name from what plug-ins offer: found, and its settings checked."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from headgate.controller.plugins import Plugins
from headgate.core.config import Document, Model, Path, SettingsError, field_name, validate
from headgate.core.demand import Estimator
from headgate.core.extensions import ExtensionSettings, SourceSettings
from headgate.core.hookspecs import EngineStep, EstimatorKind, Source, SourceKind, StepKind

Kind = SourceKind | EstimatorKind | StepKind
KINDS: Mapping[str, type[Kind]] = {
    "headgate_metric_sources": SourceKind,
    "headgate_demand_estimators": EstimatorKind,
    "headgate_engine_steps": StepKind,
}
"""By the hook that offers them."""

SOURCE_KEYS = frozenset(SourceSettings.model_fields)
"""Keys of an entry of `sources` that do not depend on its kind."""

K = TypeVar("K")


def find_kind(plugins: Plugins, document: Document, hook: str, name: str, expected: type[K], at: Path) -> tuple[str, K]:
    """What offers `name` through a hook, and the offer. Raises SettingsError that names the place `at`."""
    offers = plugins.named(hook)
    if name not in offers:
        raise unknown(document, name, offers, at)
    plugin, mapping = offers[name]
    place = document.place(at)
    try:
        kind = mapping[name]
    except ModuleNotFoundError as error:
        raise SettingsError(f"{place}: {name} cannot be used here: {error}") from None
    if not isinstance(kind, expected):
        raise SettingsError(f"{place}: plug-in {plugin} offers {name} as {type(kind).__name__}, no {expected.__name__}")
    return plugin, kind


def unknown(document: Document, name: str, known: Collection[str], at: Path) -> SettingsError:
    """That nobody offers `name`."""
    where = f"{document.place(at)}: {field_name(at)}" if at else document.place(at)
    return SettingsError(f"{where}: {name!r} is not known here; known: {', '.join(sorted(known)) or 'none'}")


def source_of(plugins: Plugins, document: Document, index: int, name: str) -> Callable[[Sequence[str]], Source]:
    """Opens the source that an entry of `sources` of the kind `name` describes, for pipelines. Raises SettingsError."""
    at: Path = ("sources", index)
    _, kind = find_kind(plugins, document, "headgate_metric_sources", name, SourceKind, (*at, "kind"))
    return partial(kind.open, own_settings(document, at, kind.settings, SOURCE_KEYS))


def estimator_of(
    plugins: Plugins, document: Document, settings: ExtensionSettings
) -> tuple[str, Callable[[Estimator], Estimator]] | None:
    """Whose estimator the settings choose, and how to wrap it around another. Both raise SettingsError."""
    if settings.estimator is None:
        return None
    at: Path = ("estimator",)
    plugin, kind = find_kind(
        plugins, document, "headgate_demand_estimators", settings.estimator.kind, EstimatorKind, at
    )
    spelled_out = replace(document, data={"estimator": settings.estimator.model_dump()})
    chosen = own_settings(spelled_out, at, kind.settings, {"kind"})

    def wrap(inner: Estimator) -> Estimator:
        try:
            return kind.build(chosen, inner)
        except Exception as error:
            raise SettingsError(f"{document.place(at)}: estimator: plug-in {plugin} cannot make it: {error}") from error

    return plugin, wrap


def step_of(plugins: Plugins, document: Document, name: str, at: Path) -> EngineStep:
    """The engine step called `name`, made from the settings at a path. Raises SettingsError."""
    plugin, kind = find_kind(plugins, document, "headgate_engine_steps", name, StepKind, (*at, "step"))
    settings = own_settings(document, at, kind.settings, {"step"})
    try:
        return kind.build(settings)
    except Exception as error:
        raise SettingsError(f"{document.place(at)}: step {name!r}: plug-in {plugin} cannot make it: {error}") from error


def own_settings(document: Document, at: Path, model: type[Model], common: Collection[str]) -> Model:
    """The keys at a path that are the kind's own, as its model. Raises SettingsError."""
    data: Any = document.data
    for part in at:
        data = data[part]
    own = {key: value for key, value in data.items() if key not in common}
    return validate(replace(document, data=_put(document.data, at, own)), model, at)


def _put(data: Any, at: Path, value: Any) -> Any:
    """`data` with `value` at the path `at`; what is beside it stays as it is."""
    if not at:
        return value
    if isinstance(data, Mapping):
        return {**data, at[0]: _put(data[at[0]], at[1:], value)}
    index = int(at[0])
    return [*data[:index], _put(data[index], at[1:], value), *data[index + 1 :]]
