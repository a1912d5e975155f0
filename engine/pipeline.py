"""A pipeline: a chain of ONNX models, each fed with the outputs of the one before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from headgate.engine.oip.datatypes import ONNX, Array, TensorSpec
from headgate.engine.oip.errors import OipError
from headgate.engine.session import ModelError, load_session

VERSION = "1"


class StepError(Exception):
    """A model failed while it ran."""


@dataclass(frozen=True, slots=True)
class Step:
    """One loaded model, and which output of the step before feeds each of its inputs."""

    source: str
    session: onnxruntime.InferenceSession
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


def load_chain(name: str, models: Sequence[Path], *, single_threaded: bool) -> ModelChain:
    """The chain of the ONNX files `models`. Raises ChainError, which knows the step to blame."""
    steps: list[Step] = []
    for index, path in enumerate(models):
        try:
            session = load_session(path, single_threaded=single_threaded)
            inputs = tuple(_spec(path, "input", value) for value in session.get_inputs())
            outputs = tuple(
                _spec(path, "output", value)
                for value in session.get_outputs()
                # What is not a tensor matters only where it would have to be answered.
                if index == len(models) - 1 or value.type in ONNX
            )
            feeds = _connect(path, inputs, steps[-1].outputs if steps else inputs)
        except ModelError as error:
            raise ChainError(index, str(error)) from None
        steps.append(Step(path.name, session, inputs, outputs, feeds))
    return ModelChain(name, tuple(steps))


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


def _connect(path: Path, inputs: Sequence[TensorSpec], before: Sequence[TensorSpec]) -> dict[str, str]:
    """Which of `before` feeds each input: the one of the same name, or the only one the only one."""
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
