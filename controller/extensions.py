"""The plug-ins as a deciding loop uses them: chosen by the settings, watched over, merged with what the loop knows."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any

from headgate.controller.feed import Feed, most_samples, overdue_after
from headgate.controller.guard import Guard, HookFailed, Trouble
from headgate.controller.guarded import GuardedEstimator, GuardedPolicy, answered, verdict_on
from headgate.controller.isolation.fleet import APPLIED, Isolated, others
from headgate.controller.isolation.process import GOODBYE, Child, Terms
from headgate.controller.isolation.proxies import RemoteEstimator, RemoteSource, remote_policy
from headgate.controller.kinds import estimator_of, source_of, step_of, unknown
from headgate.controller.plugins import BUILT_IN, Plugins, built_in, installed, no_such
from headgate.core.config import Document, Path, SettingsError
from headgate.core.decision import Config, Decision
from headgate.core.demand import Estimator
from headgate.core.extensions import ExtensionSettings, PluginSettings, Report, SourceSettings
from headgate.core.hookspecs import EngineStep, Source
from headgate.core.model import Observation, Sample
from headgate.core.observation import Merged, Nonsense, Part, merge
from headgate.core.policies import Policy

OWN = "own"
"""The name of the loop's own samples among the sources."""

SOURCES, ESTIMATORS, POLICIES = (
    "headgate_metric_sources",
    "headgate_demand_estimators",
    "headgate_allocation_policies",
)
REVIEW, HEAR = "headgate_review_decision", "headgate_decision_applied"

HEARING = 30.0
"""Seconds that who hears of a decision may take: it may do IO, and nobody waits."""


