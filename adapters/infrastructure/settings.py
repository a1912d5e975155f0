"""What a provider's settings say of each group, as far as all providers share it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from pydantic import Field, model_validator

from headgate.core.config import FieldError, Millicores, Model, SettingsError, check_names
from headgate.core.providers import NodeTemplate


class TemplateSettings(Model):
    """What a new node offers to pods."""

    cpu: Millicores
    memory: int = Field(default=0, ge=0)
    """Bytes; 0: not counted."""
    pods: int = Field(default=110, gt=0)
    labels: dict[str, str] = Field(default_factory=dict)

    def value(self) -> NodeTemplate:
        """The same for the decision."""
        return NodeTemplate(self.cpu, self.memory, self.pods, self.labels)


class GroupLimits(Model):
    """A group and the limits that its provider refuses to cross, whatever it is asked."""

    name: str = Field(min_length=1)
    minimum: int = Field(default=0, ge=0)
    maximum: int = Field(gt=0)
    template: TemplateSettings | None = None

    @model_validator(mode="after")
    def _minimum_below_maximum(self) -> GroupLimits:
        if self.minimum > self.maximum:
            raise FieldError(("minimum",), f"group {self.name}: minimum {self.minimum} is above its maximum")
        return self


def check_groups(groups: list[GroupLimits]) -> None:
    """Raise FieldError when two groups have one name."""
    check_names([group.name for group in groups], "groups")


def missing_extra(kind: str, extra: str) -> Callable[[Any], NoReturn]:
    """Opens a provider whose SDK is not installed: raises SettingsError that says how to install it."""

    def refuse(_settings: object) -> NoReturn:
        raise SettingsError(f"node provider {kind} needs the extra {extra}: pip install 'headgate[{extra}]'")

    return refuse
