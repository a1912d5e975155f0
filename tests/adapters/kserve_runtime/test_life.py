"""The model server under load, at its start and at its end."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from kserve import InferenceGRPCClient, InferInput, InferRequest
from tests.controller.test_plugins import invoke
from tests.engine.conftest import dense

from .conftest import Running, Start

TWO = [{"name": name, "steps": [{"model": "deep.onnx"}], "floor": "20m"} for name in ("flooded", "calm")]


def request(rows: int = 1) -> dict[str, Any]:
    return {"instances": [[1.0, 2.0, 3.0, 4.0]] * rows}


def status(server: Running) -> Any:
    return httpx.get(f"{server.url}/headgate/status", timeout=30).json()


def cpu_seconds(server: Running, model: str) -> float:
    name = f'headgate_cpu_seconds_total{{pipeline="{model}"}} '
    (line,) = (li for li in httpx.get(f"{server.url}/metrics", timeout=30).text.splitlines() if li.startswith(name))
    return float(line.removeprefix(name))


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "never happened"
        time.sleep(0.05)


class Flood:
    """Requests to one model, so many under way at any time, until it is left."""

    def __init__(self, server: Running, model: str, callers: int) -> None:
        self._url = f"{server.url}/v1/models/{model}:predict"
        self._callers = callers
        self.answers: list[int] = []

    async def __aenter__(self) -> Flood:
        self._client = httpx.AsyncClient(timeout=60)
        self._going = True
        self._tasks = [asyncio.create_task(self._call()) for _ in range(self._callers)]
        return self

    async def _call(self) -> None:
        while self._going:
            self.answers.append((await self._client.post(self._url, json=request())).status_code)

    async def __aexit__(self, *_: object) -> None:
        self._going = False
        await asyncio.gather(*self._tasks)
        await self._client.aclose()


def test_a_flood_leaves_the_other_model_its_cpus_and_grants_follow_the_load(start: Start) -> None:
    # Hard caps, far below what the machine has: what each gets is headgate's division and not the machine's speed.
    server = start(budget="80m", interval="100ms", lend=False, pipelines=TWO)
    seen: list[dict[str, int]] = []

    def granted() -> dict[str, int]:
        seen.append({name: found["granted"] for name, found in status(server)["pipelines"].items()})
        return seen[-1]

    async def scene() -> None:
        async with Flood(server, "flooded", 16) as flood:
            # The calm model keeps its floor, the rest follows the load.
            await asyncio.to_thread(until, lambda: granted() == {"flooded": 60, "calm": 20})
            began, before = time.monotonic(), await asyncio.to_thread(cpu_seconds, server, "flooded")
            async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
                for _ in range(5):
                    answer = await client.post("/v1/models/calm:predict", json=request())
                    assert answer.status_code == 200
                    # It was answered while the flood waits: it did not stand in its line.
                    assert (await asyncio.to_thread(status, server))["pipelines"]["flooded"]["queue"] > 0
            await asyncio.sleep(1)
            used = await asyncio.to_thread(cpu_seconds, server, "flooded") - before
            # A grant of 0.06 CPUs, what its bucket saves (0.1 s of that), and what two requests cost.
            cost = status(server)["pipelines"]["flooded"]["cpu_seconds_per_request"]
            assert used <= 0.06 * (time.monotonic() - began) + 0.006 + 2 * cost
        async with Flood(server, "calm", 16) as turned:
            await asyncio.to_thread(until, lambda: granted() == {"flooded": 20, "calm": 60})
        assert set(flood.answers) == set(turned.answers) == {200}

    asyncio.run(scene())
    assert {sum(grants.values()) for grants in seen} == {80}
    assert server.stop() == 0


def test_a_signal_under_load_loses_no_request(start: Start) -> None:
    server = start(budget="1", pipelines=TWO)

    async def scene() -> tuple[list[httpx.Response], int]:
        limits = httpx.Limits(max_connections=64)
        async with httpx.AsyncClient(base_url=server.url, timeout=60, limits=limits) as client:
            load = [
                asyncio.create_task(client.post(f"/v1/models/{TWO[i % 2]['name']}:predict", json=request(1 + i % 4)))
                for i in range(64)
            ]
            await asyncio.wait(load, return_when=asyncio.FIRST_COMPLETED)
            code = await asyncio.to_thread(server.stop)
            return await asyncio.gather(*load), code

    answers, code = asyncio.run(scene())
    assert code == 0, "".join(server.lines)
    assert {answer.status_code for answer in answers} == {200}
    # All rows are alike, and an answer is the sum over its rows: each has its own.
    (one,) = answers[0].json()["predictions"][0]
    for index, answer in enumerate(answers):
        (found,) = answer.json()["predictions"][0]
        assert found == pytest.approx(one * (1 + index % 4), rel=1e-3)


def test_a_full_queue_is_said_with_the_time_to_come_back(start: Start) -> None:
    # One request costs seconds of such a budget: the second waits, the third finds the queue full.
    server = start(budget="1m", lend=False, pipelines=[{**TWO[0], "floor": 0, "queue": 1}])
    url = f"{server.url}/v1/models/flooded:predict"
    assert httpx.post(url, json=request(20), timeout=60).status_code == 200

    async def scene() -> tuple[httpx.Response, grpc.StatusCode]:
        async with httpx.AsyncClient(timeout=60) as client:
            waiting = asyncio.create_task(client.post(url, json=request()))
            while (await client.get(f"{server.url}/headgate/status")).json()["pipelines"]["flooded"]["queue"] == 0:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            refused = await client.post(url, json=request())
            tensor = InferInput("x", [1, 4], "FP32")
            tensor.set_data_from_numpy(np.ones((1, 4), np.float32))
            client_of_grpc = InferenceGRPCClient(server.grpc)
            with pytest.raises(grpc.RpcError) as error:
                await client_of_grpc.infer(InferRequest("flooded", [tensor]), timeout=30)
            await client_of_grpc.close()
            waiting.cancel()
            return refused, error.value.code()

    refused, code = asyncio.run(scene())
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert "too many requests waiting" in refused.json()["error"]
    assert code == grpc.StatusCode.UNAVAILABLE


def test_a_mounted_folder_is_served_and_is_not_ready_while_it_ends(tmp_path: Path, start: Start) -> None:
    dense(tmp_path / "whatever.onnx")
    server = start("--model_dir", tmp_path, "--model_name", "my-service")
    with httpx.Client(base_url=server.url, timeout=30) as client:
        answer = client.post("/v1/models/my-service:predict", json={"instances": [[1, 2, 3, 4]]})
        assert answer.status_code == 200
        assert client.get("/v2/health/ready").status_code == 200
        server.process.send_signal(signal.SIGINT)
        codes = [200]
        while codes[-1] == 200:
            codes.append(client.get("/v2/health/ready").status_code)
    assert codes[-1] == 503
    assert server.process.wait(timeout=40) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--settings", "absent.yaml"], "absent.yaml: cannot be read"),
        (["--settings", "wrong.yaml"], "wrong.yaml:2: pipelines[0].celing: unknown setting"),
        (["--model_dir", "."], "there is no headgate.yaml and no ONNX model"),
        (["--settings", "wrong.yaml", "--workers", "2"], "--workers: each process would have a budget of its own"),
        (["--setings", "wrong.yaml"], "unrecognized arguments: --setings wrong.yaml"),
    ],
)
def test_wrong_settings_end_it_with_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("wrong.yaml").write_text("pipelines:\n- {name: a, celing: 1, steps: [{model: a.onnx}]}\n")
    code, _, errors = invoke("kserve", *arguments)
    assert code == 2
    assert message in errors