class LiveExtensions:
    """See Extensions. Plug-ins of others run in processes of their own, unless the settings have them in this one.

    Sources are read by threads of their own; other hooks are called under one allowance of time per turn.
    """

    def __init__(
        self, document: Document, settings: ExtensionSettings, pipelines: Sequence[str], interval: float
    ) -> None:
        """Starts the sources. Raises SettingsError for what the settings name and nobody offers, or misspell."""
        self._document = document
        self._settings = settings
        self._pipelines = tuple(pipelines)
        self._guard = Guard(min(settings.plugins.deadline, interval / 2))
        self._plain: Config | None = None
        """The last one without what plug-ins make of it."""
        self._asked: set[str] = set()
        self._own, self._isolated = _chosen(document, settings.plugins)
        try:
            self._wrap = self._wrapping()
            self._feeds = self._open(settings.sources)
            self._reviewers = self._reviewing()
            self._observers = self._observing()
        except BaseException:
            self._isolated.close()
            raise
        for feed in self._feeds:
            feed.start()

    def config(self, config: Config) -> Config:
        """See Extensions."""
        self._plain = config
        watched = replace(config, policy=self._policy(config.policy), estimator=self._wrap(config.estimator))
        self._isolated.release(self._asked)
        self._guard.begin()
        return watched

    def _policy(self, policy: str | Policy) -> str | Policy:
        """A policy by name from whoever offers it; one that comes with headgate needs no watching."""
        offers = self._own.named(POLICIES)
        if not isinstance(policy, str):
            return policy
        if policy in offers:
            plugin, mapping = offers[policy]
            inner: Policy = mapping[policy]
            if self._own[plugin].package == BUILT_IN:
                return inner
            return GuardedPolicy(policy, plugin, lambda problem, _: answered(inner, problem), self._guard)
        if (whose := self._isolated.offers(POLICIES).get(policy)) is None:
            return policy
        return GuardedPolicy(policy, whose, remote_policy(self._asking(whose), policy), self._guard)

    def _wrapping(self) -> Callable[[Estimator], Estimator]:
        """What the settings make of an estimator. Raises SettingsError, also when it is called."""
        chosen, at = self._settings.estimator, ("estimator",)
        if chosen is None:
            return lambda inner: inner
        if (whose := self._whose(ESTIMATORS, chosen.kind, at)) is None:
            found = estimator_of(self._own, self._document, self._settings)
            assert found is not None
            return lambda inner: GuardedEstimator(found[0], found[1](inner), self._guard)

        made: list[tuple[Estimator, Estimator]] = []

        def remote(inner: Estimator) -> Estimator:
            if made and made[-1][0] == inner:
                return made[-1][1]
            child = self._asking(whose)
            try:
                child.setup("estimator", self._document, self._settings, inner)
            except (Trouble, Nonsense) as error:
                place = self._document.place(at)
                raise SettingsError(f"{place}: estimator: plug-in {whose} cannot make it: {error}") from None
            made[:] = [(inner, RemoteEstimator(whose, child, self._guard))]
            return made[-1][1]

        return remote

    def _asking(self, plugin: str) -> Child:
        """The process of a plug-in that decisions ask; it is wanted from now on."""
        self._asked.add(plugin)
        return self._isolated.decisions(plugin)

    def _whose(self, hook: str, name: str, at: Path) -> str | None:
        """Which plug-in in a process of its own offers `name`; None: one in this process. Raises SettingsError."""
        own, isolated = self._own.named(hook), self._isolated.offers(hook)
        if name in own:
            return None
        if name in isolated:
            return isolated[name]
        absent = [f"; plug-in {p.name} takes no part: {p.error}" for p in self._isolated if p.error is not None]
        raise SettingsError(f"{unknown(self._document, name, {*own, *isolated}, at)}{''.join(absent)}")

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
        # Those that are watched over hold processes; a plug-in is shown what they were made of.
        plain = replace(config, policy=self._plain.policy, estimator=self._plain.estimator) if self._plain else config
        for plugin, hook in self._reviewers:
            look = partial(hook, decision, observation, plain)
            try:
                verdict = self._guard.call(plugin, REVIEW, look, partial(verdict_on, decision, config))
            except HookFailed:
                continue  # it is on record; the decision stands as it is
            if isinstance(verdict, str):
                return f"plug-in {plugin}: {verdict}"
            decision = verdict
        return decision

    def applied(self, decision: Decision) -> None:
        """See Extensions."""
        # What is left of the turn's allowance is not theirs: they are told, not asked.
        self._guard.begin()
        for plugin, hook in self._observers:
            try:
                self._guard.call(plugin, HEAR, partial(hook, decision), lambda answer: answer)
            except HookFailed:
                continue

    def step(self, kind: str, document: Document, at: Path) -> EngineStep:
        """See Extensions."""
        offers = self._isolated.offers("headgate_engine_steps")
        if kind in self._own.named("headgate_engine_steps") or kind not in offers:
            return step_of(self._own, document, kind, at)
        # A step runs within requests, in this process; that its plug-in can be imported has been seen in another.
        return step_of(Plugins([self._isolated.point(offers[kind]).point]), document, kind, at)

    def report(self) -> Report:
        """See Extensions."""
        sources = {feed.name: feed.report() for feed in self._feeds}
        return Report(self._guard.failures(), sources, self._isolated.starts())

    def close(self) -> None:
        """See Extensions."""
        for feed in self._feeds:
            feed.stop()
        self._isolated.hang_up()
        end = time.monotonic() + GOODBYE
        for feed in self._feeds:
            feed.join(end)
        self._isolated.close()

    def _reviewing(self) -> list[tuple[str, Callable[[Decision, Observation, Config, float], Any]]]:
        """Who reviews decisions, and how to ask, with a time until when to wait."""

        def here(call: Callable[..., Any], d: Decision, o: Observation, c: Config, _until: float) -> Any:
            return call(decision=d, observation=o, config=c)

        def there(child: Child, d: Decision, o: Observation, c: Config, until: float) -> Any:
            return child.call("review", d, o, c, until=until)

        own = [(hook.plugin, partial(here, hook.call)) for hook in self._own.hooks(REVIEW)]
        isolated = self._isolated.hooks(REVIEW)
        return [*own, *((plugin, partial(there, self._asking(plugin))) for plugin in isolated)]

    def _observing(self) -> list[tuple[str, Callable[[Decision, float], Any]]]:
        """Who hears of decisions, and how to tell."""

        def here(call: Callable[..., Any], decision: Decision, _until: float) -> Any:
            return call(decision=decision)

        def there(child: Child, decision: Decision, until: float) -> None:
            child.tell("applied", decision, until=until)

        own = [(hook.plugin, partial(here, hook.call)) for hook in self._own.hooks(HEAR)]
        isolated = self._isolated.hooks(HEAR)
        return [
            *own,
            *((plugin, partial(there, self._isolated.start(plugin, APPLIED, patience=HEARING))) for plugin in isolated),
        ]

    def _open(self, sources: Sequence[SourceSettings]) -> list[Feed]:
        feeds: dict[str, Feed] = {}
        for index, source in enumerate(sources):
            if source.label in feeds or source.label == OWN:
                place = self._document.place(("sources", index))
                raise SettingsError(f"{place}: sources[{index}].name: {source.label!r} is taken: give it another name")
            opening = self._opening(source, index)
            feed = Feed(source.label, opening, self._pipelines, every=source.every, stale=source.patience)
            feeds[source.label] = feed
        return list(feeds.values())

    def _opening(self, source: SourceSettings, index: int) -> Callable[[Sequence[str]], Source]:
        """How to open an entry of `sources` for pipelines. Raises SettingsError."""
        at: Path = ("sources", index)
        whose = self._whose(SOURCES, source.kind, (*at, "kind"))
        if whose is None:
            return source_of(self._own, self._document, index, source.kind)
        entry, isolated = (self._document, index, source.kind), self._isolated
        try:
            isolated.decisions(whose).call("source", *entry, (), 0, until=None)
        except (Trouble, Nonsense) as error:
            raise SettingsError(f"{self._document.place(at)}: sources[{index}]: plug-in {whose}: {error}") from None

        def opening(pipelines: Sequence[str]) -> Source:
            setup = "source", (*entry, tuple(pipelines), most_samples(pipelines) + 1)
            return RemoteSource(isolated.start(whose, f"source {source.label}", setup, overdue_after(source.every)))

        return opening


def _chosen(document: Document, settings: PluginSettings) -> tuple[Plugins, Isolated]:
    """The plug-ins in this process and those in their own. Raises SettingsError for a name that nobody has."""
    names = {each.name for each in installed()}
    for name in settings.disable:
        if name not in names:
            place = document.place(("plugins", "disable"))
            raise SettingsError(f"{place}: plugins.disable: {no_such(name, names)}")
    terms = Terms(settings.load, settings.patience)
    if settings.isolate:
        own = built_in()
        disabled = [name for name in settings.disable if any(plugin.name == name for plugin in own)]
        return own.without(disabled), Isolated(others(settings.disable), terms, settings.memory)
    return Plugins(each.point for each in installed()).without(settings.disable), Isolated((), terms, None)
