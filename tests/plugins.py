"""Installs the example plug-in and one fresh from the template beside headgate in an environment of their own.

There, a metric that only the plug-in knows moves CPUs in the engine, and its estimator changes a backtest.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import urllib.request
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples" / "plugin-queue-length"
REQUEST = {"inputs": [{"name": "x", "shape": [1, 64], "datatype": "FP32", "data": [0.5] * 64}]}


def run(*command: object, cwd: Path) -> str:
    result = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False)
    if result.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{result.stdout}\n{result.stderr}")
    return result.stdout


def ask(url: str, body: object = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data), timeout=10) as answer:
        text = answer.read()
    return json.loads(text) if text else None


def until(what: str, condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"never happened: {what}")
        time.sleep(0.1)


def model(path: Path) -> None:
    weights = numpy_helper.from_array(np.eye(64, dtype=np.float32), "w")
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 64]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", ends[:1], ends[1:], [weights])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def started(*command: object, cwd: Path) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen([str(part) for part in command], cwd=cwd, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().strip().removeprefix("listening on ")


def serve(headgate: Path, python: Path, away: Path) -> None:
    """The engine gives CPUs for what waits in the broker."""
    broker, address = started(python, EXAMPLE / "broker.py", cwd=away)
    model(away / "model.onnx")
    settings = {
        "listen": "127.0.0.1:0",
        "budget": "1",
        "interval": "200ms",
        "pipelines": [{"name": name, "steps": [{"model": "model.onnx"}]} for name in ("us-east", "eu-west")],
        "sources": [{"kind": "queue-length", "url": address, "every": "200ms"}],
        "estimator": {"kind": "backlog", "drain": "5s"},
    }
    (away / "engine.yaml").write_text(yaml.safe_dump(settings))
    engine, url = started(headgate, "serve", away / "engine.yaml", cwd=away)

    def granted(name: str) -> int:
        for pipeline in ("us-east", "eu-west"):
            ask(f"{url}/v2/models/{pipeline}/infer", REQUEST)
        return int(ask(f"{url}/headgate/status")["pipelines"][name]["granted"])

    try:
        for name in ("us-east", "eu-west"):
            ask(f"{address}/api/queues/{name}", 10_000)
            until(f"CPUs for what waits for {name}", lambda name=name: granted(name) > 800)  # type: ignore[misc]
            ask(f"{address}/api/queues/{name}", 0)
    finally:
        for process in (engine, broker):
            process.terminate()
            process.wait(60)


def backtest(headgate: Path, away: Path) -> None:
    """The same estimator in a backtest, whose queues are simulated."""
    rows = [f"{minute},{name},{300 + 900 * (minute % 2)}" for minute in range(6) for name in ("a", "b")]
    (away / "trace.csv").write_text("minute,pipeline,requests\n" + "\n".join(rows) + "\n")
    command = (headgate, "backtest", "trace.csv", "--cpus", "2", "--policy", "proportional", "-o", "json")
    plain = json.loads(run(*command, cwd=away))["policies"]
    backlog = json.loads(run(*command, "--estimator", "{kind: backlog, drain: 2s}", cwd=away))["policies"]
    if plain == backlog:
        raise SystemExit(f"the plug-in's estimator changed nothing in the backtest: {plain}")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        away = Path(folder)
        run(sys.executable, ROOT / "examples" / "plugin-template" / "new.py", "my-metric", away, cwd=away)
        fresh = away / "headgate-my-metric"
        venv.create(away / "venv", with_pip=True)
        python, headgate = away / "venv" / "bin" / "python", away / "venv" / "bin" / "headgate"
        pip = (python, "-m", "pip", "install", "-q", "--no-compile", "-c", ROOT / "constraints.txt")
        run(*pip, f"{ROOT}[engine]", EXAMPLE, fresh, cwd=away)
        listed = {
            plugin["name"]: plugin for plugin in json.loads(run(headgate, "plugins", "--format", "json", cwd=away))
        }
        for name in ("queue-length", "my-metric"):
            if not listed[name]["enabled"]:
                raise SystemExit(f"{name} takes no part: {listed[name]}")
        run(python, "test_headgate_my_metric.py", cwd=fresh)
        serve(headgate, python, away)
        backtest(headgate, away)
        print("plug-ins: installed, moved CPUs, changed a backtest")  # noqa: T201


if __name__ == "__main__":
    main()
