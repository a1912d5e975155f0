from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from onnx import helper, numpy_helper
from tests.engine.conftest import models as models
from tests.engine.conftest import save, tensor

RUNTIME = [sys.executable, "-m", "headgate.adapters.kserve"]
_RUNNING = re.compile(r"Uvicorn running on http://0\.0\.0\.0:(\d+) ")


LAYERS, WIDTH = 20, 1024


def deep(path: Path) -> Path:
    """Costs milliseconds for a row of four numbers, so that the server's JSON does not matter beside it."""
    random = np.random.default_rng(0)
    inner = (random.standard_normal((WIDTH, WIDTH)) / np.sqrt(WIDTH)).astype(np.float32)
    weights = [numpy_helper.from_array(np.ones((4, WIDTH), np.float32), "first"), numpy_helper.from_array(inner, "w")]
    nodes = [helper.make_node("MatMul", ["x", "first"], ["h0"])]
    nodes += [helper.make_node("MatMul", [f"h{i}", "w"], [f"h{i + 1}"]) for i in range(LAYERS)]
    nodes.append(helper.make_node("ReduceSum", [f"h{LAYERS}"], ["y"]))
    return save(path, nodes, [tensor("x")], [tensor("y", shape=[1, 1])], weights)


@pytest.fixture(scope="session")
def deep_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("deep")
    deep(folder / "deep.onnx")
    return folder


@dataclass
class Running:
    process: subprocess.Popen[str]
    grpc: str
    url: str = ""
    lines: list[str] = field(default_factory=list)

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout=40)


Start = Callable[..., Running]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def begin(*arguments: object) -> Running:
    """A KServe model server, as soon as it listens on a port that the kernel has chosen."""
    grpc = free_port()
    command = [*RUNTIME, "--http_port", "0", "--grpc_port", str(grpc), *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    running = Running(process, f"127.0.0.1:{grpc}")
    listening = threading.Event()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            running.lines.append(line)
            if found := _RUNNING.search(line):
                running.url = f"http://127.0.0.1:{found[1]}"
                listening.set()
        listening.set()

    threading.Thread(target=read, daemon=True).start()
    assert listening.wait(60)
    assert running.url, "".join(running.lines)
    return running


def write(folder: Path, name: str, **settings: Any) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(settings, sort_keys=False))
    return path


@pytest.fixture
def start(deep_models: Path, request: pytest.FixtureRequest) -> Iterator[Start]:
    servers: list[Running] = []

    def serve(*arguments: object, **settings: Any) -> Running:
        if settings:
            path = write(deep_models, f"{request.node.name[:40]}-{len(servers)}", **settings)
            arguments = ("--settings", path, *arguments)
        servers.append(begin(*arguments))
        return servers[-1]

    yield serve
    for server in servers:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()


@pytest.fixture(scope="session")
def server(models: Path) -> Iterator[Running]:
    """One server for all tests that only ask."""
    names = ["first", "pair", "double", "text", "failing", "total", "loose"]
    pipelines: list[dict[str, Any]] = [{"name": name, "steps": [{"model": f"{name}.onnx"}]} for name in names]
    pipelines.append({"name": "chain", "steps": [{"model": "first.onnx"}, {"model": "second.onnx"}], "floor": "100m"})
    running = begin("--settings", write(models, "kserve-shared", budget="1", pipelines=pipelines))
    yield running
    assert running.process.poll() is None, "the server did not survive the tests"
    assert running.stop() == 0
