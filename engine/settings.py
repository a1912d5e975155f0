"""The settings of `headgate serve` as a validated model."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from headgate.core.address import Address, Listen
from headgate.core.calm import Calm
from headgate.core.config import (
    FieldError,
    Millicores,
    Model,
    PipelineSettings,
    Seconds,
    Size,
    check_floors,
    check_names,
)
from headgate.core.extensions import ExtensionSettings
from headgate.core.nodes.settings import GroupSettings
from headgate.engine.cpus import usable_cpus

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")


class StepSettings(Model):
    """One ONNX model of a chain, or a plug-in's step, which may have further keys."""

    model_config = ConfigDict(extra="allow", frozen=True)

    model: str | None = Field(
        default=None, min_length=1, description="Path of the ONNX file, relative to the settings file"
    )
    step: str | None = Field(default=None, min_length=1, description="Name of a plug-in's step")

    @model_validator(mode="after")
    def _one_of_both(self) -> StepSettings:
        if (self.model is None) == (self.step is None):
            raise ValueError("a step is either {model: FILE.onnx} or {step: NAME} of a plug-in")
        if self.model is not None and self.model_extra:
            raise FieldError((next(iter(self.model_extra)),), "unknown setting; known here: model")
        return self


class EnginePipelineSettings(PipelineSettings):
    """A pipeline of the engine: an Open Inference Protocol model made of one or more ONNX models."""

    steps: tuple[StepSettings, ...] = Field(min_length=1)
    queue: int = Field(default=4096, ge=1, description="Requests waiting at the most; beyond it: 503 with Retry-After")

    @field_validator("name")
    @classmethod
    def _fits_in_a_path(cls, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} cannot stand in a URL: use letters, digits, '-', '_' and '.'")
        return name


class CalmSettings(Model):
    """When CPUs move. Live CPU moves at once and for nothing, so these follow a load closely."""

    band: float = Field(default=0.1, ge=0, allow_inf_nan=False, description="Changes of load below this share stay")
    noise: float = Field(
        default=0.0,
        ge=0,
        allow_inf_nan=False,
        description="So do those below so many standard deviations of the load in one interval; 5 hardly ever moves "
        "anything in a steady load, and follows a slow swing seconds later",
    )
    stabilisation: Seconds = Field(default=0.0, description="Time that a load must have fallen before CPUs are taken")
    most_moved: Annotated[Millicores, Field(gt=0)] | None = Field(
        default=None, description="CPUs that change hands in one decision at the most"
    )

    def value(self) -> Calm:
        """The same for the decision."""
        return Calm(band=self.band, noise=self.noise, stabilisation=self.stabilisation, most_moved=self.most_moved)


_DEFAULT = GroupSettings("machine")


class MachineSettings(Model):
    """By what the machine is said to be too small or too large; nothing else comes of it."""

    upper: float = Field(default=_DEFAULT.upper, gt=0, le=1, description="Above this utilisation: more CPUs")
    lower: float = Field(default=_DEFAULT.lower, gt=0, lt=1, description="Below this utilisation: fewer CPUs")
    margin: float = Field(default=_DEFAULT.margin, ge=0, lt=1, description="CPUs are chosen for `upper - margin`")
    up_after: Seconds = Field(default=_DEFAULT.up_after, description="Time above `upper` before it is said")
    down_after: Seconds = Field(default=_DEFAULT.down_after, description="Time below `lower` before it is said")
    window: Annotated[Seconds, Field(gt=0)] = Field(
        default=_DEFAULT.window, description="Fewer CPUs are chosen by the highest load of this long"
    )

    @model_validator(mode="after")
    def _thresholds(self) -> MachineSettings:
        self.value()
        return self

    def value(self) -> GroupSettings:
        """The same for the recommendation. Raises ValueError on thresholds that would make it flap."""
        return GroupSettings("machine", **self.model_dump())


class EngineSettings(ExtensionSettings):
    """What `headgate serve` hosts, on how many CPUs, and how it divides them."""

    listen: Listen = Address(host="127.0.0.1", port=8080)
    budget: Annotated[Millicores, Field(gt=0)] = Field(
        default_factory=usable_cpus,
        validate_default=False,
        description="CPUs to divide; by default those that this process may use, also when its container is resized",
    )
    interval: Annotated[Seconds, Field(gt=0)] = Field(default=1.0, description="Time between two decisions")
    policy: str = Field(default="proportional", description="How the budget is divided; see headgate allocate")
    calm: CalmSettings = CalmSettings()
    machine: MachineSettings = MachineSettings()
    control: Literal["live", "none"] = Field(default="live", description="none: ONNX Runtime's defaults, no division")
    lend: bool = Field(default=True, description="Idle CPU of one pipeline serves others; false: a grant is a hard cap")
    max_body: Size = Field(default=64 * 2**20, description="A longer request is refused with 413")
    grace: Seconds = Field(default=30.0, description="Time for what was accepted to be answered when it ends")
    pipelines: tuple[EnginePipelineSettings, ...] = Field(min_length=1)

    @field_validator("pipelines")
    @classmethod
    def _ceiling_above_nothing(
        cls, pipelines: tuple[EnginePipelineSettings, ...]
    ) -> tuple[EnginePipelineSettings, ...]:
        for index, pipeline in enumerate(pipelines):
            if pipeline.ceiling == 0:
                raise FieldError((index, "ceiling"), f"pipeline {pipeline.name}: with no CPU at all it never answers")
        return pipelines

    @model_validator(mode="after")
    def _fits(self) -> EngineSettings:
        check_names([pipeline.name for pipeline in self.pipelines])
        check_floors([pipeline.value() for pipeline in self.pipelines], self.budget)
        return self

    @property
    def follows_machine(self) -> bool:
        """Whether the budget is whatever CPUs this process may use."""
        return "budget" not in self.model_fields_set
