"""The settings file as validated models, and errors that name the file, the line and the field."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)

from headgate.core.limits import LEAST_WEIGHT, MOST_PRIORITY, MOST_WEIGHT
from headgate.core.model import Pipeline, Slo
from headgate.core.units import format_cpu, parse_cpu, parse_duration, parse_size

Path = tuple[str | int, ...]

Millicores = Annotated[
    int,
    BeforeValidator(parse_cpu),
    WithJsonSchema(
        {
            "type": ["string", "number"],
            "format": "cpu",
            "description": "CPUs as a Kubernetes quantity: 250m, 2, 1.5",
        }
    ),
]
Seconds = Annotated[
    float,
    BeforeValidator(parse_duration),
    WithJsonSchema(
        {
            "type": ["string", "number"],
            "format": "seconds",
            "description": "A duration: 250ms, 30s, 1m30s; a number is seconds",
        }
    ),
]

Size = Annotated[
    int,
    BeforeValidator(parse_size),
    WithJsonSchema({"type": ["string", "integer"], "description": "Bytes: 64MiB, 512KiB, 4096"}),
]


def number(value: object) -> object:
    """For a BeforeValidator: pydantic takes true for 1, which nobody means. Text stays, as YAML reads 1e3 as text."""
    if isinstance(value, bool):
        raise ValueError(f"{str(value).lower()} is not a number")
    return value


def _countable(weight: float) -> float:
    if not LEAST_WEIGHT <= weight <= MOST_WEIGHT:
        raise ValueError(f"weights lie between {LEAST_WEIGHT:g} and {MOST_WEIGHT:g}, found {weight:g}")
    return weight


def _beside_the_settings(path: str, info: ValidationInfo) -> str:
    return str(PurePath((info.context or {}).get("folder", ""), path))


FilePath = Annotated[str, Field(min_length=1), AfterValidator(_beside_the_settings)]
"""The path of a file; a relative one is relative to the settings file."""


class SettingsError(ValueError):
    """The settings are wrong; the message names the file, each line and field, and what to do. Exit code 2."""


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed settings file: its data, and the line on which the value at each path stands."""

    source: str
    data: object
    lines: Mapping[Path, int] = field(default_factory=dict)

    def place(self, path: Path) -> str:
        """`file:line`, of the value at `path` or of the nearest one around it."""
        for length in range(len(path), -1, -1):
            if (line := self.lines.get(path[:length])) is not None:
                return f"{self.source}:{line}"
        return self.source


class Model(BaseModel):
    """Base of all settings: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


M = TypeVar("M", bound=Model)


def validate(document: Document, model: type[M], at: Path = ()) -> M:
    """The settings of a document, or of what stands in it at the path `at` already known to be there.

    Raises SettingsError with one line for each mistake.
    """
    data: Any = document.data
    for part in at:
        data = data[part]
    if not isinstance(data, dict):
        place = f"{document.place(at)}: {field_name(at)}: " if at else f"{document.place(())}: "
        raise SettingsError(f"{place}expected a mapping of settings, found {_kind(data)}")
    try:
        return model.model_validate(data, context={"folder": PurePath(document.source).parent})
    except ValidationError as error:
        raise SettingsError("\n".join(_explain(document, model, error, at))) from None


def field_name(path: Path) -> str:
    """A path as people write it: ("pipelines", 0, "floor") -> "pipelines[0].floor"."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


class FieldError(ValueError):
    """A mistake that a cross-field check found, with the path of the field to blame."""

    def __init__(self, path: Path, message: str) -> None:
        super().__init__(message)
        self.path = path


_EXPECTED = {
    "tuple_type": "expected a list",
    "list_type": "expected a list",
    "dict_type": "expected a mapping",
    "model_type": "expected a mapping of settings",
    "model_attributes_type": "expected a mapping of settings",
}
"""What pydantic says in the words of Python, in those of the file."""


