"""A dense ONNX model whose cost is chosen by the number of rows in a request, and engines that host it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import orjson
from onnx import TensorProto, helper, numpy_helper

from headgate.core.config import Document, validate
from headgate.engine.engine import Engine, load_engine
from headgate.engine.settings import EngineSettings

WIDTH = 512
LAYERS = 4


def save_model(path: Path) -> None:
    """Four dense layers of 512 by 512, any number of rows."""
    random = np.random.default_rng(0)
    nodes, weights, before = [], [], "x"
    for layer in range(LAYERS):
        matrix = (random.standard_normal((WIDTH, WIDTH)) / np.sqrt(WIDTH)).astype(np.float32)
        weights.append(numpy_helper.from_array(matrix, f"w{layer}"))
        nodes.append(helper.make_node("MatMul", [before, f"w{layer}"], [f"m{layer}"]))
        nodes.append(helper.make_node("Relu", [f"m{layer}"], [f"y{layer}"]))
        before = f"y{layer}"
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", WIDTH]) for name in ("x", before)]
    graph = helper.make_graph(nodes, "dense", ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def make_engine(folder: Path, names: Sequence[str], **settings: object) -> Engine:
    """An engine whose pipelines `names` are all the dense model, without HTTP and without decisions."""
    save_model(folder / "dense.onnx")
    pipelines = [{"name": name, "steps": [{"model": "dense.onnx"}]} for name in names]
    document = Document(str(folder / "engine.yaml"), {"pipelines": pipelines, **settings})
    return load_engine(validate(document, EngineSettings), document)


def request(rows: int) -> tuple[bytes, str]:
    """The body of a request for `rows` rows, in and out as binary, and the header that it needs."""
    values = np.ones((rows, WIDTH), np.float32)
    tensor = {
        "name": "x",
        "datatype": "FP32",
        "shape": [rows, WIDTH],
        "parameters": {"binary_data_size": values.nbytes},
    }
    head = orjson.dumps({"parameters": {"binary_data_output": True}, "inputs": [tensor]})
    return head + values.tobytes(), str(len(head))


def rows_for(folder: Path, seconds: float) -> int:
    """How many rows make one request cost about `seconds` of one CPU."""
    engine = make_engine(folder, ["calibration"], control="live")
    chain = engine.chain("calibration")
    values = {"x": np.ones((200, WIDTH), np.float32)}
    chain.run(values, ["y3"])
    best = min(_timed(lambda: chain.run(values, ["y3"])) for _ in range(10))
    engine.close()
    return max(1, round(200 * seconds / best))


def _timed(call: object) -> float:
    began = time.perf_counter()
    call()  # type: ignore[operator]
    return time.perf_counter() - began
