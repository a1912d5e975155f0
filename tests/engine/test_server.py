"""The Open Inference Protocol over real HTTP, and what a client may do wrong. One server survives all of it."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnxruntime
import pytest
from tests.engine.conftest import Running

ROWS = np.arange(8, dtype=np.float32).reshape(2, 4) / 8
INFER = "/v2/models/chain/infer"


@pytest.fixture(scope="module")
def client(server: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=20) as client:
        yield client


@pytest.fixture(scope="module")
def expected(models: Path) -> np.ndarray:
    hidden = onnxruntime.InferenceSession(str(models / "first.onnx")).run(None, {"x": ROWS})[0]
    return onnxruntime.InferenceSession(str(models / "second.onnx")).run(None, {"h": hidden})[0]


def tensor(values: np.ndarray, name: str = "x", datatype: str = "FP32", **more: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": list(values.shape), "data": values.tolist(), **more}


def test_the_server_and_its_models_describe_themselves(client: httpx.Client) -> None:
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    server = client.get("/v2").json()
    assert server["name"] == "headgate"
    assert server["extensions"] == ["binary_tensor_data"]
    assert client.get("/v2/models/chain/ready").status_code == 200
    assert client.get("/v2/models/chain/versions/1/ready").status_code == 200
    assert (
        client.get("/v2/models/chain/versions/1").json()
        == client.get("/v2/models/chain").json()
        == {
            "name": "chain",
            "versions": ["1"],
            "platform": "onnx_onnxv1",
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 4]}],
        }
    )


def test_a_chain_answers_what_its_models_answer_in_a_row(client: httpx.Client, expected: np.ndarray) -> None:
    answer = client.post(INFER, json={"id": "7", "inputs": [tensor(ROWS)]}).json()
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("chain", "1", "7")
    (output,) = answer["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("y", "FP32", [2, 4])
    np.testing.assert_array_equal(np.array(output["data"], np.float32).reshape(2, 4), expected)


def test_binary_both_ways(client: httpx.Client, expected: np.ndarray) -> None:
    entry = tensor(ROWS, parameters={"binary_data_size": ROWS.nbytes})
    del entry["data"]
    head = json.dumps({"inputs": [entry], "outputs": [{"name": "y", "parameters": {"binary_data": True}}]}).encode()
    answer = client.post(
        "/v2/models/chain/versions/1/infer",
        content=head + ROWS.tobytes(),
        headers={"Inference-Header-Content-Length": str(len(head))},
    )
    length = int(answer.headers["inference-header-content-length"])
    (output,) = json.loads(answer.content[:length])["outputs"]
    assert output["parameters"] == {"binary_data_size": expected.nbytes}
    assert "data" not in output
    assert answer.content[length:] == expected.tobytes()


def test_a_body_in_chunks_is_accepted(client: httpx.Client, expected: np.ndarray) -> None:
    body = json.dumps({"inputs": [tensor(ROWS)]}).encode()
    answer = client.post(INFER, content=iter([body[:10], body[10:]])).json()
    np.testing.assert_array_equal(np.array(answer["outputs"][0]["data"], np.float32), expected.ravel())


def test_outputs_come_as_and_in_the_order_asked_for(client: httpx.Client) -> None:
    a, b = ROWS, ROWS + 1
    request = {
        "inputs": [tensor(b, "b"), tensor(a, "a")],
        "parameters": {"binary_data_output": True},
        "outputs": [{"name": "difference", "parameters": {"binary_data": False}}, {"name": "sum"}],
    }
    answer = client.post("/v2/models/pair/infer", json=request)
    length = int(answer.headers["inference-header-content-length"])
    difference, total = json.loads(answer.content[:length])["outputs"]
    assert (difference["name"], total["name"]) == ("difference", "sum")
    np.testing.assert_array_equal(difference["data"], (a - b).ravel())
    assert answer.content[length:] == (a + b).tobytes()


def test_text_and_scalars(client: httpx.Client) -> None:
    words = ["", "ü", "a\u0000b"]
    request = {"inputs": [{"name": "x", "datatype": "BYTES", "shape": [3], "data": words}]}
    assert client.post("/v2/models/text/infer", json=request).json()["outputs"][0]["data"] == words
    output = client.post("/v2/models/total/infer", json={"inputs": [tensor(ROWS)]}).json()["outputs"][0]
    assert (output["shape"], output["data"]) == ([], [float(ROWS.sum())])


def test_a_result_that_json_cannot_hold_is_null(client: httpx.Client) -> None:
    values = np.array([[np.nan, np.inf, 0, 1]])
    entry = tensor(values, datatype="FP64", parameters={"binary_data_size": values.nbytes})
    del entry["data"]
    head = json.dumps({"inputs": [entry]}).encode()
    answer = client.post(
        "/v2/models/double/infer",
        content=head + values.tobytes(),
        headers={"Inference-Header-Content-Length": str(len(head))},
    )
    assert answer.json()["outputs"][0]["data"] == [None, None, 0, 1]


def test_status_and_metrics_tell_what_was_served(client: httpx.Client) -> None:
    before = client.get("/headgate/status").json()
    client.post(INFER, json={"inputs": [tensor(ROWS)]})
    client.post(INFER, content=b"{")
    status = client.get("/headgate/status").json()
    assert sum(pipeline["granted"] for pipeline in status["pipelines"].values()) == status["budget"]
    chain = status["pipelines"]["chain"]
    assert chain["requests"] - before["pipelines"]["chain"]["requests"] == 2
    assert chain["floor"] == 100
    assert 0 < chain["latency"]["p50"] <= chain["latency"]["p99"]
    text = client.get("/metrics").text
    values = dict(re.findall(r"^(headgate_\S+) (\S+)$", text, re.MULTILINE))
    codes = sum(float(v) for k, v in values.items() if k.startswith("headgate_requests_total") and '"chain"' in k)
    assert codes == chain["requests"]
    assert float(values['headgate_request_duration_seconds_count{pipeline="chain"}']) == chain["requests"]
    assert float(values["headgate_budget_cores"]) == status["budget"] / 1000
    granted = sum(float(v) for k, v in values.items() if k.startswith("headgate_cpu_granted_cores"))
    assert granted == pytest.approx(status["budget"] / 1000)
    for name in ("queue_length", "running", "cpu_seconds_total", "slo_misses_total"):
        assert f'headgate_{name}{{pipeline="chain"}}' in values
    assert "headgate_decisions_total" in values
    assert "headgate_decision_seconds_count" in values


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v2/nothing", 404),
        ("GET", "/v2/models", 404),
        ("GET", "/v2/models/none", 404),
        ("GET", "/v2/models/none/ready", 404),
        ("GET", "/v2/models/chain/versions/2", 404),
        ("GET", "/v2/models/chain/versions/1/more", 404),
        ("POST", "/v2/models/none/infer", 404),
        ("POST", "/v2/models/chain/versions/2/infer", 404),
        ("POST", "/v2/models/chain/versions/1/2/infer", 404),
        ("GET", INFER, 405),
        ("PUT", INFER, 405),
        ("POST", "/v2", 405),
        ("DELETE", "/headgate/status", 405),
    ],
)
def test_what_is_not_there_is_said(client: httpx.Client, method: str, path: str, status: int) -> None:
    answer = client.request(method, path, content=b"{}" if method in ("POST", "PUT") else None)
    assert answer.status_code == status
    assert set(answer.json()) == {"error"}


MORE = 1 << 20  # max_body of the server


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"", {}, 400),
        (b"not json", {}, 400),
        (b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [NaN, 1, 2, 3]}]}', {}, 400),
        (json.dumps({"inputs": [tensor(ROWS, "z")]}).encode(), {}, 400),
        (json.dumps({"inputs": [tensor(ROWS.ravel())]}).encode(), {}, 400),
        (json.dumps({"inputs": [tensor(ROWS[:, :3])]}).encode(), {}, 400),
        (json.dumps({"inputs": [tensor(ROWS, datatype="FP64")]}).encode(), {}, 400),
        (json.dumps({"inputs": [tensor(ROWS) | {"shape": [3, 4]}]}).encode(), {}, 400),
        (b"{}", {"Inference-Header-Content-Length": "many"}, 400),
        (b"{}", {"Inference-Header-Content-Length": "-1"}, 400),
        (b"{}", {"Inference-Header-Content-Length": "3"}, 400),
        (b"{}", {"Content-Encoding": "gzip"}, 415),
        (b" " * (MORE + 1), {}, 413),
        (iter([b" " * MORE, b" " * MORE]), {}, 413),
    ],
)
def test_a_wrong_body_is_refused_and_the_next_is_served(
    client: httpx.Client, body: Any, headers: dict[str, str], status: int
) -> None:
    answer = client.post(INFER, content=body, headers=headers)
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error"}
    assert client.post(INFER, json={"inputs": [tensor(ROWS)]}).status_code == 200


def test_the_input_is_blamed_where_it_is_to_blame_and_the_model_otherwise(client: httpx.Client) -> None:
    loose = [tensor(ROWS, "a"), tensor(ROWS[:, :3], "b")]
    answer = client.post("/v2/models/loose/infer", json={"inputs": loose})
    assert (answer.status_code, "does not fit" in answer.json()["error"]) == (400, True)
    answer = client.post("/v2/models/failing/infer", json={"inputs": [tensor(ROWS)]})
    assert (answer.status_code, answer.json()) == (500, {"error": "model 'failing' failed to run"})


def raw(server: Running, data: bytes, *, end: bool = False) -> bytes:
    """What the server answers to exactly these bytes until it closes, or has sent a whole answer."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(data)
        if end:
            connection.shutdown(socket.SHUT_WR)
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
            if b"}" in received:
                break
        return received


