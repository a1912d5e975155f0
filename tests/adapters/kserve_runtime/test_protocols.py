"""KServe's own HTTP and gRPC servers in front of the engine: right answers, and the right errors."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import onnxruntime
import pytest
from kserve import InferenceGRPCClient, InferInput, InferRequest, InferResponse
from kserve.protocol.infer_type import RequestedOutput

from .conftest import Running

ROWS = np.random.default_rng(5).standard_normal((3, 4)).astype(np.float32)


def direct(models: Path, name: str, **inputs: np.ndarray) -> list[np.ndarray]:
    return list(onnxruntime.InferenceSession(str(models / f"{name}.onnx")).run(None, inputs))


def v1(server: Running, model: str, body: object) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/models/{model}:predict", json=body, timeout=30)


def v2(server: Running, model: str, *inputs: dict[str, Any], **rest: Any) -> httpx.Response:
    return httpx.post(f"{server.url}/v2/models/{model}/infer", json={"inputs": inputs, **rest}, timeout=30)


def entry(name: str, values: np.ndarray, datatype: str = "FP32") -> dict[str, Any]:
    return {"name": name, "shape": list(values.shape), "datatype": datatype, "data": values.ravel().tolist()}


def binary(
    server: Running, model: str, inputs: Sequence[dict[str, Any]], raw: bytes, **rest: Any
) -> tuple[httpx.Response, dict[str, Any], bytes]:
    """The answer, its JSON, and what is behind it."""
    head = json.dumps({"inputs": inputs, **rest}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}
    answer = httpx.post(f"{server.url}/v2/models/{model}/infer", content=head + raw, headers=headers, timeout=30)
    length = int(answer.headers.get("inference-header-content-length", len(answer.content)))
    return answer, json.loads(answer.content[:length]), answer.content[length:]


def sized(name: str, values: np.ndarray, size: int, datatype: str = "FP32") -> dict[str, Any]:
    parameters = {"binary_data_size": size}
    return {"name": name, "shape": list(values.shape), "datatype": datatype, "parameters": parameters}


def test_v1_instances_are_rows_and_so_are_predictions(server: Running, models: Path) -> None:
    answer = v1(server, "first", {"instances": ROWS.tolist()})
    assert answer.status_code == 200
    np.testing.assert_allclose(answer.json()["predictions"], direct(models, "first", x=ROWS)[0], rtol=1e-6)
    hidden = direct(models, "first", x=ROWS)[0]
    chained = v1(server, "chain", {"instances": ROWS.tolist()}).json()["predictions"]
    np.testing.assert_allclose(chained, direct(models, "second", h=hidden)[0], rtol=1e-5)


def test_v1_names_several_inputs_and_outputs(server: Running) -> None:
    instances = [{"a": row.tolist(), "b": (2 * row).tolist()} for row in ROWS]
    predictions = v1(server, "pair", {"instances": instances}).json()["predictions"]
    np.testing.assert_allclose([row["sum"] for row in predictions], ROWS + 2 * ROWS, rtol=1e-6)
    np.testing.assert_allclose([row["difference"] for row in predictions], ROWS - 2 * ROWS, rtol=1e-6)


def test_v1_strings_and_scalars(server: Running) -> None:
    assert v1(server, "text", {"instances": ["ä", "b"]}).json() == {"predictions": ["ä", "b"]}
    assert v1(server, "total", {"instances": [[1, 2, 3, 4], [5, 6, 7, 8]]}).json() == {"predictions": 36.0}


def test_v2_json(server: Running, models: Path) -> None:
    answer = v2(server, "first", entry("x", ROWS), id="mine")
    assert answer.status_code == 200
    found = answer.json()
    (output,) = found["outputs"]
    assert (found["id"], found["model_name"]) == ("mine", "first")
    assert (output["name"], output["shape"], output["datatype"]) == ("h", [3, 4], "FP32")
    np.testing.assert_allclose(output["data"], direct(models, "first", x=ROWS)[0].ravel(), rtol=1e-6)


def test_v2_binary_both_ways(server: Running, models: Path) -> None:
    flag = {"binary_data_output": True}
    answer, head, raw = binary(server, "first", [sized("x", ROWS, ROWS.nbytes)], ROWS.tobytes(), parameters=flag)
    assert answer.status_code == 200
    assert head["outputs"][0]["parameters"] == {"binary_data_size": ROWS.nbytes}
    assert raw == direct(models, "first", x=ROWS)[0].tobytes()


def test_v2_mixes_json_and_binary_and_answers_only_what_is_wanted(server: Running) -> None:
    inputs = [entry("a", ROWS), sized("b", ROWS, ROWS.nbytes)]
    wanted = [{"name": "difference", "parameters": {"binary_data": True}}, {"name": "sum"}]
    _, head, raw = binary(server, "pair", inputs, ROWS.tobytes(), outputs=wanted)
    assert [output["name"] for output in head["outputs"]] == ["difference", "sum"]
    assert raw == (ROWS - ROWS).tobytes()
    np.testing.assert_allclose(head["outputs"][1]["data"], (ROWS + ROWS).ravel(), rtol=1e-6)
    _, head, raw = binary(
        server, "pair", inputs, ROWS.tobytes(), outputs=[{"name": "sum"}], parameters={"binary_data_output": True}
    )
    assert raw == (ROWS + ROWS).tobytes()


def test_v2_strings_as_json_and_binary(server: Running) -> None:
    words = np.array(["ä", "bc"], dtype=object)
    assert v2(server, "text", entry("x", words, "BYTES")).json()["outputs"][0]["data"] == ["ä", "bc"]
    raw = b"".join(len(word.encode()).to_bytes(4, "little") + word.encode() for word in words)
    _, head, _ = binary(server, "text", [sized("x", words, len(raw), "BYTES")], raw)
    assert head["outputs"][0]["data"] == ["ä", "bc"]


def grpc_infer(server: Running, request: InferRequest) -> InferResponse:
    async def ask() -> InferResponse:
        client = InferenceGRPCClient(server.grpc)
        try:
            return await client.infer(request, timeout=30)
        finally:
            await client.close()

    return asyncio.run(ask())


def test_v2_over_grpc(server: Running, models: Path) -> None:
    for raw in (True, False):
        tensor = InferInput("x", list(ROWS.shape), "FP32")
        tensor.set_data_from_numpy(ROWS, binary_data=raw)
        answer = grpc_infer(server, InferRequest("first", [tensor]))
        np.testing.assert_allclose(answer.outputs[0].as_numpy(), direct(models, "first", x=ROWS)[0], rtol=1e-6)
    words = InferInput("x", [2], "BYTES")
    words.set_data_from_numpy(np.array(["ä", "bc"], dtype=object), binary_data=True)
    assert [w.decode() for w in grpc_infer(server, InferRequest("text", [words])).outputs[0].as_numpy()] == ["ä", "bc"]
    pair = [InferInput(name, list(ROWS.shape), "FP32") for name in "ab"]
    for tensor in pair:
        tensor.set_data_from_numpy(ROWS)
    one = grpc_infer(server, InferRequest("pair", pair, request_outputs=[RequestedOutput("difference")]))
    assert [output.name for output in one.outputs] == ["difference"]


def test_errors_over_grpc(server: Running) -> None:
    tensor = InferInput("x", [1, 3], "FP32")
    tensor.set_data_from_numpy(ROWS[:1, :3])
    for model, code in (("first", grpc.StatusCode.INVALID_ARGUMENT), ("unknown", grpc.StatusCode.NOT_FOUND)):
        with pytest.raises(grpc.RpcError) as refused:
            grpc_infer(server, InferRequest(model, [tensor]))
        assert refused.value.code() == code


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"instances": [[1, 2, 3]]}, "shape [1, 3] does not fit [-1, 4]"),
        ({"instances": [[1, 2, 3, 4], [1]]}, "regular shape"),
        ({"instances": [["a", "b", "c", "d"]]}, "not FP32"),
        ({"instances": []}, "shape [0] does not fit [-1, 4]"),
        ({"instances": [[1, 2, 3, 4], {"x": [1, 2, 3, 4]}]}, "instances[0] must be an object with the inputs x"),
        ({"instances": {"x": 1}}, 'Expected "instances" to be a list'),
        ({"inputs": [[1, 2, 3, 4]]}, 'a list of "instances"'),
        ([1, 2], 'a list of "instances"'),
    ],
)
def test_what_does_not_fit_v1_is_a_bad_request(server: Running, body: object, message: str) -> None:
    answer = v1(server, "first", body)
    assert answer.status_code == 400
    assert message in answer.json()["error"]


def test_v1_says_what_it_needs(server: Running) -> None:
    several = v1(server, "pair", {"instances": [[1, 2, 3, 4]]})
    assert (several.status_code, several.json()["error"]) == (
        400,
        "model 'pair' has the inputs a, b: instances must be objects",
    )
    form = httpx.post(f"{server.url}/v1/models/first:predict", data={"instances": "1"})
    assert (form.status_code, "Content-Type: application/json" in form.json()["error"]) == (400, True)


@pytest.mark.parametrize(
    ("model", "tensor", "message"),
    [
        ("first", entry("x", ROWS[:, :3]), "shape [3, 3] does not fit [-1, 4]"),
        ("first", entry("x", ROWS, "FP64"), "datatype must be FP32, found 'FP64'"),
        ("first", entry("y", ROWS), "there is no input 'y'; the inputs are x"),
        ("first", entry("x", ROWS) | {"shape": [4, 4]}, "needs 16 elements, data has 12"),
        ("loose", entry("a", ROWS) | {"shape": [-3, -4]}, "shape [-3, -4] does not fit [-1, -1]"),
        ("pair", entry("a", ROWS), "missing input 'b'"),
    ],
)
def test_what_does_not_fit_v2_is_a_bad_request(
    server: Running, model: str, tensor: dict[str, Any], message: str
) -> None:
    answer = v2(server, model, tensor)
    assert answer.status_code == 400
    assert message in answer.json()["error"]


@pytest.mark.parametrize(
    ("inputs", "raw"),
    [
        ([sized("x", ROWS, ROWS.nbytes)], ROWS.tobytes()[:-1]),
        ([sized("x", ROWS, ROWS.nbytes)], ROWS.tobytes() + b"more"),
        ([sized("x", ROWS, 8)], bytes(8)),
        ([sized("x", ROWS, -1)], b""),
        ([{"name": "x", "shape": [1, 4], "datatype": "FP32"}], b""),
        ([{"shape": [1, 4], "datatype": "FP32", "parameters": {"binary_data_size": 0}}], b""),
        ([sized("x", ROWS, 5, "BYTES")], b"\xff\xff\xff\xff!"),
    ],
)
def test_binary_tensors_that_do_not_fit_are_a_bad_request(
    server: Running, inputs: list[dict[str, Any]], raw: bytes
) -> None:
    answer, _, _ = binary(server, "first", inputs, raw)
    assert answer.status_code == 400, answer.text


def test_a_body_that_says_neither_json_nor_tensors_is_told_how_to(server: Running) -> None:
    """As curl sends one with -d and no header."""
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    for path in ("/v1/models/first:predict", "/v2/models/first/infer"):
        answer = httpx.post(f"{server.url}{path}", content=b"{}", headers=form)
        assert answer.status_code == 400
        assert "Content-Type: application/json" in answer.json()["error"]


def test_unknown_models_and_outputs(server: Running) -> None:
    assert v1(server, "unknown", {"instances": [1]}).status_code == 404
    assert v2(server, "unknown", entry("x", ROWS)).status_code == 404
    assert httpx.get(f"{server.url}/v2/models/unknown/ready").status_code == 404
    answer = v2(server, "first", entry("x", ROWS), outputs=[{"name": "z"}])
    assert (answer.status_code, answer.json()["error"]) == (400, "there is no output 'z'; the outputs are h")


def test_a_model_that_fails_answers_500_and_goes_on(server: Running) -> None:
    for rows, code in ((ROWS[:2], 500), (ROWS, 200)):
        answer = v2(server, "failing", entry("x", rows))
        assert answer.status_code == code, answer.text
    assert "failed to run" in v2(server, "failing", entry("x", ROWS[:2])).json()["error"]


def test_readiness_and_metadata_of_each_model(server: Running) -> None:
    assert httpx.get(f"{server.url}/v2/health/ready").json() == {"ready": True}
    assert "chain" in httpx.get(f"{server.url}/v1/models").json()["models"]
    assert httpx.get(f"{server.url}/v1/models/pair").json() == {"name": "pair", "ready": True}
    found = httpx.get(f"{server.url}/v2/models/pair").json()
    assert found["inputs"] == [{"name": name, "datatype": "FP32", "shape": [-1, 4]} for name in "ab"]
    assert [output["name"] for output in found["outputs"]] == ["sum", "difference"]


def test_an_unloaded_model_is_gone_until_it_is_loaded_again(server: Running) -> None:
    def repository(verb: str) -> int:
        return httpx.post(f"{server.url}/v2/repository/models/double/{verb}").status_code

    def served() -> int:
        return v1(server, "double", {"instances": ROWS.tolist()}).status_code

    assert served() == 200
    assert repository("unload") == 200
    assert served() == 404
    assert repository("load") == 200
    assert served() == 200


def test_metrics_of_both(server: Running) -> None:
    for _ in range(3):
        v1(server, "first", {"instances": ROWS.tolist()})
    text = httpx.get(f"{server.url}/metrics").text
    values = {
        name: float(value)
        for name, value in (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    }
    assert values['request_predict_seconds_count{model_name="first"}'] >= 3
    assert values['headgate_requests_total{code="200",pipeline="first"}'] >= 3
    assert values["headgate_budget_cores"] == 1
    granted = [value for name, value in values.items() if name.startswith("headgate_cpu_granted_cores{")]
    assert sum(granted) == pytest.approx(1)
    assert httpx.get(f"{server.url}/headgate/status").json()["pipelines"]["chain"]["floor"] == 100
