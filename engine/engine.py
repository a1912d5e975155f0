"""The engine without HTTP: pipelines, what is asked of them, and the CPUs that they have."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from headgate.core.allocation import Allocation
from headgate.core.config import Document, SettingsError
from headgate.core.extensions import Extensions, NoExtensions
from headgate.core.model import Demands, Pipeline
from headgate.core.nodes.recommend import Recommendation
from headgate.core.units import MILLI
from headgate.engine.dispatch import Dispatch, Dispatcher, Unmanaged, Work
from headgate.engine.oip.errors import OipError
from headgate.engine.oip.request import decode
from headgate.engine.oip.response import Response, encode, error_response
from headgate.engine.pipeline import VERSION, ChainError, ModelChain, load_chain
from headgate.engine.scheduler import Limits, QueueFull
from headgate.engine.settings import EngineSettings
from headgate.engine.tally import Tally

log = logging.getLogger("headgate.engine")

Reply = Callable[[Response], None]


@dataclass(frozen=True, slots=True)
class Standing:
    """Everything about the division of CPUs that is in force; replaced as a whole, so that it always fits together."""

    budget: int
    """Millicores that the allocation divides."""
    allocation: Allocation
    demands: Demands = field(default_factory=dict)
    decisions: int = 0
    used: Mapping[str, int] = field(default_factory=dict)
    """Millicores that each pipeline used in the last interval."""
    arrival_rates: Mapping[str, float] = field(default_factory=dict)
    """Requests per second in the last interval, refused ones included."""
    problem: str | None = None
    """Why the last decision could not be made; the grants before it stay in force."""
    recommended: Recommendation | None = None
    """CPUs that the machine should have; None: not looked at yet."""


@dataclass(slots=True, eq=False)
class Inference:
    """One accepted request: decoded, run and encoded in a worker's thread, at the expense of its pipeline."""

    chain: ModelChain
    tally: Tally
    body: bytes | bytearray
    header: str | None
    arrived: float
    reply: Reply
    response: Response | None = None

    def run(self) -> None:
        """See Work."""
        try:
            request = decode(self.body, self.header, self.chain.inputs, self.chain.outputs)
            outputs = self.chain.run(request.inputs, [output.name for output in request.outputs])
            self.response = encode(self.chain.name, VERSION, request, outputs)
        except OipError as error:
            self.response = error_response(error)
        except Exception:  # one request must not end the worker that others wait for
            log.exception("pipeline %s: inference failed", self.chain.name)
            self.response = error_response(OipError(500, f"model {self.chain.name!r} failed to run"))

    def done(self, cpu_seconds: float) -> None:
        """See Work."""
        assert self.response is not None
        now = time.monotonic()
        self.tally.answered(self.response.status, now, now - self.arrived, cpu_seconds)
        self.reply(self.response)


class Engine:
    """Pipelines on one CPU budget. Thread-safe."""

    def __init__(self, settings: EngineSettings, chains: Sequence[ModelChain]) -> None:
        """`chains`: the loaded models of `settings.pipelines`, in their order."""
        self.settings = settings
        self.pipelines: tuple[Pipeline, ...] = tuple(pipeline.value() for pipeline in settings.pipelines)
        self.chains: Mapping[str, ModelChain] = {chain.name: chain for chain in chains}
        self.tallies: Mapping[str, Tally] = {
            p.name: Tally(p.name, p.slo.latency if p.slo else None) for p in self.pipelines
        }
        limits = [Limits(p.name, p.ceiling, p.weight, p.queue) for p in settings.pipelines]
        self.managed = settings.control == "live"
        self.exhausted = threading.Event()
        """A pipeline woke up and has used up what it may before a division that knows of it; who divides clears it."""
        self._dispatch: Dispatch = (
            Dispatcher(limits, settings.budget, lend=settings.lend, exhausted=self.exhausted)
            if self.managed
            else Unmanaged(limits)
        )
        self._lock = threading.Lock()
        self.standing = Standing(settings.budget, Allocation(dict.fromkeys(self.chains, 0), reasons={}, unmet={}))

    def submit(self, pipeline: str, body: bytes | bytearray, header: str | None, reply: Reply) -> None:
        """Accept a request for `pipeline`; `reply` is called once, from a worker's thread, with the answer.

        `body` and `header` as for `oip.request.decode`. Raises OipError (404, 503) where it is not accepted.
        """
        chain = self.chain(pipeline)
        self.accept(pipeline, Inference(chain, self.tallies[pipeline], body, header, time.monotonic(), reply))

    def accept(self, pipeline: str, work: Work) -> None:
        """Run `work` at the expense of `pipeline`, which exists. Raises OipError (503) where it is not accepted."""
        tally = self.tallies[pipeline]
        tally.arrived()
        try:
            self._dispatch.submit(pipeline, work)
        except QueueFull:
            tally.refused(503)
            raise OipError(503, f"model {pipeline!r} has too many requests waiting", retry_after=1) from None

    def chain(self, name: str) -> ModelChain:
        """The pipeline `name`. Raises OipError 404."""
        if name not in self.chains:
            raise OipError(404, f"there is no model {name[:80]!r}")
        return self.chains[name]

    def apply(self, grants: Mapping[str, int], reason: str = "set by hand") -> None:
        """Divide the CPUs anew: millicores of every pipeline, in force from the next inference that starts.

        Nothing is restarted and no request is lost. Raises ValueError, and changes nothing, when the grants do not name
        every pipeline or exceed the budget or a ceiling.
        """
        allocation = Allocation(dict(grants), dict.fromkeys(grants, reason), dict.fromkeys(grants, 0))
        self.adopt(replace(self.standing, allocation=allocation))

    def adopt(self, standing: Standing) -> None:
        """Put a whole decision in force. Raises ValueError as `apply` does."""
        with self._lock:
            self._dispatch.apply(standing.allocation.grants, standing.budget)
            self.standing = standing

    def load(self, pipeline: str) -> tuple[int, int]:
        """How many requests of `pipeline` wait, and how many run."""
        return self._dispatch.load(pipeline)

    def close(self) -> None:
        """End the workers, after the last answer."""
        self._dispatch.close()


def load_engine(settings: EngineSettings, document: Document, extensions: Extensions | None = None) -> Engine:
    """The engine that `settings`, read from `document`, describe. Model files are relative to the document.

    `extensions` make the steps that plug-ins offer. Raises SettingsError with one line for each pipeline whose models
    cannot be used.
    """
    extensions = extensions or NoExtensions()
    folder = Path() if document.source == "standard input" else Path(document.source).parent
    chains, problems = [], []
    for index, pipeline in enumerate(settings.pipelines):
        models = [
            folder / step.model
            if step.model is not None
            else extensions.step(str(step.step), document, ("pipelines", index, "steps", number))
            for number, step in enumerate(pipeline.steps)
        ]
        try:
            chains.append(load_chain(pipeline.name, models, single_threaded=settings.control == "live"))
        except ChainError as error:
            key = "model" if pipeline.steps[error.step].model is not None else "step"
            place = document.place(("pipelines", index, "steps", error.step, key))
            problems.append(f"{place}: pipelines[{index}].steps[{error.step}].{key}: {pipeline.name}: {error}")
    if problems:
        raise SettingsError("\n".join(problems))
    return Engine(settings, chains)


def millicores(cpu_seconds: float, window: float) -> int:
    """CPU seconds spent in `window` seconds, as millicores."""
    return round(cpu_seconds / window * MILLI) if window > 0 else 0
