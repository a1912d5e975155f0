"""A real server under load: no request lost, none answered wrongly, also while it ends."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnxruntime
import pytest
from tests.engine.conftest import HEADGATE, Start

from headgate.core.config import Document, validate
from headgate.engine.engine import Engine, load_engine
from headgate.engine.oip.errors import OipError
from headgate.engine.oip.response import Response
from headgate.engine.settings import EngineSettings

WIDTH = 256


def body(values: np.ndarray) -> tuple[bytes, str]:
    entry = {
        "name": "x",
        "datatype": "FP32",
        "shape": list(values.shape),
        "parameters": {"binary_data_size": values.nbytes},
    }
    head = json.dumps({"inputs": [entry], "parameters": {"binary_data_output": True}}).encode()
    return head + values.tobytes(), str(len(head))


def rows(count: int, size: int) -> np.ndarray:
    return np.random.default_rng(7).standard_normal((count, size, WIDTH)).astype(np.float32)


def direct(models: Path, values: np.ndarray) -> list[bytes]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(models / "heavy.onnx"), options)
    return [session.run(None, {"x": value})[0].tobytes() for value in values]


def engine(models: Path, **settings: Any) -> Engine:
    pipelines = [{"name": name, "steps": [{"model": "heavy.onnx"}]} for name in "abc"]
    document = Document(str(models / "engine.yaml"), {"pipelines": pipelines, "budget": "2", **settings})
    return load_engine(validate(document, EngineSettings), document)


@pytest.mark.parametrize("settings", [{}, {"lend": False}, {"control": "none"}])
def test_no_request_is_lost_over_a_hundred_changes_of_grants(models: Path, settings: dict[str, Any]) -> None:
    values = rows(50, 8)
    expected = direct(models, values)
    served = engine(models, **settings)
    served.apply({"a": 1000, "b": 600, "c": 400})
    answers: dict[int, list[Response]] = {}
    done = threading.Semaphore(0)

    def reply(number: int, response: Response) -> None:
        answers.setdefault(number, []).append(response)
        done.release()

    for number in range(2000):
        request, header = body(values[number % 50])
        served.submit("abc"[number % 3], request, header, lambda response, number=number: reply(number, response))
    random = np.random.default_rng(3)
    for _ in range(100):
        cuts = sorted(random.integers(0, 2001, 2).tolist())
        served.apply({"a": cuts[0], "b": cuts[1] - cuts[0], "c": 2000 - cuts[1]})
        time.sleep(0.002)
    served.apply({"a": 700, "b": 700, "c": 600})
    for _ in range(2000):
        assert done.acquire(timeout=60)
    served.close()
    assert sorted(answers) == list(range(2000))
    for number, responses in answers.items():
        (response,) = responses
        assert response.status == 200
        length = int(dict(response.headers)[b"inference-header-content-length"])
        assert response.body[length:] == expected[number % 50]
    assert sum(served.tallies[name].totals().requests for name in "abc") == 2000


def test_a_full_queue_refuses_at_once_and_counts(models: Path) -> None:
    pipelines = [{"name": "a", "steps": [{"model": "heavy.onnx"}], "queue": 3, "slo": {"latency": "1m"}}]
    served = engine(models, pipelines=pipelines, lend=False)
    served.apply({"a": 0})
    answered = threading.Semaphore(0)
    request, header = body(rows(1, 1)[0])
    # The first one runs, to show what a request costs; without a grant the next three wait.
    for _ in range(4):
        served.submit("a", request, header, lambda _: answered.release())
    with pytest.raises(OipError) as refused:
        served.submit("a", request, header, lambda _: answered.release())
    assert (refused.value.status, refused.value.retry_after) == (503, 1)
    assert served.load("a")[0] == 3
    served.apply({"a": 2000})
    for _ in range(4):
        assert answered.acquire(timeout=30)
    served.close()
    totals = served.tallies["a"].totals()
    assert (totals.codes, totals.refused, totals.slo_misses) == ({200: 4, 503: 1}, 1, 1)


async def ask(url: str, values: np.ndarray, count: int, pipelines: str = "abc") -> list[httpx.Response | Exception]:
    # httpx looks through all of its waiting requests at each one: they wait here instead.
    turn = asyncio.Semaphore(64)
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=httpx.Limits(max_connections=64)) as client:

        async def one(number: int) -> httpx.Response:
            request, header = body(values[number % len(values)])
            async with turn:
                return await client.post(
                    f"/v2/models/{pipelines[number % len(pipelines)]}/infer",
                    content=request,
                    headers={"Inference-Header-Content-Length": header},
                )

        return await asyncio.gather(*(one(number) for number in range(count)), return_exceptions=True)


def outputs(answer: httpx.Response) -> bytes:
    return answer.content[int(answer.headers["inference-header-content-length"]) :]


THREE = [{"name": name, "steps": [{"model": "heavy.onnx"}]} for name in "abc"]


def test_http_answers_are_those_of_a_direct_run_while_decisions_are_made(models: Path, start: Start) -> None:
    values = rows(20, 8)
    expected = direct(models, values)
    server = start(budget="2", interval="10ms", pipelines=THREE)
    samples: list[dict[str, Any]] = []
    stop = threading.Event()

    def watch() -> None:
        with httpx.Client(base_url=server.url) as client:
            while not stop.is_set():
                samples.append(client.get("/headgate/status").json())
                time.sleep(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    answers = asyncio.run(ask(server.url, values, 400))
    stop.set()
    watcher.join()
    for number, answer in enumerate(answers):
        assert isinstance(answer, httpx.Response), answer
        assert answer.status_code == 200
        assert outputs(answer) == expected[number % 20]
    assert samples[-1]["decisions"] > samples[0]["decisions"]
    assert len({tuple(p["granted"] for p in sample["pipelines"].values()) for sample in samples}) > 1
    for sample in samples:
        assert sum(pipeline["granted"] for pipeline in sample["pipelines"].values()) == 2000
    assert server.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_under_load_loses_no_accepted_request(models: Path, start: Start, number: int) -> None:
    values = rows(10, 64)
    expected = direct(models, values)
    server = start(budget="2", lend=False, pipelines=THREE)

    async def scene() -> tuple[list[httpx.Response | Exception], int]:
        load = asyncio.create_task(ask(server.url, values, 64))
        async with httpx.AsyncClient(base_url=server.url) as client:
            while (await client.get("/headgate/status")).json()["pipelines"]["a"]["requests"] == 0:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        code = await asyncio.to_thread(server.stop, number)
        return await load, code

    answers, code = asyncio.run(scene())
    assert code == 0, server.errors
    for index, answer in enumerate(answers):
        assert isinstance(answer, httpx.Response), answer
        assert answer.status_code == 200
        assert outputs(answer) == expected[index % 10]


def stuck(start: Start, **settings: Any) -> tuple[Any, socket.socket]:
    """A server with a request that never ends: its body does not come."""
    server = start(pipelines=THREE, **settings)
    host, port = server.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)))
    connection.sendall(
        b"POST /v2/models/a/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n"
    )
    assert connection.recv(100).startswith(b"HTTP/1.1 100")
    return server, connection


def test_not_ready_while_it_ends_and_a_second_signal_ends_it_at_once(start: Start) -> None:
    server, connection = stuck(start)
    with connection, httpx.Client(base_url=server.url) as client:
        assert client.get("/v2/health/ready").status_code == 200
        server.process.send_signal(signal.SIGTERM)
        while (ready := client.get("/v2/health/ready")).status_code == 200:
            time.sleep(0.01)
        assert ready.status_code == 503
        assert client.get("/v2/health/live").status_code == 200
        assert server.stop() == 128 + signal.SIGTERM


def test_the_grace_period_ends_what_does_not_end(start: Start) -> None:
    server, connection = stuck(start, grace="300ms")
    with connection:
        assert server.stop() == 1
        assert "grace period" in "".join(server.errors)


def test_a_port_in_use_is_said(models: Path, write_settings: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        path = write_settings({"listen": f"127.0.0.1:{port}", "pipelines": THREE}, "taken.yaml")
        ended = subprocess.run([*HEADGATE, "serve", str(path)], check=False, capture_output=True, text=True)
    assert ended.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in ended.stderr
    assert "Traceback" not in ended.stderr
