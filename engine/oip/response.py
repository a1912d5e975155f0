"""Encodes what is answered: an inference, or an error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson

from headgate.engine.oip.datatypes import NUMPY, Array, to_binary, to_json
from headgate.engine.oip.errors import OipError
from headgate.engine.oip.request import InferRequest

Headers = tuple[tuple[bytes, bytes], ...]
JSON: Headers = ((b"content-type", b"application/json"),)
_DATATYPES = {dtype: name for name, dtype in NUMPY.items()}


@dataclass(frozen=True, slots=True)
class Response:
    """An answer as HTTP carries it; Content-Length is added by whoever sends it."""

    status: int
    body: bytes
    headers: Headers = field(default=JSON)


def encode(model: str, version: str, request: InferRequest, outputs: Mapping[str, Array]) -> Response:
    """The answer to `request`: its requested outputs in the order asked for, each as binary or as JSON."""
    tensors: list[dict[str, object]] = []
    binary: list[bytes] = []
    for wanted in request.outputs:
        array = outputs[wanted.name]
        tensor: dict[str, object] = {
            "name": wanted.name,
            "datatype": _DATATYPES[array.dtype],
            "shape": list(array.shape),
        }
        if wanted.binary:
            raw = to_binary(array)
            tensor["parameters"] = {"binary_data_size": len(raw)}
            binary.append(raw)
        else:
            tensor["data"] = to_json(array)
        tensors.append(tensor)
    answer: dict[str, object] = {"model_name": model, "model_version": version, "outputs": tensors}
    if request.id is not None:
        answer["id"] = request.id
    head = orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
    if not binary:
        return Response(200, head)
    headers = (
        (b"content-type", b"application/octet-stream"),
        (b"inference-header-content-length", str(len(head)).encode()),
    )
    return Response(200, b"".join([head, *binary]), headers)


def json_response(status: int, value: object, headers: Headers = ()) -> Response:
    """Any value as JSON; NaN and infinities become null."""
    return Response(status, orjson.dumps(value), (*JSON, *headers))


def error_response(error: OipError) -> Response:
    """The protocol's error object."""
    headers = () if error.retry_after is None else ((b"retry-after", str(error.retry_after).encode()),)
    return Response(error.status, orjson.dumps({"error": error.message}), (*JSON, *headers))
