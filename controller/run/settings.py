"""The settings of `headgate run` as validated models."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from headgate.controller.nodes.settings import NodesFile
from headgate.core.address import Listen
from headgate.core.budgets import BudgetSpec, CPUBudget
from headgate.core.config import FieldError, Model, Seconds
from headgate.core.extensions import ExtensionSettings


class HostSettings(Model):
    """The serving framework; what else it may say depends on its kind."""

    model_config = ConfigDict(extra="allow", frozen=True)

    kind: str


class HomeSettings(Model):
    """Where the controller runs; what else it may say depends on its kind."""

    model_config = ConfigDict(extra="allow", frozen=True)

    kind: str = "file"


class BudgetSettings(BudgetSpec):
    """A budget in the settings file: the spec of a CPUBudget with a name."""

    name: str = Field(min_length=1, pattern="^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$")
    namespace: str = Field(
        default="default", pattern="^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", description="Where its rules look by default"
    )

    def value(self, generation: int) -> CPUBudget:
        """The same as a budget that stands somewhere."""
        return CPUBudget(self.name, self.namespace, self, generation, created="")


class StateSettings(Model):
    """How often what survives a restart is written. A decision is always written before it is put in force."""

    standing: Annotated[Seconds, Field(gt=0)] = Field(
        default=60.0, description="Time between two writes of the division in force while nothing moves"
    )
    learned: Annotated[Seconds, Field(gt=0)] = Field(
        default=300.0, description="Time between two writes of what was learned of the pipelines"
    )


class LogSettings(Model):
    """What the process says on standard error."""

    format: Literal["text", "json"] = "text"
    level: Literal["debug", "info", "warning", "error"] = "info"


class ProviderSettings(Model):
    """Who has the machines; what else it may say depends on its kind."""

    model_config = ConfigDict(extra="allow", frozen=True)

    kind: str


class NodesSettings(NodesFile):
    """Adds and removes nodes."""

    provider: ProviderSettings
    mode: Literal["recommend", "apply"] = Field(
        default="recommend", description="Whether plans are carried out; otherwise they are only reported"
    )
    interval: Annotated[Seconds, Field(gt=0)] = Field(default=10.0, description="Time between two plans")


class RunSettings(ExtensionSettings):
    """What `headgate run` controls, and how."""

    host: HostSettings
    home: HomeSettings = HomeSettings()
    interval: Annotated[Seconds, Field(gt=0)] = Field(default=10.0, description="Time between two decisions")
    apply: bool = Field(
        default=False,
        description="Put decisions in force, where a budget's own mode is Apply too; otherwise they are only reported",
    )
    budgets: tuple[BudgetSettings, ...] | None = Field(
        default=None, description="By default those of the home. Read anew whenever the file changes; the rest is not"
    )
    nodes: NodesSettings | None = Field(default=None, description="Needs a home that is a cluster; by default none")
    listen: Listen | None = Field(default=None, description="For /healthz, /readyz, /status and /metrics")
    grace: Seconds = Field(default=20.0, description="Time for a change that is half-way to finish when it ends")
    watchdog: Annotated[Seconds, Field(gt=0)] = Field(
        default=120.0, description="/healthz fails once the loop has shown no sign of life for so long"
    )
    retry_refused: Annotated[Seconds, Field(gt=0)] = Field(
        default=300.0, description="Until a host is asked again for what it has refused"
    )
    state: StateSettings = StateSettings()
    log: LogSettings = LogSettings()

    @model_validator(mode="after")
    def _names(self) -> RunSettings:
        seen: dict[str, int] = {}
        for index, budget in enumerate(self.budgets or ()):
            key = budget.value(1).key
            if key in seen:
                raise FieldError(("budgets", index, "name"), f"{key} is budgets[{seen[key]}] already")
            seen[key] = index
            if "host" in budget.model_fields_set and budget.host != self.host.kind:
                raise FieldError(
                    ("budgets", index, "host"), f"{budget.host!r} is not the host of this file, {self.host.kind!r}"
                )
        return self

    @property
    def cadence(self) -> float:
        """Seconds after which something new is known: estimators expect samples so far apart."""
        return max([self.interval, *(source.every for source in self.sources)])

    def kind_of(self, part: Literal["host", "home"]) -> dict[str, Any]:
        """The keys of a part that are its kind's own."""
        settings: Model = self.host if part == "host" else self.home
        return dict(settings.model_extra or {})
