"""Holds inputs, in whatever form they came, against what a pipeline takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from headgate.core.serving import InputTensor
from headgate.engine.oip.datatypes import NUMPY, Array, TensorSpec, from_json
from headgate.engine.oip.errors import bad_request


def next_input(name: str, known: Mapping[str, TensorSpec], found: Iterable[str]) -> TensorSpec:
    """What the pipeline takes as the input `name`. Raises OipError when there is none, or it was `found` before."""
    if name not in known:
        raise bad_request(f"there is no input {name[:80]!r}; the inputs are {', '.join(known)}")
    if name in found:
        raise bad_request(f"input {name!r} is given twice")
    return known[name]


def check_complete(known: Mapping[str, TensorSpec], found: Iterable[str]) -> None:
    """Raise OipError naming the inputs that were not `found`."""
    if missing := [name for name in known if name not in found]:
        raise bad_request(f"missing input {', '.join(map(repr, missing))}")


def check_datatype(spec: TensorSpec, datatype: object) -> None:
    """Raise OipError unless `datatype` is the input's."""
    if datatype != spec.datatype:
        raise bad_request(f"input {spec.name!r}: datatype must be {spec.datatype}, found {repr(datatype)[:40]}")


def check_shape(spec: TensorSpec, shape: Sequence[int]) -> None:
    """Raise OipError unless a tensor of `shape` fits."""
    if not spec.accepts(shape) or any(size < 0 for size in shape):
        raise bad_request(f"input {spec.name!r}: shape {list(shape[:16])} does not fit {spec.metadata()['shape']}")


def from_tensors(tensors: Iterable[InputTensor], specs: Sequence[TensorSpec]) -> dict[str, Array]:
    """The arrays of a request by name. Raises OipError, with a message that names the tensor."""
    known = {spec.name: spec for spec in specs}
    found: dict[str, Array] = {}
    for tensor in tensors:
        found[tensor.name] = _array(tensor, next_input(tensor.name, known, found))
    check_complete(known, found)
    return found


def _array(tensor: InputTensor, spec: TensorSpec) -> Array:
    if tensor.datatype is not None:
        check_datatype(spec, tensor.datatype)
    if tensor.shape is not None:
        check_shape(spec, tensor.shape)
    if isinstance(tensor.data, list):
        array = from_json(spec.name, tensor.data, spec.datatype, tensor.shape)
    elif tensor.data.dtype == NUMPY[spec.datatype]:
        array = tensor.data
    else:
        raise bad_request(f"input {spec.name!r}: data are {tensor.data.dtype}, not {spec.datatype}")
    check_shape(spec, array.shape)
    return array
