"""KServe's V2 protocol (Open Inference Protocol), REST and gRPC: its request and answer objects, and tensors."""

from __future__ import annotations

import struct
import uuid
from typing import Any

import orjson
from kserve import InferInput, InferOutput, InferRequest, InferResponse
from kserve.errors import InvalidInput
from kserve.protocol.infer_type import RequestedOutput
from kserve.protocol.rest.v2_datamodels import InferenceRequest

from headgate.core.hookspecs import Tensor
from headgate.core.serving import InputTensor, InvalidRequest, Run, ServedModel


def infer(request: InferRequest, model: ServedModel, run: Run) -> InferResponse:
    """The answer to `request`. Raises InvalidRequest, and what `run` raises."""
    # An output that does not say how it wants its data is as the request says for all.
    wanted = [
        RequestedOutput(output.name, {"binary_data": _flag(output.binary_data, request.use_binary_outputs)})
        for output in request.request_outputs or ()
    ]
    outputs = run([_tensor(entry) for entry in request.inputs], [output.name for output in wanted] or None)
    datatypes = {tensor.name: tensor.datatype for tensor in model.outputs}
    answered = [InferOutput(name, list(array.shape), datatypes[name], data=array) for name, array in outputs.items()]
    if request.from_grpc:
        # Left as an array, KServe's gRPC server asks for its truth value.
        for output in answered:
            output.set_data_from_numpy(output.data)
    return InferResponse(
        response_id=request.id or str(uuid.uuid4()),
        model_name=model.name,
        infer_outputs=answered,
        use_binary_outputs=request.use_binary_outputs,
        requested_outputs=wanted or None,
    )


def metadata(tensors: tuple[Tensor, ...]) -> list[dict[str, object]]:
    """Inputs or outputs as the protocol's model metadata has them."""
    return [
        {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": [-1 if size is None else size for size in tensor.shape or ()],
        }
        for tensor in tensors
    ]


def from_binary(body: bytes, length: str | None, model: str) -> InferRequest:
    """The request in a body with binary tensors behind `length` bytes of JSON. Raises InvalidInput.

    KServe's own reading turns every binary tensor into a list of Python numbers, on the event loop, and answers 500 to
    most mistakes.
    """
    if length is None:
        raise InvalidInput(
            "the request is no JSON: send it with Content-Type: application/json; one with binary tensors has the "
            "header Inference-Header-Content-Length, the length of its JSON"
        )
    try:
        at = int(length)
        head = orjson.loads(body[:at])
        raw: list[bytes | None] = []
        for entry in head["inputs"]:
            if "data" in entry:
                raw.append(None)
                continue
            size = entry["parameters"]["binary_data_size"]
            raw.append(body[at : at + size])
            if size < 0 or len(body) < at + size:
                raise ValueError(f"input {entry['name']!r} has a binary_data_size of {size}, the body is shorter")
            at += size
            entry["data"] = []
        if at != len(body):
            raise ValueError(f"the body has {len(body)} bytes, the inputs account for {at}")
        request = InferRequest.from_inference_request(InferenceRequest.model_validate(head), model)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise InvalidInput(f"not a request with binary tensors: {error}") from None
    return InferRequest(
        model_name=model,
        infer_inputs=request.inputs,
        request_id=request.id,
        raw_inputs=raw,
        parameters=request.parameters,
        request_outputs=request.request_outputs,
    )


def _tensor(entry: InferInput) -> InputTensor:
    data: Any = entry.data
    if not data:  # binary, or empty
        try:
            data = entry.as_numpy()
        except (ValueError, struct.error):
            raise InvalidRequest(
                f"input {entry.name!r}: its binary data are not {entry.datatype} of shape {list(entry.shape)}"
            ) from None
    if entry.datatype == "BYTES":
        data = _text(entry.name, data)
    return InputTensor(entry.name, data, entry.datatype, entry.shape)


def _text(name: str, data: Any) -> Any:
    """ONNX's strings are text, and neither binary tensors nor gRPC have any."""
    try:
        if isinstance(data, list):
            return [item.decode() if isinstance(item, bytes) else item for item in data]
        for index, item in enumerate(flat := data.reshape(-1)):
            flat[index] = item.decode() if isinstance(item, bytes) else item
    except UnicodeDecodeError:
        raise InvalidRequest(f"input {name!r}: a BYTES element is not UTF-8, which ONNX strings are") from None
    return data


def _flag(own: bool | None, default: bool) -> bool:
    return default if own is None else own
