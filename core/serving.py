"""What a serving framework asks of an inference engine inside its own process.

The framework brings requests, in its own protocol, and the answers back. The engine runs the models, and with that it
divides the CPUs. `headgate_engines` is how the one finds the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from numpy.typing import NDArray

if TYPE_CHECKING:
    from headgate.core.hookspecs import Tensor

T = TypeVar("T")


class InvalidRequest(ValueError):  # noqa: N818 - what a client does, not a failure
    """The request does not fit the model; the message is for the client."""


class ModelFailed(RuntimeError):  # noqa: N818
    """The model failed on its own; the message is for the client, the cause is in the log."""


class Busy(RuntimeError):  # noqa: N818 - a refusal, not a failure
    """As many requests wait for the model as may."""

    def __init__(self, message: str, retry_after: float) -> None:
        """`retry_after`: seconds."""
        super().__init__(message)
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class InputTensor:
    """An input as a request brought it; the engine holds it against what the model takes."""

    name: str
    data: list[Any] | NDArray[Any]
    """A list is flat or nested, row-major, of JSON's values."""
    datatype: str | None = None
    """As the Open Inference Protocol has it; None: whatever the model takes."""
    shape: Sequence[int] | None = None
    """None: as the data are nested."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model under the name that requests have for it."""

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


Run = Callable[[Sequence[InputTensor], Sequence[str] | None], Mapping[str, NDArray[Any]]]
"""Runs a model on inputs: the outputs of these names, all of them for None. Raises InvalidRequest or ModelFailed."""


class InferenceEngine(Protocol):
    """Several models on one CPU budget. Thread-safe."""

    @property
    def models(self) -> Sequence[ServedModel]:
        """All of them, loaded."""
        ...

    def submit(self, model: str, task: Callable[[Run], T]) -> Future[T]:
        """What `task` returns or raises. It runs in a worker's thread, at the expense of `model`.

        It is given what runs the model, so that decoding and encoding are charged to the model too. Does not wait;
        raises Busy where the request is not accepted, LookupError for a model that does not exist. A future that is
        cancelled while it waits costs nothing.
        """
        ...

    def collect(self) -> Iterable[Any]:
        """Its metrics as `prometheus_client` families: with this it is a collector that a registry can register."""
        ...

    def status(self) -> Mapping[str, object]:
        """The division of the CPUs that is in force, for people; JSON values."""
        ...

    def close(self) -> None:
        """Decide no more, and end the workers after the last answer."""
        ...
