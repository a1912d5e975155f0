from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper

HEADGATE = [sys.executable, "-c", "from headgate.controller.cli import main; main()"]


def save(path: Path, nodes: Sequence[Any], inputs: Sequence[Any], outputs: Sequence[Any], weights: Sequence[Any] = ()):
    graph = helper.make_graph(nodes, "graph", inputs, outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def tensor(name: str, kind: int = TensorProto.FLOAT, shape: Sequence[int | str] | None = ("n", 4)) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def dense(path: Path, source: str = "x", target: str = "y", width: int = 4, seed: int = 0) -> Path:
    """target = relu(source @ w) with w of width by width."""
    w = np.random.default_rng(seed).standard_normal((width, width)).astype(np.float32)
    nodes = [helper.make_node("MatMul", [source, "w"], ["m"]), helper.make_node("Relu", ["m"], [target])]
    ends = [tensor(source, shape=("n", width))], [tensor(target, shape=("n", width))]
    return save(path, nodes, *ends, [numpy_helper.from_array(w, "w")])


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    dense(folder / "first.onnx", "x", "h", seed=1)
    dense(folder / "second.onnx", "h", "y", seed=2)
    dense(folder / "renamed.onnx", "other", "out", seed=3)
    dense(folder / "wide.onnx", width=5)
    dense(folder / "heavy.onnx", width=256)
    identity = [helper.make_node("Identity", ["x"], ["y"])]
    save(
        folder / "text.onnx",
        identity,
        [tensor("x", TensorProto.STRING, ["n"])],
        [tensor("y", TensorProto.STRING, ["n"])],
    )
    save(
        folder / "double.onnx",
        identity,
        [tensor("x", TensorProto.DOUBLE, ["n", 4])],
        [tensor("y", TensorProto.DOUBLE, ["n", 4])],
    )
    pair = [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Sub", ["a", "b"], ["difference"])]
    save(folder / "pair.onnx", pair, [tensor("a"), tensor("b")], [tensor("sum"), tensor("difference")])
    loose = [tensor("a", shape=["n", "k"]), tensor("b", shape=["m", "l"])]
    save(folder / "loose.onnx", [helper.make_node("Add", ["a", "b"], ["y"])], loose, [tensor("y", shape=["p", "q"])])
    fixed = numpy_helper.from_array(np.array([3, 4], np.int64), "shape")
    save(
        folder / "failing.onnx",
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        [tensor("x")],
        [tensor("y", shape=[3, 4])],
        [fixed],
    )
    row = [helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)]
    save(folder / "total.onnx", row, [tensor("x")], [tensor("y", shape=[])])
    (folder / "broken.onnx").write_bytes(b"this is no model")
    return folder


@dataclass
class Running:
    url: str
    process: subprocess.Popen[str]
    errors: list[str]

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout=40)


Start = Callable[..., Running]


@pytest.fixture(scope="session")
def write_settings(models: Path) -> Callable[[Mapping[str, Any], str], Path]:
    def write(settings: Mapping[str, Any], name: str = "engine.yaml") -> Path:
        path = models / name
        path.write_text(yaml.safe_dump({"listen": "127.0.0.1:0", **settings}, sort_keys=False))
        return path

    return write


def _start(path: Path) -> Running:
    process = subprocess.Popen(
        [*HEADGATE, "serve", str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    errors: list[str] = []
    stderr = process.stderr
    threading.Thread(target=lambda: errors.extend(stderr), daemon=True).start()
    line = process.stdout.readline()
    found = re.fullmatch(r"listening on (http://127\.0\.0\.1:\d+)\n", line)
    assert found, f"{line!r} {errors}"
    return Running(found[1], process, errors)


@pytest.fixture
def start(write_settings: Callable[..., Path], request: pytest.FixtureRequest) -> Iterator[Start]:
    servers: list[Running] = []

    def begin(**settings: Any) -> Running:
        path = write_settings(settings, f"{request.node.name[:40].replace('/', '_')}-{len(servers)}.yaml")
        servers.append(_start(path))
        return servers[-1]

    yield begin
    for server in servers:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()


@pytest.fixture(scope="session")
def server(write_settings: Callable[..., Path]) -> Iterator[Running]:
    """One server for all tests that only ask; it has to survive whatever they send."""
    names = ["text", "double", "pair", "loose", "failing", "total", "heavy"]
    running = _start(
        write_settings(
            {
                "max_body": "1MiB",
                "pipelines": [
                    {"name": "chain", "steps": [{"model": "first.onnx"}, {"model": "second.onnx"}], "floor": "100m"},
                    *({"name": name, "steps": [{"model": f"{name}.onnx"}]} for name in names),
                ],
            },
            "shared.yaml",
        )
    )
    yield running
    assert running.process.poll() is None, "the server did not survive the tests"
    assert running.stop() == 0
