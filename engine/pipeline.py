"""A pipeline: a chain of ONNX models, each fed with the outputs of the one before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from headgate.core.hookspecs import EngineStep, Tensor
from headgate.engine.oip.datatypes import NUMPY, ONNX, Array, TensorSpec
from headgate.engine.oip.errors import OipError
from headgate.engine.session import ModelError, load_session

VERSION = "1"


class StepError(Exception):
    """A model failed while it ran."""


class Session(Protocol):
    """What runs a step: an ONNX Runtime session, or a plug-in's code."""

    def run(self, names: list[str], feeds: dict[str, Array]) -> list[Array]:
        """The outputs called `names`, in that order."""
        ...


@dataclass(frozen=True, slots=True)
class Custom:
    """A plug-in's step as a session; what it returns is held against what it promised."""

    step: EngineStep
    outputs: Mapping[str, TensorSpec]

    def run(self, names: list[str], feeds: dict[str, Array]) -> list[Array]:
        """See Session. Raises ValueError on an output that is missing, or of another type or shape."""
        results = self.step.run(feeds)
        return [_promised(self.outputs[name], results.get(name)) for name in names]


def _promised(spec: TensorSpec, result: object) -> Array:
    if not isinstance(result, np.ndarray):
        raise ValueError(f"output {spec.name!r} is {type(result).__name__}, no array")
    if result.dtype != NUMPY[spec.datatype] or not spec.accepts(result.shape):
        raise ValueError(f"output {spec.name!r} is {result.dtype} of shape {result.shape}, not {spec.metadata()}")
    return result


@dataclass(frozen=True, slots=True)
class Step:
    """One loaded model or plug-in's step, and which output of the step before feeds each of its inputs."""

    source: str
    session: Session
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    feeds: Mapping[str, str]
    """Name of an input -> name of what feeds it; for the first step, its own names."""


@dataclass(frozen=True, slots=True)
class ModelChain:
    """Loaded models in a row. Its inputs are those of the first, its outputs those of the last."""

    name: str
    steps: tuple[Step, ...]

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What a request has to bring."""
        return self.steps[0].inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What an answer holds."""
        return self.steps[-1].outputs

    def metadata(self) -> dict[str, object]:
        """The protocol's model metadata."""
        return {
            "name": self.name,
            "versions": [VERSION],
            "platform": "onnx_onnxv1",
            "inputs": [spec.metadata() for spec in self.inputs],
            "outputs": [spec.metadata() for spec in self.outputs],
        }

    def run(self, inputs: Mapping[str, Array], wanted: Sequence[str]) -> dict[str, Array]:
        """The `wanted` outputs for `inputs`, which fit `self.inputs`. Runs in the caller's thread.

        Raises OipError when a model does not take what it was given, StepError when it failed on its own.
        """
        values: Mapping[str, Array] = inputs
        last = len(self.steps) - 1
        for index, step in enumerate(self.steps):
            feeds = {name: values[source] for name, source in step.feeds.items()}
            names = list(wanted) if index == last else sorted(set(self.steps[index + 1].feeds.values()))
            values = dict(zip(names, _run(self.name, index, step, names, feeds), strict=True))
        return dict(values)


def _run(pipeline: str, index: int, step: Step, names: list[str], feeds: dict[str, Array]) -> list[Array]:
    try:
        results: list[Array] = step.session.run(names, feeds)
    except Exception as error:  # the binding raises a dozen types without a common base
        if _input_is_to_blame(step, error):
            raise OipError(400, f"model {pipeline!r}, step {index + 1}: the input does not fit the model") from None
        raise StepError(f"step {index + 1} ({step.source}): {type(error).__name__}: {error}") from error
    # A tensor of rank 0 comes back as a number, which the next step would not take.
    return [np.asarray(result) for result in results]


def _input_is_to_blame(step: Step, error: Exception) -> bool:
    """Names, types and declared shapes were checked before, so what is left are values and free dimensions.

    ONNX Runtime calls an index out of range or a wrong rank an invalid argument, but a dimension that does not match
    inside a kernel only a failure; that can be the request's fault where more than the first dimension, which is the
    number of rows, is the client's choice.
    """
    kind = type(error).__name__
    free = any(spec.shape is None or None in spec.shape[1:] for spec in step.inputs)
    return kind == "InvalidArgument" or (kind == "Fail" and free and "allocate" not in str(error))


