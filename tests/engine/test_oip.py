"""The codecs: what goes in comes out, and what does not fit is refused by name."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from headgate.engine.oip.datatypes import NUMPY, TensorSpec
from headgate.engine.oip.errors import OipError
from headgate.engine.oip.request import InferRequest, RequestedOutput, decode
from headgate.engine.oip.response import encode

Y = TensorSpec("y", "FP32", (None,))


@st.composite
def tensors(draw: st.DrawFn, *, finite: bool) -> tuple[str, np.ndarray]:
    datatype = draw(st.sampled_from(sorted(NUMPY)))
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
    if datatype == "BYTES":
        array = np.empty(shape, dtype=object)
        array.reshape(-1)[:] = draw(st.lists(st.text(max_size=5), min_size=array.size, max_size=array.size))
        return datatype, array
    array = draw(hnp.arrays(NUMPY[datatype], shape))
    assume(not finite or array.dtype.kind != "f" or bool(np.isfinite(array).all()))
    return datatype, array


def through(datatype: str, array: np.ndarray, *, binary: bool) -> np.ndarray:
    """`array` encoded as an answer, whose tensor is then decoded as the input of a request."""
    request = InferRequest("id", {}, (RequestedOutput("x", binary),))
    response = encode("model", "1", request, {"x": array})
    header = dict(response.headers).get(b"inference-header-content-length")
    length = int(header) if header else len(response.body)
    answer = orjson.loads(response.body[:length])
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("model", "1", "id")
    body = orjson.dumps({"inputs": answer["outputs"]})
    spec = TensorSpec("x", datatype, tuple(None for _ in array.shape))
    found = decode(body + response.body[length:], str(len(body)), [spec], [Y])
    return found.inputs["x"]


@settings(max_examples=200)
@given(tensors(finite=False))
def test_a_tensor_survives_the_binary_form(value: tuple[str, np.ndarray]) -> None:
    datatype, array = value
    found = through(datatype, array, binary=True)
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)
    assert found.flags.aligned


@settings(max_examples=200)
@given(tensors(finite=True))
def test_a_tensor_survives_json(value: tuple[str, np.ndarray]) -> None:
    datatype, array = value
    found = through(datatype, array, binary=False)
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


@given(
    hnp.arrays(np.float32, hnp.array_shapes(min_side=1, max_side=3), elements=st.floats(-9, 9, width=32)),
    st.booleans(),
)
def test_nested_and_flat_lists_mean_the_same(array: np.ndarray, nested: bool) -> None:
    data = array.tolist() if nested else array.ravel().tolist()
    entry = {"name": "x", "datatype": "FP32", "shape": list(array.shape), "data": data}
    spec = TensorSpec("x", "FP32", None)
    np.testing.assert_array_equal(decode(orjson.dumps({"inputs": [entry]}), None, [spec], [Y]).inputs["x"], array)


X = TensorSpec("x", "FP32", (None, 2))


def request(**changes: Any) -> dict[str, Any]:
    entry = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2], **changes}
    return {"inputs": [{key: value for key, value in entry.items() if value is not None}]}


WRONG: dict[str, tuple[Any, str]] = {
    "no object": ([], "JSON object"),
    "no inputs": ({}, "inputs must be a list"),
    "inputs no list": ({"inputs": {}}, "inputs must be a list"),
    "input no object": ({"inputs": [1]}, r"inputs\[0\] must be an object"),
    "no name": (request(name=None), "name must be a string"),
    "unknown name": (request(name="z"), "no input 'z'; the inputs are x"),
    "missing": ({"inputs": []}, "missing input 'x'"),
    "twice": ({"inputs": request()["inputs"] * 2}, "given twice"),
    "wrong datatype": (request(datatype="INT64"), "datatype must be FP32, found 'INT64'"),
    "no datatype": (request(datatype=None), "datatype must be FP32"),
    "unhashable datatype": (request(datatype=[1]), "datatype must be FP32"),
    "wrong rank": (request(shape=[2]), r"shape \[2\] does not fit \[-1, 2\]"),
    "wrong size": (request(shape=[1, 3], data=[1, 2, 3]), "does not fit"),
    "negative size": (request(shape=[-1, 2]), "shape must be a list"),
    "fractional size": (request(shape=[1.0, 2]), "shape must be a list"),
    "boolean size": (request(shape=[True, 2]), "shape must be a list"),
    "no shape": (request(shape=None), "shape must be a list"),
    "huge size": (request(shape=[2**62, 2]), "needs .* elements, data has 2"),
    "too few": (request(data=[1]), "needs 2 elements, data has 1"),
    "too many": (request(data=[1, 2, 3]), "needs 2 elements, data has 3"),
    "no data": (request(data=None), "data is missing"),
    "data no list": (request(data=7), "data must be a list"),
    "text": (request(data=["1", "2"]), "not FP32"),
    "null": (request(data=[1, [None]]), "not FP32"),
    "nulls": (request(data=[None, None]), "not FP32"),
    "objects": (request(data=[{}, {}]), "not FP32"),
    "booleans": (request(data=[True, False]), "not FP32"),
    "ragged": (request(data=[[1], [1, 2]]), "regular shape"),
    "nested otherwise": (request(data=[[1], [2]]), "nested as"),
    "too large for the type": (request(data=[1e300, 1]), "not FP32 values"),
    "id": ({**request(), "id": 7}, "id must be a string"),
    "parameters": ({**request(), "parameters": 7}, "parameters must be an object"),
    "binary flag": ({**request(), "parameters": {"binary_data_output": 1}}, "true or false"),
    "outputs": ({**request(), "outputs": 7}, "outputs must be a list"),
    "unknown output": ({**request(), "outputs": [{"name": "z"}]}, "no output 'z'; the outputs are y"),
    "output twice": ({**request(), "outputs": [{"name": "y"}, {"name": "y"}]}, "requested twice"),
    "size without data": (request(data=None, parameters={"binary_data_size": 8}), "the body has 0 bytes"),
    "both": (request(parameters={"binary_data_size": 0}), "give one"),
    "negative binary": (request(data=None, parameters={"binary_data_size": -8}), "must be a number of bytes"),
    "text binary": (request(data=None, parameters={"binary_data_size": "8"}), "must be a number of bytes"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_refused_by_name(case: str) -> None:
    body, message = WRONG[case]
    with pytest.raises(OipError, match=message) as refused:
        decode(orjson.dumps(body), None, [X], [Y])
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("datatype", "data"),
    [("INT8", [128]), ("UINT8", [-1]), ("INT64", [2**63]), ("INT32", [1.5]), ("BOOL", [1]), ("BYTES", [1])],
)
def test_values_outside_their_type_are_refused(datatype: str, data: list[Any]) -> None:
    body = {"inputs": [{"name": "x", "datatype": datatype, "shape": [1], "data": data}]}
    with pytest.raises(OipError, match=datatype):
        decode(orjson.dumps(body), None, [TensorSpec("x", datatype, (None,))], [Y])


@pytest.mark.parametrize("text", [b"", b"{", b"\xff", b'{"inputs": [NaN]}', b"[" * 5000, b'{"a": 1} 2'])
def test_what_is_not_json_is_refused(text: bytes) -> None:
    with pytest.raises(OipError, match="not valid JSON"):
        decode(text, None, [X], [Y])


@pytest.mark.parametrize("header", ["", "x", "-1", "1.5", "99999", "9" * 5000, "٣"])
def test_a_header_length_that_cannot_be_is_refused(header: str) -> None:
    with pytest.raises(OipError, match="Inference-Header-Content-Length"):
        decode(orjson.dumps(request()), header, [X], [Y])


@pytest.mark.parametrize(
    ("raw", "size", "message"),
    [
        (b"\0" * 4, 4, "needs 8 bytes, binary_data_size is 4"),
        (b"\0" * 12, 8, "holds 12 bytes of binary data, the inputs account for 8"),
        (b"\0" * 7, 8, "the body has 7 bytes"),
    ],
)
def test_binary_data_of_another_length_is_refused(raw: bytes, size: int, message: str) -> None:
    head = orjson.dumps(request(data=None, parameters={"binary_data_size": size}))
    with pytest.raises(OipError, match=message):
        decode(head + raw, str(len(head)), [X], [Y])


@pytest.mark.parametrize("raw", [b"\1\0\0", b"\5\0\0\0abc", b"\1\0\0\0\xff", b"\0\0\0\0", b"\0\0\0\0" * 3])
def test_binary_text_that_does_not_fit_is_refused(raw: bytes) -> None:
    entry = {"name": "x", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": len(raw)}}
    head = orjson.dumps({"inputs": [entry]})
    with pytest.raises(OipError, match="input 'x'"):
        decode(head + raw, str(len(head)), [TensorSpec("x", "BYTES", (None,))], [Y])


def test_a_binary_boolean_is_zero_or_one() -> None:
    entry = {"name": "x", "datatype": "BOOL", "shape": [2], "parameters": {"binary_data_size": 2}}
    head = orjson.dumps({"inputs": [entry]})
    with pytest.raises(OipError, match="0 or 1"):
        decode(head + b"\1\2", str(len(head)), [TensorSpec("x", "BOOL", (None,))], [Y])


@settings(max_examples=300)
@given(st.binary(max_size=60), st.one_of(st.none(), st.text(max_size=4)))
def test_no_body_at_all_raises_anything_else(body: bytes, header: str | None) -> None:
    with contextlib.suppress(OipError):
        decode(body, header, [X], [Y])


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=300)
@given(st.sampled_from(sorted(NUMPY)), JSON_VALUES, JSON_VALUES, JSON_VALUES)
def test_no_json_raises_anything_else(datatype: str, shape: Any, data: Any, parameters: Any) -> None:
    entry = {"name": "x", "datatype": datatype, "shape": shape, "data": data, "parameters": parameters}
    with contextlib.suppress(OipError):
        decode(orjson.dumps({"inputs": [entry]}), None, [TensorSpec("x", datatype, None)], [Y])
