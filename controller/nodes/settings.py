"""The settings file of the node scaler. Cron schedules become windows here, so that core needs no cron library."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import Field, ValidationInfo, field_validator, model_validator

from headgate.core.config import FieldError, Millicores, Model, Seconds, SettingsError, check_names
from headgate.core.nodes.settings import SIGNALS, DisruptionBudget, GroupSettings, NodeSettings
from headgate.core.providers import NodeTemplate

HORIZON = 8 * 86400.0
"""Seconds ahead for which schedules are laid out: more than a week; whoever runs for longer lays them out anew."""


class BudgetSettings(Model):
    """How many nodes may be on their way out at once: always, or from each time of a cron schedule (UTC) on."""

    nodes: str | int = "10%"
    schedule: str | None = None
    duration: Annotated[Seconds, Field(gt=0)] | None = None

    @field_validator("nodes")
    @classmethod
    def _share_or_number(cls, value: str | int) -> str | int:
        text = str(value)
        number = text.removesuffix("%")
        if not number.isdecimal() or (text.endswith("%") and int(number) > 100):
            raise ValueError(f"{value!r} is neither a number of nodes nor a share like 10%")
        return text if text.endswith("%") else int(number)

    @model_validator(mode="after")
    def _schedule_with_duration(self) -> BudgetSettings:
        if (self.schedule is None) != (self.duration is None):
            raise ValueError("schedule and duration belong together: set both or neither")
        if self.schedule is not None and not _croniter().croniter.is_valid(self.schedule):
            raise FieldError(("schedule",), f"{self.schedule!r} is not a cron schedule of five fields")
        return self

    def value(self, now: float) -> DisruptionBudget:
        """The same for decisions around `now` (seconds since 1970)."""
        text = str(self.nodes)
        share = int(text[:-1]) / 100 if text.endswith("%") else None
        windows = None
        if self.schedule is not None and self.duration is not None:
            windows = _windows(self.schedule, self.duration, now)
        return DisruptionBudget(share, None if share is not None else int(text), windows)


class TemplateSettings(Model):
    """What a new node offers, where its provider cannot tell."""

    cpu: Annotated[Millicores, Field(gt=0)]
    memory: int = Field(default=0, ge=0)
    pods: int = Field(default=110, gt=0)
    labels: dict[str, str] = Field(default_factory=dict)


_DEFAULT = GroupSettings("default")


class NodeGroupSettings(Model):
    """One node group; the defaults are those of `core/nodes/settings.py`."""

    name: str = Field(min_length=1)
    minimum: int = Field(default=_DEFAULT.minimum, ge=0)
    maximum: int = Field(default=_DEFAULT.maximum, ge=0)
    minimum_cpu: Millicores = 0
    maximum_cpu: Millicores | None = None
    priority: int = 0
    upper: float = Field(default=_DEFAULT.upper, gt=0, le=1)
    lower: float = Field(default=_DEFAULT.lower, gt=0, lt=1)
    margin: float = Field(default=_DEFAULT.margin, ge=0, lt=1)
    signals: tuple[str, ...] = SIGNALS
    up_after: Seconds = _DEFAULT.up_after
    down_after: Seconds = _DEFAULT.down_after
    window: Annotated[Seconds, Field(gt=0)] = _DEFAULT.window
    step: int | None = Field(default=None, gt=0)
    delay_after_add: Seconds = _DEFAULT.delay_after_add
    delay_after_delete: Seconds = _DEFAULT.delay_after_delete
    delay_after_failure: Seconds = _DEFAULT.delay_after_failure
    provisioning_timeout: Seconds = _DEFAULT.provisioning_timeout
    backoff: Seconds = _DEFAULT.backoff
    backoff_most: Seconds = _DEFAULT.backoff_most
    backoff_reset: Seconds = _DEFAULT.backoff_reset
    budgets: list[BudgetSettings] = Field(default_factory=lambda: [BudgetSettings()])
    template: TemplateSettings | None = None

    @model_validator(mode="after")
    def _thresholds(self, _info: ValidationInfo) -> NodeGroupSettings:
        self.value(0.0)
        return self

    def value(self, now: float) -> GroupSettings:
        """The same for decisions around `now`. Raises ValueError on thresholds that would make it flap."""
        plain: dict[str, Any] = {name: getattr(self, name) for name in type(self).model_fields}
        plain["budgets"] = tuple(budget.value(now) for budget in self.budgets)
        if self.template is not None:
            known = self.template
            plain["template"] = NodeTemplate(known.cpu, known.memory, known.pods, known.labels)
        return GroupSettings(**plain)


class NodesFile(Model):
    """All groups."""

    groups: list[NodeGroupSettings] = Field(min_length=1)
    maximum: int | None = Field(default=None, gt=0)
    maximum_cpu: Millicores | None = None
    stale: Annotated[Seconds, Field(gt=0)] = 180.0
    soak: Seconds = 60.0

    @model_validator(mode="after")
    def _names(self) -> NodesFile:
        check_names([group.name for group in self.groups], "groups")
        return self

    def value(self, now: float) -> NodeSettings:
        """The same for decisions around `now` (seconds since 1970)."""
        groups = tuple(group.value(now) for group in self.groups)
        return NodeSettings(groups, self.maximum, self.maximum_cpu, stale=self.stale, soak=self.soak)


def _windows(schedule: str, duration: float, now: float) -> tuple[tuple[float, float], ...]:
    begin = datetime.fromtimestamp(now - duration, UTC)
    starts = _croniter().croniter(schedule, begin)
    found = []
    while (start := float(starts.get_next(float))) <= now + HORIZON:
        found.append((start, start + duration))
    return tuple(found)


def _croniter() -> Any:
    try:
        import croniter
    except ImportError:
        raise SettingsError("schedules need the extra nodes: pip install 'headgate[nodes]'") from None
    return croniter
