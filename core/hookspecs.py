"""The whole extension API on one page. A plug-in implements any of these and is found by the entry point `headgate`.

    # pyproject.toml of the plug-in
    [project.entry-points.headgate]
    queue-length = "queue_length"          # a module, or an object, with functions marked @hookimpl

Functions may leave out arguments that they do not use. What a hook raises, returns too late or returns nonsense is
isolated: named in the log and the metrics, and headgate goes on with what it knows. docs/plugins has a page and a
runnable example for each hook.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pluggy
from numpy.typing import NDArray

from headgate.core.config import Document, Model
from headgate.core.decision import Config, Decision
from headgate.core.demand import Estimator
from headgate.core.extensions import Extensions, ExtensionSettings
from headgate.core.hosting import Home, HostAdapter
from headgate.core.model import Observation, Sample
from headgate.core.policies import Policy
from headgate.core.providers import NodeProvider
from headgate.core.serving import InferenceEngine

hookspec = pluggy.HookspecMarker("headgate")
hookimpl = pluggy.HookimplMarker("headgate")

# Metric sources ------------------------------------------------------------------------------------------------------


class SourceError(RuntimeError):
    """Why a source cannot be read, in words for people and without credentials. Other exceptions show their type."""


class Source(Protocol):
    """A place that metrics are read from, with its own connection and life. It lives in a thread of its own.

    It may block and fail: while it does, its last samples grow old, and once stale they are no longer used.
    """

    def read(self, now: float) -> Iterable[Sample]:
        """What is known of any of the pipelines; `now` and the samples' times are in seconds since 1970.

        One query for all pipelines, where the place allows it. A sample may know a few of its fields only, and a
        pipeline of which nothing is known is left out: that is not 0. What was yielded before an exception counts.
        """
        ...

    def close(self) -> None:
        """Give up the connection. Called once, from the thread that reads."""
        ...


@dataclass(frozen=True, slots=True)
class SourceKind:
    """How to open a kind of source from its part of the settings."""

    settings: type[Model]
    """The keys that an entry of `sources:` may have besides kind, name, every and stale."""
    open: Callable[[Any, Sequence[str]], Source]
    """From an instance of `settings` and the pipelines' names. Called in the source's thread, again if it raised."""


@hookspec
def headgate_metric_sources() -> Mapping[str, SourceKind]:  # type: ignore[empty-body]
    """Kinds of metric sources by the name that `sources: [{kind: NAME}]` gives them."""


# Demand estimators ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EstimatorKind:
    """How to make an estimator, mostly by wrapping the one that would be used without it."""

    settings: type[Model]
    build: Callable[[Any, Estimator], Estimator]
    """From an instance of `settings` and the estimator to wrap. The result is a value: no clock, no IO."""


@hookspec
def headgate_demand_estimators() -> Mapping[str, EstimatorKind]:  # type: ignore[empty-body]
    """Demand estimators by the name that `estimator: {kind: NAME}` gives them."""


# Allocation policies -------------------------------------------------------------------------------------------------


@hookspec
def headgate_allocation_policies() -> Mapping[str, Policy]:  # type: ignore[empty-body]
    """Policies by the name that `policy: NAME` gives them; `core/policies` has the contract and the built-in ones.

    A policy says what it makes as large as it can; for another objective under SLOs alone, `SloPolicy` takes one. A
    division that breaks a limit is nonsense; the grants that are in force then stay.
    """


# Decisions -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Veto:
    """The decision is not put in force; what is in force stays."""

    reason: str


@dataclass(frozen=True, slots=True)
class Adjustment:
    """Other grants for some pipelines. All limits still hold: one that breaks them is nonsense and has no effect."""

    grants: Mapping[str, int]
    """Millicores by pipeline; the rest keep what was decided."""
    reason: str


@hookspec
def headgate_review_decision(decision: Decision, observation: Observation, config: Config) -> Veto | Adjustment | None:
    """Look at a decision before it is put in force. Each plug-in sees what the ones before it have adjusted."""


@hookspec
def headgate_decision_applied(decision: Decision) -> None:
    """A decision is in force. Nobody waits for this: it may do IO, and it misses the decisions that fall into it."""


# The engine ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tensor:
    """Name, Open Inference Protocol datatype ("FP32", "INT64", "BYTES") and shape (None: any size) of a tensor."""

    name: str
    datatype: str
    shape: tuple[int | None, ...] | None = None


class EngineStep(Protocol):
    """Pre- or post-processing within a pipeline of the engine. Used by several threads at a time."""

    @property
    def inputs(self) -> Sequence[Tensor]:
        """What it takes: what the request brings, or the outputs of the step before."""
        ...

    @property
    def outputs(self) -> Sequence[Tensor]:
        """What it gives to the next step, or to the answer."""
        ...

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        """All of `outputs` for `inputs`. It runs at the expense of its pipeline; what it raises answers 500."""
        ...


@dataclass(frozen=True, slots=True)
class EngineKind:
    """How to run an engine inside a serving framework's process."""

    settings: type[Model]
    """Of the settings file, the whole of it."""
    open: Callable[[Any, Document, CommandLine], InferenceEngine]
    """From an instance of `settings` and the document that it is of: with the models loaded and at work. Raises
    SettingsError."""


