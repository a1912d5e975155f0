"""The plug-ins as a deciding loop uses them: chosen by the settings, watched over, merged with what the loop knows."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any, TypeVar

from headgate.controller.feed import Feed
from headgate.controller.guard import Guard, HookFailed
from headgate.controller.guarded import GuardedEstimator, GuardedPolicy, verdict_on
from headgate.controller.plugins import BUILT_IN, Plugins
from headgate.core.config import Document, Model, Path, SettingsError, validate
from headgate.core.decision import Config, Decision
from headgate.core.demand import Estimator
from headgate.core.extensions import ExtensionSettings, Report, SourceSettings
from headgate.core.hookspecs import EngineStep, EstimatorKind, Source, SourceKind, StepKind
from headgate.core.model import Observation, Sample
from headgate.core.observation import Merged, Part, merge
from headgate.core.policies import Policy

log = logging.getLogger("headgate.plugins")

OWN = "own"
"""The name of the loop's own samples among the sources."""

K = TypeVar("K")


class LiveExtensions:
    """See Extensions. Sources read in threads of their own; other hooks run under one allowance of time per turn."""

    def __init__(
        self,
        plugins: Plugins,
        document: Document,
        settings: ExtensionSettings,
        pipelines: Sequence[str],
        interval: float,
    ) -> None:
        """Starts the sources. Raises SettingsError for what the settings name and nobody offers, or misspell."""
        try:
            self._plugins = plugins.without(settings.plugins.disable)
        except LookupError as error:
            raise SettingsError(f"{document.place(('plugins', 'disable'))}: plugins.disable: {error.args[0]}") from None
        self._document = document
        self._guard = Guard(min(settings.plugins.deadline, interval / 2))
        self._estimator = estimator_of(self._plugins, document, settings)
        self._feeds = self._open(settings.sources, pipelines)
        self._pipelines = tuple(pipelines)
        self._reviewers = self._plugins.hooks("headgate_review_decision")
        self._observers = self._plugins.hooks("headgate_decision_applied")
        for feed in self._feeds:
            feed.start()

    def config(self, config: Config) -> Config:
        """See Extensions."""
        self._guard.begin()
        config = replace(config, policy=self._policy(config.policy))
        if self._estimator is None:
            return config
        plugin, build = self._estimator
        try:
            estimator = build(config.estimator)
        except Exception as error:
            raise SettingsError(
                f"{self._document.place(('estimator',))}: estimator: plug-in {plugin} cannot make it: {error}"
            ) from error
        return replace(config, estimator=GuardedEstimator(plugin, estimator, self._guard))

    def _policy(self, policy: str | Policy) -> str | Policy:
        """A policy by name from whoever offers it; one that comes with headgate needs no watching."""
        offers = self._plugins.named("headgate_allocation_policies")
        if not isinstance(policy, str) or policy not in offers:
            return policy
        plugin, mapping = offers[policy]
        built_in = self._plugins[plugin].package == BUILT_IN
        return mapping[policy] if built_in else GuardedPolicy(policy, plugin, mapping[policy], self._guard)

    def follow(self, pipelines: Sequence[str]) -> None:
        """See Extensions."""
        self._pipelines = tuple(pipelines)
        for feed in self._feeds:
            feed.follow(self._pipelines)

    def observe(self, own: Mapping[str, Sample], now: float) -> Mapping[str, Sample]:
        """See Extensions."""
        self._guard.begin()
        if not self._feeds:
            return own
        for feed in self._feeds:
            feed.watch()
        return {name: found.sample for name, found in self.merged(now, own).items()}

    def merged(self, now: float, own: Mapping[str, Sample] = MappingProxyType({})) -> dict[str, Merged]:
        """The latest samples of all sources over `own`, with the origin of each field."""
        merged: dict[str, Merged] = {}
        for name in self._pipelines:
            parts = [part for feed in self._feeds for part in feed.parts(name, now)]
            if name in own:
                parts.append(Part(OWN, own[name], math.inf))
            if (found := merge(parts, now)) is not None:
                merged[name] = found
        return merged

    def review(self, decision: Decision, observation: Observation, config: Config) -> Decision | str:
        """See Extensions."""
        for hook in self._reviewers:
            look = partial(hook.call, decision=decision, observation=observation, config=config)
            try:
                verdict = self._guard.call(hook.plugin, hook.name, look, partial(verdict_on, decision, config))
            except HookFailed:
                continue  # it is on record; the decision stands as it is
            if isinstance(verdict, str):
                return f"plug-in {hook.plugin}: {verdict}"
            decision = verdict
        return decision

    def applied(self, decision: Decision) -> None:
        """See Extensions."""
        for hook in self._observers:
            self._guard.tell(hook.plugin, hook.name, partial(hook.call, decision=decision))

    def step(self, kind: str, document: Document, at: Path) -> EngineStep:
        """See Extensions."""
        plugin, chosen = find_kind(self._plugins, document, "headgate_engine_steps", kind, StepKind, (*at, "step"))
        settings = _validated(document, at, chosen.settings, {"step"})
        try:
            step: EngineStep = chosen.build(settings)
        except Exception as error:
            raise SettingsError(
                f"{document.place(at)}: step {kind!r}: plug-in {plugin} cannot make it: {error}"
            ) from error
        return step

    def report(self) -> Report:
        """See Extensions."""
        return Report(self._guard.failures(), {feed.name: feed.report() for feed in self._feeds})

    def close(self) -> None:
        """See Extensions."""
        for feed in self._feeds:
            feed.stop()
        self._guard.close()

    def _open(self, sources: Sequence[SourceSettings], pipelines: Sequence[str]) -> list[Feed]:
        feeds: dict[str, Feed] = {}
        for index, source in enumerate(sources):
            at = ("sources", index)
            _, kind = find_kind(
                self._plugins, self._document, "headgate_metric_sources", source.kind, SourceKind, (*at, "kind")
            )
            settings = _validated(self._document, at, kind.settings, set(SourceSettings.model_fields))
            if source.label in feeds or source.label == OWN:
                place = self._document.place(at)
                raise SettingsError(f"{place}: sources[{index}].name: {source.label!r} is taken: give it another name")
            opening: Callable[[Sequence[str]], Source] = partial(kind.open, settings)
            feeds[source.label] = Feed(source.label, opening, pipelines, every=source.every, stale=source.patience)
        return list(feeds.values())


