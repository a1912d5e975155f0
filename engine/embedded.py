"""The engine inside another server's process: requests come as tensors, from whatever protocol that server speaks."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, cast

from headgate.core.config import Document, SettingsError
from headgate.core.hookspecs import CommandLine, Tensor
from headgate.core.model import Infeasible
from headgate.core.serving import Busy, InputTensor, InvalidRequest, ModelFailed, Run, ServedModel
from headgate.core.units import format_cpu
from headgate.engine.control import Control
from headgate.engine.cpus import usable_cpus
from headgate.engine.engine import Engine, load_engine
from headgate.engine.metrics import Metrics
from headgate.engine.oip.datatypes import Array, TensorSpec
from headgate.engine.oip.errors import OipError
from headgate.engine.oip.inputs import from_tensors
from headgate.engine.pipeline import ModelChain
from headgate.engine.settings import EngineSettings
from headgate.engine.status import status
from headgate.engine.tally import Tally

log = logging.getLogger("headgate.engine")

T = TypeVar("T")

CANCELLED = 499
"""The status under which requests are counted that nobody waits for any more, as nginx has it."""


@dataclass(slots=True, eq=False)
class Task(Generic[T]):
    """One accepted request: the caller's code around a run of the chain, at the expense of its pipeline."""

    chain: ModelChain
    tally: Tally
    arrived: float
    call: Callable[[Run], T]
    future: Future[T] = field(default_factory=Future)
    code: int = CANCELLED
    """As HTTP has it."""
    _result: T | None = None
    _error: Exception | None = None

    def run(self) -> None:
        """See Work."""
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            self._result = self.call(self._infer)
            self.code = 200
        except Exception as error:  # noqa: BLE001 - whoever waits for it gets it
            self._error = error
            self.code = 400 if isinstance(error, InvalidRequest) else 500

    def done(self, cpu_seconds: float) -> None:
        """See Work."""
        now = time.monotonic()
        self.tally.answered(self.code, now, now - self.arrived, cpu_seconds)
        if self._error is not None:
            self.future.set_exception(self._error)
        elif self.code != CANCELLED:
            self.future.set_result(cast("T", self._result))

    def _infer(self, inputs: Sequence[InputTensor], wanted: Sequence[str] | None) -> Mapping[str, Array]:
        chain = self.chain
        known = [spec.name for spec in chain.outputs]
        for name in wanted or ():
            if name not in known:
                raise InvalidRequest(f"there is no output {name[:80]!r}; the outputs are {', '.join(known)}")
        try:
            return chain.run(from_tensors(inputs, chain.inputs), wanted or known)
        except OipError as error:
            raise InvalidRequest(error.message) from None
        except Exception as error:
            log.exception("pipeline %s: inference failed", chain.name)
            raise ModelFailed(f"model {chain.name!r} failed to run") from error


class Embedded:
    """See InferenceEngine."""

    def __init__(self, engine: Engine, control: Control) -> None:
        """Begins to decide."""
        self.models = tuple(
            ServedModel(chain.name, _tensors(chain.inputs), _tensors(chain.outputs)) for chain in engine.chains.values()
        )
        self._engine = engine
        self._control = control
        self._metrics = Metrics(engine, control)
        control.start()

    def submit(self, model: str, task: Callable[[Run], T]) -> Future[T]:
        """See InferenceEngine."""
        chain = self._engine.chains.get(model)
        if chain is None:
            raise LookupError(f"there is no model {model!r}")
        work = Task(chain, self._engine.tallies[model], time.monotonic(), task)
        try:
            self._engine.accept(model, work)
        except OipError as error:
            raise Busy(error.message, error.retry_after or 1) from None
        return work.future

    def collect(self) -> Iterable[Any]:
        """See InferenceEngine."""
        return self._metrics.collect()

    def status(self) -> Mapping[str, object]:
        """See InferenceEngine."""
        return status(self._engine)

    def close(self) -> None:
        """See InferenceEngine."""
        self._control.stop()
        self._control.extensions.close()
        self._engine.close()


def assemble(settings: EngineSettings, document: Document, command_line: CommandLine) -> tuple[Engine, Control]:
    """The engine that `settings`, read from `document`, describe, and its loop, not yet started.

    Raises SettingsError or Infeasible.
    """
    if settings.budget > (usable := usable_cpus()):
        log.warning("the budget is %s CPUs, this process may use %s", format_cpu(settings.budget), format_cpu(usable))
    names = [pipeline.name for pipeline in settings.pipelines]
    extensions = command_line.extensions(document, settings, names, settings.interval)
    engine = load_engine(settings, document, extensions)
    try:
        return engine, Control(engine, extensions)
    except Infeasible:
        raise
    except ValueError as error:
        raise SettingsError(f"{document.place(('policy',))}: policy: {error}") from None


def open_embedded(settings: EngineSettings, document: Document, command_line: CommandLine) -> Embedded:
    """As `headgate_engines` wants it. Raises SettingsError or Infeasible."""
    return Embedded(*assemble(settings, document, command_line))


def _tensors(specs: Sequence[TensorSpec]) -> tuple[Tensor, ...]:
    return tuple(Tensor(spec.name, spec.datatype, spec.shape) for spec in specs)