@hookspec
def headgate_engines() -> Mapping[str, EngineKind]:  # type: ignore[empty-body]
    """Engines by the name under which a serving framework's adapter asks for one; core/serving.py is the contract."""


@dataclass(frozen=True, slots=True)
class StepKind:
    """How to make a step from its part of the settings."""

    settings: type[Model]
    build: Callable[[Any], EngineStep]


@hookspec
def headgate_engine_steps() -> Mapping[str, StepKind]:  # type: ignore[empty-body]
    """Steps by the name that `steps: [{step: NAME}]` gives them."""


# Hosts and nodes -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HostKind:
    """How to reach a kind of host; `core/hosting.py` is the contract of what it opens."""

    settings: type[Model]
    open: Callable[[Any], HostAdapter]


@hookspec
def headgate_host_adapters() -> Mapping[str, HostKind]:  # type: ignore[empty-body]
    """Serving frameworks by name."""


@dataclass(frozen=True, slots=True)
class HomeKind:
    """How to reach a place that the controller runs in; `core/hosting.py` is the contract of what it opens."""

    settings: type[Model]
    open: Callable[[Any], Home]


@hookspec
def headgate_homes() -> Mapping[str, HomeKind]:  # type: ignore[empty-body]
    """Where the controller may run, by name: who leads, where the budgets come from, where state and reports go."""


@dataclass(frozen=True, slots=True)
class ProviderKind:
    """How to reach a kind of infrastructure; `core/providers.py` is the contract of what it opens."""

    settings: type[Model]
    open: Callable[[Any], NodeProvider]


@hookspec
def headgate_node_providers() -> Mapping[str, ProviderKind]:  # type: ignore[empty-body]
    """Infrastructures that nodes can be had from, by name."""


# The command line ----------------------------------------------------------------------------------------------------


class CommandLine(Protocol):
    """What a plug-in's subcommand may use of the command line that it joins."""

    def read(self, path: str) -> Document:
        """The parsed settings file at `path` ("-": standard input). Raises SettingsError."""
        ...

    def engine(self, kind: str, document: Document) -> InferenceEngine:
        """An engine of `kind` at work as the document says. Raises SettingsError; close() it in the end."""
        ...

    def extensions(
        self, document: Document, settings: ExtensionSettings, pipelines: Sequence[str], interval: float
    ) -> Extensions:
        """The plug-ins as a loop of `interval` seconds uses them. Raises SettingsError; close() it in the end."""
        ...


@hookspec
def headgate_register_commands(cli: object) -> None:
    """Add subcommands to `headgate`: `cli` is its `click.Group`; `click.pass_obj` gives a CommandLine."""


@hookspec
def headgate_settings() -> Mapping[str, type[Model]]:  # type: ignore[empty-body]
    """Models of whole settings files, by the subcommand that reads them, for `headgate schema`."""
