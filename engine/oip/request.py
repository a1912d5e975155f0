"""Decodes an inference request: JSON, and the binary tensors behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import orjson

from headgate.engine.oip.datatypes import Array, TensorSpec, from_binary, from_json
from headgate.engine.oip.errors import bad_request
from headgate.engine.oip.inputs import check_complete, check_datatype, check_shape, next_input


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """An output that the answer is to hold, as binary or as JSON."""

    name: str
    binary: bool


@dataclass(frozen=True, slots=True)
class InferRequest:
    """A decoded request whose inputs fit the pipeline's."""

    id: str | None
    inputs: Mapping[str, Array]
    outputs: tuple[RequestedOutput, ...]


def header_length(value: str | None, body_length: int) -> int:
    """Bytes of JSON at the start of the body, by the header Inference-Header-Content-Length. Raises OipError."""
    if value is None:
        return body_length
    if not value.isascii() or not value.isdigit():
        raise bad_request(f"Inference-Header-Content-Length is not a number of bytes: {value[:40]!r}")
    # A number of more digits than the body's length has is larger than it; int() refuses very long ones.
    if len(value.lstrip("0")) > 18 or int(value) > body_length:
        raise bad_request(f"Inference-Header-Content-Length {value[:40]} is larger than the body, {body_length} bytes")
    return int(value)


def decode(
    body: bytes | bytearray, header: str | None, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> InferRequest:
    """The request in `body`, checked against what the pipeline takes and gives.

    `header`: the value of Inference-Header-Content-Length, None when the body is JSON only. Tensors that came as
    binary may be views of `body`. Raises OipError, with a message that names the tensor.
    """
    view = memoryview(body)
    length = header_length(header, len(body))
    request = _parse(view[:length])
    identity = request.get("id")
    if identity is not None and not isinstance(identity, str):
        raise bad_request("id must be a string")
    parameters = _mapping(request.get("parameters"), "parameters")
    return InferRequest(
        id=identity,
        inputs=_inputs(request.get("inputs"), view[length:], inputs),
        outputs=_outputs(request.get("outputs"), _flag(parameters, "binary_data_output", "parameters"), outputs),
    )


def _parse(text: memoryview) -> dict[str, object]:
    try:
        request = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise bad_request(f"the request is not valid JSON: {error}") from None
    if not isinstance(request, dict):
        raise bad_request("the request must be a JSON object")
    return request


def _inputs(entries: object, binary: memoryview, specs: Sequence[TensorSpec]) -> dict[str, Array]:
    if not isinstance(entries, list):
        raise bad_request("inputs must be a list of tensors")
    known = {spec.name: spec for spec in specs}
    found: dict[str, Array] = {}
    at = 0
    for index, value in enumerate(entries):
        entry = _mapping(value, f"inputs[{index}]", required=True)
        name = entry.get("name")
        if not isinstance(name, str):
            raise bad_request(f"inputs[{index}]: name must be a string")
        spec = next_input(name, known, found)
        size = _binary_size(entry, name, len(binary) - at)
        found[name] = _tensor(entry, spec, None if size is None else binary[at : at + size])
        at += size or 0
    check_complete(known, found)
    if at != len(binary):
        raise bad_request(f"the body holds {len(binary)} bytes of binary data, the inputs account for {at}")
    return found


def _tensor(entry: Mapping[str, object], spec: TensorSpec, raw: memoryview | None) -> Array:
    check_datatype(spec, entry.get("datatype"))
    shape = entry.get("shape")
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise bad_request(f"input {spec.name!r}: shape must be a list of sizes, 0 or more")
    check_shape(spec, shape)
    if raw is None:
        if "data" not in entry:
            raise bad_request(f"input {spec.name!r}: data is missing")
        return from_json(spec.name, entry["data"], spec.datatype, shape)
    if "data" in entry:
        raise bad_request(f"input {spec.name!r}: has data and binary_data_size; give one")
    return from_binary(spec.name, raw, spec.datatype, shape)


def _binary_size(entry: Mapping[str, object], name: str, left: int) -> int | None:
    parameters = _mapping(entry.get("parameters"), f"parameters of input {name!r}")
    size = parameters.get("binary_data_size")
    if size is None:
        return None
    if type(size) is not int or size < 0:
        raise bad_request(f"input {name!r}: binary_data_size must be a number of bytes")
    if size > left:
        raise bad_request(f"input {name!r}: binary_data_size is {size}, the body has {left} bytes of binary data left")
    return size


def _outputs(entries: object, binary: bool | None, specs: Sequence[TensorSpec]) -> tuple[RequestedOutput, ...]:
    known = [spec.name for spec in specs]
    if entries is None or entries == []:
        return tuple(RequestedOutput(name, bool(binary)) for name in known)
    if not isinstance(entries, list):
        raise bad_request("outputs must be a list")
    found: dict[str, RequestedOutput] = {}
    for index, value in enumerate(entries):
        entry = _mapping(value, f"outputs[{index}]", required=True)
        name = entry.get("name")
        if not isinstance(name, str) or name not in known:
            raise bad_request(f"there is no output {str(name)[:80]!r}; the outputs are {', '.join(known)}")
        if name in found:
            raise bad_request(f"output {name!r} is requested twice")
        own = _flag(_mapping(entry.get("parameters"), f"parameters of output {name!r}"), "binary_data", name)
        found[name] = RequestedOutput(name, bool(binary) if own is None else own)
    return tuple(found.values())


def _flag(parameters: Mapping[str, object], key: str, where: str) -> bool | None:
    value = parameters.get(key)
    if value is not None and not isinstance(value, bool):
        raise bad_request(f"{where}: {key} must be true or false")
    return value


def _mapping(value: object, where: str, *, required: bool = False) -> dict[str, object]:
    if value is None and not required:
        return {}
    if not isinstance(value, dict):
        raise bad_request(f"{where} must be an object")
    return value