HEAD = b"POST /v2/models/chain/infer HTTP/1.1\r\nHost: x\r\n"


def test_without_a_length_411(server: Running) -> None:
    assert raw(server, HEAD + b"\r\n").startswith(b"HTTP/1.1 411 ")


def test_too_large_is_said_before_the_body_comes(server: Running) -> None:
    answer = raw(server, HEAD + b"Content-Length: 99999999999\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer


@pytest.mark.parametrize(
    "data",
    [
        HEAD + b"Content-Length: 100\r\n\r\n{",
        HEAD + b"Content-Length: 100\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{",
        HEAD + b"Content-Length: -1\r\n\r\n{}",
        HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
        HEAD + b"Content-Length: 2\r\n\r\n{}trailing nonsense",
        b"\0\1\2\3\r\n\r\n",
    ],
)
def test_a_truncated_or_lying_request_ends_its_connection_only(
    server: Running, client: httpx.Client, data: bytes
) -> None:
    answer = raw(server, data, end=True)
    assert not answer or answer.startswith(b"HTTP/1.1 400 ")
    assert client.post(INFER, json={"inputs": [tensor(ROWS)]}).status_code == 200


def test_clients_learn_nothing_of_the_inside(client: httpx.Client) -> None:
    answers = [
        client.post("/v2/models/failing/infer", json={"inputs": [tensor(ROWS)]}),
        client.post(INFER, content=b"{"),
        client.post("/v2/models/%00%ff../infer", content=b"{}"),
    ]
    for answer in answers:
        assert answer.status_code in (400, 404, 500)
        assert not re.search(r"Traceback|\.py|onnxruntime|/home|/tmp", answer.text)
