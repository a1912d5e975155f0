"""The plug-ins as a deciding loop uses them: chosen by the settings, watched over, merged with what the loop knows."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any, TypeVar

from headgate.controller.feed import Feed
from headgate.controller.guard import Guard, HookFailed
from headgate.controller.plugins import Plugins
from headgate.core.allocation import Allocation
from headgate.core.config import Document, Model, Path, SettingsError, validate
from headgate.core.decision import Config, Decision
from headgate.core.demand import Estimator
from headgate.core.extensions import ExtensionSettings, Report, SourceSettings
from headgate.core.hookspecs import Adjustment, EngineStep, EstimatorKind, Source, SourceKind, StepKind, Veto
from headgate.core.model import Budget, Demand, Observation, Pipeline, Sample, Unknown
from headgate.core.observation import Merged, Nonsense, Part, merge
from headgate.core.units import MILLI, format_cpu

log = logging.getLogger("headgate.plugins")

OWN = "own"
"""The name of the loop's own samples among the sources."""
MOST_SCENARIOS = 10_000

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
        self._estimator = self._chosen_estimator(settings)
        self._feeds = self._open(settings.sources, pipelines)
        self._pipelines = tuple(pipelines)
        self._reviewers = self._plugins.hooks("headgate_review_decision")
        self._observers = self._plugins.hooks("headgate_decision_applied")
        for feed in self._feeds:
            feed.start()

    def config(self, config: Config) -> Config:
        """See Extensions."""
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

    def observe(self, own: Mapping[str, Sample], now: float) -> Mapping[str, Sample]:
        """See Extensions."""
        self._guard.begin()
        if not self._feeds:
            return own
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
                verdict = self._guard.call(hook.plugin, hook.name, look, partial(_verdict, decision, config))
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
        plugin, chosen = self._kind("headgate_engine_steps", kind, StepKind, (*at, "step"))
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
            _, kind = self._kind("headgate_metric_sources", source.kind, SourceKind, (*at, "kind"))
            settings = _validated(self._document, at, kind.settings, set(SourceSettings.model_fields))
            if source.label in feeds or source.label == OWN:
                place = self._document.place(at)
                raise SettingsError(f"{place}: sources[{index}].name: {source.label!r} is taken: give it another name")
            opening: Callable[[], Source] = partial(kind.open, settings, tuple(pipelines))
            feeds[source.label] = Feed(source.label, opening, pipelines, every=source.every, stale=source.patience)
        return list(feeds.values())

    def _chosen_estimator(self, settings: ExtensionSettings) -> tuple[str, Callable[[Estimator], Estimator]] | None:
        if settings.estimator is None:
            return None
        at: Path = ("estimator",)
        plugin, kind = self._kind("headgate_demand_estimators", settings.estimator.kind, EstimatorKind, at)
        data = settings.estimator.model_dump()
        document = replace(self._document, data={"estimator": data})
        chosen = _validated(document, at, kind.settings, {"kind"})
        return plugin, partial(kind.build, chosen)

    def _kind(self, hook: str, name: str, expected: type[K], at: Path) -> tuple[str, K]:
        offers = self._plugins.named(hook)
        place = self._document.place(at)
        if name not in offers:
            raise SettingsError(f"{place}: {name!r} is not known here; known: {', '.join(sorted(offers)) or 'none'}")
        plugin, mapping = offers[name]
        try:
            kind = mapping[name]
        except ModuleNotFoundError as error:
            raise SettingsError(f"{place}: {name} cannot be used here: {error}") from None
        if not isinstance(kind, expected):
            raise SettingsError(
                f"{place}: plug-in {plugin} offers {name} as {type(kind).__name__}, no {expected.__name__}"
            )
        return plugin, kind


@dataclass(frozen=True, slots=True)
class GuardedEstimator:
    """A plug-in's estimator. Where it fails, what was learned stays and the demand is unknown: nothing moves for it."""

    plugin: str
    inner: Estimator
    guard: Guard

    def update(self, state: Any, sample: Sample) -> Any:
        """See Estimator."""
        try:
            return self.guard.call(self.plugin, "update", partial(self.inner.update, state, sample), _anything)
        except HookFailed:
            return state

    def estimate(self, state: Any, now: float) -> Demand | Unknown:
        """See Estimator."""
        try:
            return self.guard.call(self.plugin, "estimate", partial(self.inner.estimate, state, now), _demand)
        except HookFailed as error:
            return Unknown(str(error))


def check_grants(grants: Mapping[str, int], pipelines: Sequence[Pipeline], budget: Budget) -> None:
    """Raise Nonsense unless `grants` keeps every floor and ceiling, and the total."""
    for pipeline in pipelines:
        grant = grants.get(pipeline.name)
        ceiling = budget.total if pipeline.ceiling is None else pipeline.ceiling
        if isinstance(grant, bool) or not isinstance(grant, int):
            raise Nonsense(f"grants {pipeline.name} {grant!r}: an integer of millicores belongs there")
        if not pipeline.floor <= grant <= ceiling:
            limits = f"{format_cpu(pipeline.floor)} to {format_cpu(ceiling)}"
            raise Nonsense(f"grants {pipeline.name} {format_cpu(grant)}, outside of {limits}")
    most = budget.total - budget.reserve
    if sum(grants.values()) > most:
        raise Nonsense(f"grants {format_cpu(sum(grants.values()))} of a budget of {format_cpu(most)}")


def _anything(value: Any) -> Any:
    return value


def _demand(value: Any) -> Demand | Unknown:
    if isinstance(value, Unknown):
        return value
    if not isinstance(value, Demand):
        raise Nonsense(f"returned {type(value).__name__} where a Demand or Unknown belongs")
    if not 0 < len(value.arrival_rates) <= MOST_SCENARIOS:
        raise Nonsense(f"returned {len(value.arrival_rates)} scenarios; 1 to {MOST_SCENARIOS} make sense")
    numbers = (*value.arrival_rates, value.cpu_seconds_per_request, value.service_cv, value.queue)
    if not all(isinstance(number, (int, float)) and math.isfinite(number) and number >= 0 for number in numbers):
        raise Nonsense("returned a Demand with numbers that are not finite or below 0")
    return value


def _verdict(decision: Decision, config: Config, value: Any) -> Decision | str:
    if value is None:
        return decision
    if isinstance(value, Veto):
        return str(value.reason)[:300]
    if not isinstance(value, Adjustment):
        raise Nonsense(f"returned {type(value).__name__} where a Veto, an Adjustment or None belongs")
    old = decision.allocation
    if unknown := sorted(set(value.grants) - set(old.grants)):
        raise Nonsense(f"grants {', '.join(map(repr, unknown))}, no pipeline of the settings")
    grants = {**old.grants, **value.grants}
    check_grants(grants, config.pipelines, config.budget)
    reasons = {**old.reasons, **dict.fromkeys(value.grants, str(value.reason)[:300])}
    return replace(decision, allocation=_with_grants(old, decision, grants, reasons))


def _with_grants(
    old: Allocation, decision: Decision, grants: Mapping[str, int], reasons: Mapping[str, str]
) -> Allocation:
    loads = {n: d.offered_load * MILLI if isinstance(d, Demand) else 0.0 for n, d in decision.demands.items()}
    unmet = {name: max(0, math.ceil(loads.get(name, 0.0) - 1e-6) - grant) for name, grant in grants.items()}
    return replace(old, grants=grants, reasons=reasons, unmet=unmet)


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
