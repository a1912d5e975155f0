"""What a deciding loop knows of plug-ins: their settings, and one object that calls them and never fails or waits.

The loop is handed an Extensions and need not know how plug-ins are found and watched: that takes threads and a clock.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Protocol

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema

from headgate.core.config import Document, Model, Path, Seconds, SettingsError, Size
from headgate.core.decision import Config, Decision
from headgate.core.model import Observation, Sample

if TYPE_CHECKING:
    from headgate.core.hookspecs import EngineStep


class PluginSettings(Model):
    """Which plug-ins take part, and how long they may take."""

    disable: tuple[str, ...] = Field(default=(), description="Names as `headgate plugins` shows them")
    deadline: Annotated[Seconds, Field(gt=0)] = Field(
        default=0.2, description="What all plug-ins together may take of one decision; half the interval at the most"
    )
    isolate: bool = Field(
        default=True,
        description="Run plug-ins that do not come with headgate in processes of their own; false: in headgate's own, "
        "where one that hangs or runs out of memory takes everything with it",
    )
    memory: Size = Field(default=512 * 2**20, description="What each process of a plug-in may hold")
    load: Annotated[Seconds, Field(gt=0)] = Field(default=10.0, description="What a plug-in may take to be imported")
    patience: Annotated[Seconds, Field(gt=0)] = Field(
        default=5.0, description="A plug-in that has not answered a call for so long is ended and started anew"
    )


class SourceSettings(Model):
    """An entry of `sources`; what else it may say depends on its kind."""

    model_config = ConfigDict(extra="allow", frozen=True)

    kind: str = Field(description="prometheus, openmetrics, engine, bentoml, kubernetes, file, or a plug-in's")
    name: str | None = Field(default=None, description="In the log and the metrics; by default the kind")
    every: Annotated[Seconds, Field(gt=0)] = Field(default=15.0, description="Time between two reads")
    stale: Annotated[Seconds, Field(gt=0)] | None = Field(
        default=None, description="Age after which a sample says nothing any more; by default four times `every`"
    )

    @property
    def label(self) -> str:
        """Its name, or its kind."""
        return self.name or self.kind

    @property
    def patience(self) -> float:
        """Seconds after which a sample is stale."""
        return 4 * self.every if self.stale is None else self.stale


class EstimatorSettings(Model):
    """A demand estimator of a plug-in; what else it may say depends on its kind."""

    model_config = ConfigDict(extra="allow", frozen=True)

    kind: str


def _kind_alone(value: object) -> object:
    return {"kind": value} if isinstance(value, str) else value


class ExtensionSettings(Model):
    """The part of a settings file that concerns plug-ins."""

    plugins: PluginSettings = PluginSettings()
    sources: tuple[SourceSettings, ...] = Field(default=(), description="The first one that knows a field is believed")
    estimator: Annotated[
        EstimatorSettings | None,
        BeforeValidator(_kind_alone),
        WithJsonSchema({"type": ["string", "object"], "description": "A kind, or a mapping with a kind"}),
    ] = None


@dataclass(frozen=True, slots=True)
class SourceReport:
    """How a source does."""

    age: float | None
    """Seconds since it last answered; None: never."""
    reads: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)
    """By reason: raised, nonsense, late, busy, crashed, restarting."""
    problem: str | None = None
    """What is wrong with it now."""


@dataclass(frozen=True, slots=True)
class Report:
    """How plug-ins and sources do, for the status and the metrics."""

    failures: Mapping[tuple[str, str, str], int] = field(default_factory=dict)
    """By plug-in, hook and reason: raised, nonsense, late, busy, crashed, restarting."""
    sources: Mapping[str, SourceReport] = field(default_factory=dict)
    starts: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """How often a process was started, by plug-in and what the process is for."""


@dataclass(frozen=True, slots=True)
class Family:
    """A metric and its values, for whichever library serves it."""

    name: str
    """Without the `_total` of a counter."""
    text: str
    labels: tuple[str, ...]
    counts: bool
    """A counter; otherwise a gauge."""
    values: tuple[tuple[tuple[str, ...], float], ...]
    """Labels' values, and the metric's."""


def families(report: Report) -> tuple[Family, ...]:
    """A report as metrics, the same wherever plug-ins run."""
    sources = report.sources.items()
    return (
        Family(
            "headgate_plugin_failures",
            "Failed calls of plug-ins.",
            ("plugin", "hook", "reason"),
            True,
            tuple(sorted(report.failures.items())),
        ),
        Family(
            "headgate_plugin_starts",
            "Processes of plug-ins started.",
            ("plugin", "process"),
            True,
            tuple(sorted(report.starts.items())),
        ),
        Family(
            "headgate_source_age_seconds",
            "Since a source last answered.",
            ("source",),
            False,
            tuple(((name,), math.inf if source.age is None else source.age) for name, source in sources),
        ),
        Family(
            "headgate_source_reads",
            "Answers of a source.",
            ("source",),
            True,
            tuple(((name,), source.reads) for name, source in sources),
        ),
        Family(
            "headgate_source_failures",
            "Failed reads of a source.",
            ("source", "reason"),
            True,
            tuple(((name, why), n) for name, source in sources for why, n in sorted(source.failures.items())),
        ),
    )


class Extensions(Protocol):
    """All plug-ins, as a loop uses them. Nothing here raises on their account or waits longer than their deadline."""

    def config(self, config: Config) -> Config:
        """`config` with the estimator and the policy that the settings choose, watched over."""
        ...

    def follow(self, pipelines: Sequence[str]) -> None:
        """From now on the sources are to read these pipelines; what they last said of any that stay still counts."""
        ...

    def observe(self, own: Mapping[str, Sample], now: float) -> Mapping[str, Sample]:
        """The sources' latest samples merged over the loop's `own`, on the loop's clock. Begins a turn of the loop."""
        ...

    def review(self, decision: Decision, observation: Observation, config: Config) -> Decision | str:
        """The decision as adjusted, or why it is not to be put in force."""
        ...

    def applied(self, decision: Decision) -> None:
        """Tell those who want to know; does not wait for them."""
        ...

    def step(self, kind: str, document: Document, at: Path) -> EngineStep:
        """An EngineStep of a kind, from the settings at a path of the document. Raises SettingsError."""
        ...

    def report(self) -> Report:
        """How plug-ins and sources do."""
        ...

    def close(self) -> None:
        """Close the sources; one that hangs is not waited for longer than a second or two."""
        ...


class NoExtensions:
    """No plug-ins at all: every method gives back what it got."""

    def config(self, config: Config) -> Config:
        """See Extensions."""
        return config

    def follow(self, pipelines: Sequence[str]) -> None:
        """See Extensions."""

    def observe(self, own: Mapping[str, Sample], now: float) -> Mapping[str, Sample]:  # noqa: ARG002
        """See Extensions."""
        return own

    def review(self, decision: Decision, observation: Observation, config: Config) -> Decision | str:  # noqa: ARG002
        """See Extensions."""
        return decision

    def applied(self, decision: Decision) -> None:
        """See Extensions."""

    def step(self, kind: str, document: Document, at: Path) -> EngineStep:
        """See Extensions."""
        raise SettingsError(f"{document.place(at)}: step {kind!r} is not known: no plug-ins are loaded here")

    def report(self) -> Report:
        """See Extensions."""
        return Report()

    def close(self) -> None:
        """See Extensions."""