def estimator_of(
    plugins: Plugins, document: Document, settings: ExtensionSettings
) -> tuple[str, Callable[[Estimator], Estimator]] | None:
    """Whose estimator the settings choose, and how to wrap it around another. Raises SettingsError."""
    if settings.estimator is None:
        return None
    at: Path = ("estimator",)
    plugin, kind = find_kind(
        plugins, document, "headgate_demand_estimators", settings.estimator.kind, EstimatorKind, at
    )
    spelled_out = replace(document, data={"estimator": settings.estimator.model_dump()})
    chosen = _validated(spelled_out, at, kind.settings, {"kind"})
    return plugin, partial(kind.build, chosen)


def find_kind(plugins: Plugins, document: Document, hook: str, name: str, expected: type[K], at: Path) -> tuple[str, K]:
    """What offers `name` through a hook, and the offer. Raises SettingsError that names the place `at`."""
    offers = plugins.named(hook)
    place = document.place(at)
    if name not in offers:
        raise SettingsError(f"{place}: {name!r} is not known here; known: {', '.join(sorted(offers)) or 'none'}")
    plugin, mapping = offers[name]
    try:
        kind = mapping[name]
    except ModuleNotFoundError as error:
        raise SettingsError(f"{place}: {name} cannot be used here: {error}") from None
    if not isinstance(kind, expected):
        raise SettingsError(f"{place}: plug-in {plugin} offers {name} as {type(kind).__name__}, no {expected.__name__}")
    return plugin, kind


def _validated(document: Document, at: Path, model: type[Model], common: set[str]) -> Model:
    """The keys at a path that are the kind's own, as its model."""
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
