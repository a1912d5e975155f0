"""Laws of the service time: how many CPU seconds a request takes."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from headgate.core.config import SettingsError
from headgate.core.units import parse_duration


class ServiceLaw(Protocol):
    """The distribution of one pipeline's service times."""

    @property
    def mean(self) -> float:
        """Expected CPU seconds of a request."""
        ...

    @property
    def deviation(self) -> float:
        """Their standard deviation in seconds."""
        ...

    def sample(self, random: np.random.Generator, count: int) -> NDArray[np.float64]:
        """`count` independent service times in seconds."""
        ...


@dataclass(frozen=True, slots=True)
class Constant:
    """Each request takes `mean` seconds."""

    mean: float
    deviation: ClassVar[float] = 0.0

    def sample(self, random: np.random.Generator, count: int) -> NDArray[np.float64]:  # noqa: ARG002
        """`count` times the same."""
        return np.full(count, self.mean)


@dataclass(frozen=True, slots=True)
class Exponential:
    """Exponentially distributed with this mean in seconds."""

    mean: float

    @property
    def deviation(self) -> float:
        """The mean."""
        return self.mean

    def sample(self, random: np.random.Generator, count: int) -> NDArray[np.float64]:
        """`count` draws."""
        return random.exponential(self.mean, count)


@dataclass(frozen=True, slots=True)
class Lognormal:
    """offset + scale x LogN(0, sigma): a least time, and a right-skewed rest whose median is `scale` seconds."""

    offset: float
    scale: float
    sigma: float

    @property
    def mean(self) -> float:
        """E = offset + scale x exp(sigma^2 / 2)."""
        return float(self.offset + self.scale * np.exp(self.sigma**2 / 2))

    @property
    def deviation(self) -> float:
        """SD = scale x exp(sigma^2 / 2) x sqrt(exp(sigma^2) - 1)."""
        return float((self.mean - self.offset) * np.sqrt(np.expm1(self.sigma**2)))

    def sample(self, random: np.random.Generator, count: int) -> NDArray[np.float64]:
        """`count` draws."""
        return self.offset + self.scale * random.lognormal(0.0, self.sigma, count)


@dataclass(frozen=True, eq=False, slots=True)
class Measured:
    """Drawn with replacement from measured service times in seconds."""

    values: NDArray[np.float64]

    @property
    def mean(self) -> float:
        """Mean of the measurements."""
        return float(self.values.mean())

    @property
    def deviation(self) -> float:
        """Standard deviation of the measurements."""
        return float(self.values.std())

    def sample(self, random: np.random.Generator, count: int) -> NDArray[np.float64]:
        """`count` draws."""
        return random.choice(self.values, count)


@dataclass(frozen=True, slots=True)
class Laws:
    """The law of each pipeline: its own where one was measured, otherwise the common one."""

    common: ServiceLaw
    own: Mapping[str, ServiceLaw]

    def of(self, pipeline: str) -> ServiceLaw:
        """The law of this pipeline."""
        return self.own.get(pipeline, self.common)


_FORMS = "constant:150ms, exponential:150ms or lognormal:OFFSET,SCALE,SIGMA such as lognormal:79.3ms,68.6ms,0.4225"


def parse_law(text: str) -> ServiceLaw:
    """The law that `text` describes. Raises ValueError with the forms that are known."""
    kind, _, rest = text.partition(":")
    arguments = [argument.strip() for argument in rest.split(",")]
    builders: dict[str, tuple[int, Callable[[], ServiceLaw]]] = {
        "constant": (1, lambda: Constant(parse_duration(arguments[0]))),
        "exponential": (1, lambda: Exponential(parse_duration(arguments[0]))),
        "lognormal": (
            3,
            lambda: Lognormal(parse_duration(arguments[0]), parse_duration(arguments[1]), _sigma(arguments[2])),
        ),
    }
    count, build = builders.get(kind.strip(), (0, lambda: Constant(0.0)))
    if count != len(arguments):
        raise ValueError(f"{text!r} is not a law of service times: write {_FORMS}")
    law = build()
    if not 0 < law.mean < float("inf"):
        raise ValueError(f"{text!r}: service times must be above 0 seconds")
    return law


def _sigma(text: str) -> float:
    if not re.fullmatch(r"\d*\.?\d+", text):
        raise ValueError(f"{text!r} is not the sigma of a lognormal law: a number such as 0.4")
    return float(text)


def read_measured(path: str) -> dict[str, ServiceLaw]:
    """The laws measured in a CSV file with columns pipeline and seconds. Raises SettingsError that names the line."""
    seconds: dict[str, list[float]] = {}
    try:
        with Path(path).open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            missing = {"pipeline", "seconds"} - set(reader.fieldnames or ())
            if missing:
                raise SettingsError(f"{path}:1: no column {' and no column '.join(sorted(missing))}")
            for row in reader:
                try:
                    value = parse_duration(row["seconds"] or "")
                except ValueError as error:
                    raise SettingsError(f"{path}:{reader.line_num}: seconds: {error}") from None
                if value == 0:
                    raise SettingsError(f"{path}:{reader.line_num}: seconds: a service time of 0 is no measurement")
                seconds.setdefault(row["pipeline"], []).append(value)
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: is not UTF-8 text: {error.reason} at byte {error.start}") from None
    if not seconds:
        raise SettingsError(f"{path}: has no measurement: one row of pipeline,seconds for each")
    return {name: Measured(np.array(values)) for name, values in seconds.items()}