def load_chain(name: str, parts: Sequence[Path | EngineStep], *, single_threaded: bool) -> ModelChain:
    """The chain of ONNX files and plug-ins' steps `parts`. Raises ChainError, which knows the step to blame."""
    steps: list[Step] = []
    for index, part in enumerate(parts):
        try:
            if isinstance(part, Path):
                step = _model(part, last=index == len(parts) - 1, single_threaded=single_threaded)
            else:
                step = _custom(part)
            feeds = _connect(part if isinstance(part, Path) else step.source, step.inputs, steps)
        except ModelError as error:
            raise ChainError(index, str(error)) from None
        steps.append(replace(step, feeds=feeds))
    return ModelChain(name, tuple(steps))


def _model(path: Path, *, last: bool, single_threaded: bool) -> Step:
    session: Any = load_session(path, single_threaded=single_threaded)
    inputs = tuple(_spec(path, "input", value) for value in session.get_inputs())
    outputs = tuple(
        _spec(path, "output", value)
        for value in session.get_outputs()
        # What is not a tensor matters only where it would have to be answered.
        if last or value.type in ONNX
    )
    return Step(path.name, session, inputs, outputs, {})


def _custom(step: EngineStep) -> Step:
    source = type(step).__name__
    inputs, outputs = _tensors(source, step.inputs), _tensors(source, step.outputs)
    return Step(source, Custom(step, {spec.name: spec for spec in outputs}), inputs, outputs, {})


def _tensors(source: str, tensors: Sequence[Tensor]) -> tuple[TensorSpec, ...]:
    for tensor in tensors:
        if tensor.datatype not in NUMPY:
            raise ModelError(f"{source}: {tensor.name!r} is {tensor.datatype!r}: use one of {', '.join(NUMPY)}")
    if not tensors:
        raise ModelError(f"{source}: a step needs inputs and outputs")
    return tuple(TensorSpec(tensor.name, tensor.datatype, tensor.shape) for tensor in tensors)


class ChainError(ModelError):
    """A model of a chain is unusable; `step` counts from 0."""

    def __init__(self, step: int, message: str) -> None:
        super().__init__(message)
        self.step = step


def _spec(path: Path, kind: str, value: Any) -> TensorSpec:
    if value.type not in ONNX:
        raise ModelError(
            f"{path}: {kind} {value.name!r} is {value.type}, which the Open Inference Protocol cannot carry "
            "(a scikit-learn classifier: export it with the option zipmap=False)"
        )
    # ONNX Runtime gives an empty shape for a scalar and for a tensor whose rank the model does not say.
    shape = tuple(size if isinstance(size, int) else None for size in value.shape) if value.shape else None
    return TensorSpec(value.name, ONNX[value.type], shape)


def _connect(path: Path | str, inputs: Sequence[TensorSpec], steps: Sequence[Step]) -> dict[str, str]:
    """Which of `before` feeds each input: the one of the same name, or the only one the only one."""
    before = steps[-1].outputs if steps else inputs
    given = {spec.name: spec for spec in before}
    if all(spec.name in given for spec in inputs):
        feeds = {spec.name: spec.name for spec in inputs}
    elif len(inputs) == len(given) == 1:
        feeds = {inputs[0].name: before[0].name}
    else:
        raise ModelError(
            f"{path}: its inputs ({_names(inputs)}) are not among the outputs of the step before ({_names(before)}): "
            "name them alike, or have one of each"
        )
    for spec in inputs:
        source = given[feeds[spec.name]]
        if source.datatype != spec.datatype:
            raise ModelError(
                f"{path}: input {spec.name!r} is {spec.datatype}, the step before gives {source.datatype} "
                f"({source.name!r})"
            )
        if not _may_fit(source.shape, spec.shape):
            raise ModelError(
                f"{path}: input {spec.name!r} is of shape {spec.metadata()['shape']}, the step before gives "
                f"{source.metadata()['shape']} ({source.name!r})"
            )
    return feeds


def _may_fit(given: tuple[int | None, ...] | None, wanted: tuple[int | None, ...] | None) -> bool:
    if given is None or wanted is None:
        return True
    return len(given) == len(wanted) and all(
        a is None or b is None or a == b for a, b in zip(given, wanted, strict=True)
    )


def _names(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(spec.name for spec in specs)