def _explain(document: Document, model: type[Model], error: ValidationError, at: Path) -> Iterator[str]:
    problems = error.errors(include_url=False)
    for problem in problems:
        if problem["type"] == "too_short" and any(_inside(other["loc"], problem["loc"]) for other in problems):
            continue  # entries that are wrong were left out before they were counted
        path: Path = at + tuple(problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        cause = problem.get("ctx", {}).get("error")
        if isinstance(cause, FieldError):
            path += cause.path
        # Union members and validators add their own name to the location; only what is in the file helps.
        path = _existing(document.data, path)
        if problem["type"] == "extra_forbidden":
            message = f"unknown setting; known here: {', '.join(_known(model, path[len(at) : -1])) or 'none'}"
        elif problem["type"] == "missing":
            message = "required"
        elif problem["type"] != "value_error":
            message = _EXPECTED.get(problem["type"], message)
            message = f"{message[:1].lower()}{message[1:]}, found {_kind(problem['input'])}"
        name = field_name(path)
        yield f"{document.place(path)}: {name}: {message}" if name else f"{document.place(path)}: {message}"


def _inside(inner: Path, outer: Path) -> bool:
    return len(inner) > len(outer) and inner[: len(outer)] == outer


def _existing(data: object, path: Path) -> Path:
    kept: list[str | int] = []
    for index, part in enumerate(path):
        missing_field = isinstance(data, dict) and part not in data and index == len(path) - 1
        if not missing_field:
            try:
                data = data[part]  # type: ignore[index]  # anything that cannot be indexed is caught
            except (LookupError, TypeError):
                continue
        kept.append(part)
    return tuple(kept)


def _known(model: type[Model], path: Path) -> list[str]:
    current: Any = model
    for part in path:
        if isinstance(part, int) or not hasattr(current, "model_fields"):
            continue
        info = current.model_fields.get(part)
        current = _inner_model(info.annotation) if info else None
    return sorted(current.model_fields) if hasattr(current, "model_fields") else []


def _inner_model(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        if (found := _inner_model(argument)) is not None:
            return found
    return None


def _kind(value: object) -> str:
    names = {dict: "a mapping", list: "a list", type(None): "nothing"}
    return names.get(type(value)) or repr(value)


class SloSettings(Model):
    """The share of requests that must answer in time."""

    latency: Annotated[Seconds, Field(gt=0)]
    percentile: float = Field(default=95.0, gt=0, lt=100)

    def value(self) -> Slo:
        """The same for the decision."""
        return Slo(self.latency, self.percentile)


class PipelineSettings(Model):
    """What every host's settings say of a pipeline."""

    name: str = Field(min_length=1)
    floor: Millicores = Field(default=0, description="CPUs that it always keeps")
    ceiling: Millicores | None = Field(default=None, description="CPUs that it never exceeds; by default the budget")
    step: Annotated[Millicores, Field(gt=0)] = Field(default=1, description="Its grant is a multiple of this")
    weight: Annotated[float, BeforeValidator(number), AfterValidator(_countable)] = Field(
        default=1.0, gt=0, allow_inf_nan=False, description="Relative importance; only ratios count"
    )
    priority: Annotated[int, BeforeValidator(number)] = Field(
        default=0, ge=-MOST_PRIORITY, le=MOST_PRIORITY, description="Class: a higher one is satisfied first"
    )
    slo: SloSettings | None = None

    @model_validator(mode="after")
    def _floor_below_ceiling(self) -> PipelineSettings:
        if self.ceiling is not None and self.floor > self.ceiling:
            raise FieldError(
                ("floor",),
                f"pipeline {self.name}: floor {format_cpu(self.floor)} is above its ceiling {format_cpu(self.ceiling)}",
            )
        return self

    def value(self) -> Pipeline:
        """The same for the decision."""
        return Pipeline(
            name=self.name,
            floor=self.floor,
            ceiling=self.ceiling,
            step=self.step,
            weight=self.weight,
            priority=self.priority,
            slo=self.slo.value() if self.slo else None,
        )


def check_names(names: list[str], where: str = "pipelines") -> None:
    """Raise FieldError when two entries of the list at `where` have one name."""
    seen: dict[str, int] = {}
    for index, name in enumerate(names):
        if name in seen:
            raise FieldError((where, index, "name"), f"{name!r} is the name of {where}[{seen[name]}] already")
        seen[name] = index


def check_floors(pipelines: list[Pipeline], budget: int) -> None:
    """Raise FieldError when the floors do not fit into `budget` millicores."""
    total = sum(pipeline.floor for pipeline in pipelines)
    if total > budget:
        floors = ", ".join(f"{p.name} {format_cpu(p.floor)}" for p in pipelines if p.floor)
        raise FieldError(
            ("budget",),
            f"the floors need {format_cpu(total)} CPUs ({floors}), the budget is {format_cpu(budget)}: "
            "lower a floor or raise the budget",
        )
