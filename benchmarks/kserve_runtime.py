"""What a flood of one model in a KServe server does to the model beside it. `python benchmarks/kserve_runtime.py`

Two real KServe servers on this machine, one after the other in each round, each with the models `flooded` and `light`:

- stock: a `kserve.Model` for each file with ONNX Runtime's default session, run in asyncio's thread pool (run in the
  event loop, as KServe's examples for custom models do, one inference would hold up the whole server);
- headgate: `python -m headgate.adapters.kserve`.

light: requests of about 2 ms, 20 a second at exponential intervals, counted from when each was due. flooded: requests
of about 40 ms, eight always under way. Requests are four numbers in JSON: the CPUs are what the two compete for.
The figure is light's p99 under the flood divided by its p99 without, the median of the rounds; the sides take turns, so
that what else the machine does disturbs both.
"""

from __future__ import annotations

import asyncio
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

MODELS = {"light": 0.002, "flooded": 0.040}
"""CPU seconds of a request."""
ROWS, WIDTH = 64, 256
REQUEST = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1.0, 2.0, 3.0, 4.0]}]}
SECONDS = 8.0
ROUNDS = 3
RATE = 20.0
CALLERS = 8

STOCK = """
import asyncio
import onnxruntime
from kserve import InferOutput, InferResponse, Model, ModelServer

class Stock(Model):
    def __init__(self, name, path):
        super().__init__(name)
        self.session = onnxruntime.InferenceSession(path)
        self.ready = True

    async def predict(self, payload, headers=None):
        x = payload.inputs[0].as_numpy()
        (y,) = await asyncio.to_thread(self.session.run, None, {"x": x})
        output = InferOutput("y", list(y.shape), "FP32", data=y)
        return InferResponse(payload.id or "none", self.name, [output], use_binary_outputs=payload.use_binary_outputs)

if __name__ == "__main__":
    ModelServer(http_port=0, enable_grpc=False).start([
        Stock(name, f"{FOLDER}/{name}.onnx") for name in ("flooded", "light")
    ])
"""


class Server:
    """A model server as a process, until it is left."""

    def __init__(self, *arguments: object) -> None:
        self._arguments = [sys.executable, *map(str, arguments)]

    def __enter__(self) -> str:
        self._log = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(self._arguments, stdout=self._log, stderr=subprocess.STDOUT)
        end = time.monotonic() + 60
        while time.monotonic() < end and self._process.poll() is None:
            time.sleep(0.1)
            self._log.seek(0)
            if found := re.search(r"running on http://0\.0\.0\.0:(\d+)", text := self._log.read()):
                return f"http://127.0.0.1:{found[1]}"
        raise SystemExit(f"did not start:\n{text}")

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        self._log.close()


def save_model(path: Path, layers: int) -> None:
    """64 rows made of the request's four numbers, through `layers` dense layers of 256 by 256: bound by compute."""
    random_ = np.random.default_rng(0)
    first = random_.standard_normal((4, ROWS * WIDTH)).astype(np.float32)
    inner = (random_.standard_normal((WIDTH, WIDTH)) / np.sqrt(WIDTH)).astype(np.float32)
    constants = {"first": first, "w": inner, "shape": np.array([ROWS, WIDTH], np.int64)}
    nodes = [helper.make_node("MatMul", ["x", "first"], ["m"]), helper.make_node("Reshape", ["m", "shape"], ["h0"])]
    nodes += [helper.make_node("MatMul", [f"h{i}", "w"], [f"h{i + 1}"]) for i in range(layers)]
    nodes.append(helper.make_node("ReduceSum", [f"h{layers}"], ["y"]))
    ends = [helper.make_tensor_value_info(*end) for end in (("x", TensorProto.FLOAT, [1, 4]), ("y", 1, [1, 1]))]
    weights = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "deep", ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def seconds_per_layer(folder: Path) -> float:
    """Of one thread, at its best."""
    save_model(folder / "probe.onnx", 100)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(folder / "probe.onnx"), options)
    times = []
    for _ in range(20):
        began = time.perf_counter()
        session.run(None, {"x": np.ones((1, 4), np.float32)})
        times.append(time.perf_counter() - began)
    return min(times) / 100


async def ask(client: httpx.AsyncClient, model: str) -> None:
    answer = await client.post(f"/v2/models/{model}/infer", json=REQUEST)
    if answer.status_code != 200:
        raise SystemExit(answer.text)


async def latencies(client: httpx.AsyncClient, seconds: float) -> list[float]:
    source = random.Random(1)
    found: list[float] = []
    tasks: list[asyncio.Task[None]] = []

    async def one(due: float) -> None:
        await ask(client, "light")
        found.append(time.perf_counter() - due)

    due = time.perf_counter()
    end = due + seconds
    while due < end:
        due += source.expovariate(RATE)
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(one(due)))
    await asyncio.gather(*tasks)
    return found


async def measure(url: str) -> tuple[float, float, float]:
    """light's p99 alone and under the flood, seconds, and the flood's requests per second."""
    count, going = 0, True

    async def flood() -> None:
        nonlocal count
        while going:
            await ask(client, "flooded")
            count += 1

    async with httpx.AsyncClient(base_url=url, timeout=120, limits=httpx.Limits(max_connections=200)) as client:
        for model in MODELS:
            await ask(client, model)
        alone = await latencies(client, SECONDS)
        callers = [asyncio.create_task(flood()) for _ in range(CALLERS)]
        await asyncio.sleep(2)
        count = 0
        began = time.perf_counter()
        beside = await latencies(client, SECONDS)
        served = count / (time.perf_counter() - began)
        going = False
        await asyncio.gather(*callers)
    return float(np.percentile(alone, 99)), float(np.percentile(beside, 99)), served


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        layer = seconds_per_layer(folder)
        for model, seconds in MODELS.items():
            save_model(folder / f"{model}.onnx", round(seconds / layer))
        (folder / "stock.py").write_text(STOCK.replace("FOLDER", repr(str(folder))))
        (folder / "probe.onnx").unlink()
        sides = {
            "stock": (folder / "stock.py",),
            "headgate": (
                *("-m", "headgate.adapters.kserve", "--model_dir", folder),
                *("--http_port", "0", "--enable_grpc", "false"),
            ),
        }
        print(f"light {MODELS['light'] * 1e3:.0f} ms, flooded {MODELS['flooded'] * 1e3:.0f} ms of CPU; p99 in ms")
        print("round | server   | light alone | beside the flood | ratio | flooded per second")
        ratios: dict[str, list[float]] = {side: [] for side in sides}
        for turn in range(ROUNDS):
            for side, arguments in sides.items():
                with Server(*arguments) as url:
                    alone, beside, served = asyncio.run(measure(url))
                ratios[side].append(beside / alone)
                print(
                    f"{turn + 1:5} | {side:8} | {alone * 1e3:11.1f} | {beside * 1e3:16.1f} | {beside / alone:5.1f} | "
                    f"{served:18.1f}",
                    flush=True,
                )
        for side, found in ratios.items():
            print(f"median | {side}: light's p99 is {statistics.median(found):.1f} times what it is alone")


if __name__ == "__main__":
    main()
