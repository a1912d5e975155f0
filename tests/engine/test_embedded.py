"""The engine inside another server's process: what it answers to tensors, and what it counts."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headgate.controller.cli import Host
from headgate.core.config import Document, SettingsError
from headgate.core.serving import Busy, InferenceEngine, InputTensor, InvalidRequest, ModelFailed, Run

ROW = [1.0, 2.0, 3.0, 4.0]


def document(models: Path, names: list[str], **settings: Any) -> Document:
    pipelines = [{"name": name, "steps": [{"model": f"{name}.onnx"}]} for name in names]
    return Document(str(models / "engine.yaml"), {"budget": "1", "pipelines": pipelines, **settings})


@pytest.fixture
def engine(models: Path) -> Iterator[InferenceEngine]:
    # Found as any plug-in's: the hook headgate_engines.
    opened = Host().engine("onnx", document(models, ["pair", "double", "text", "loose", "failing"]))
    yield opened
    opened.close()


def ask(engine: InferenceEngine, model: str, *inputs: InputTensor, outputs: list[str] | None = None) -> Any:
    return engine.submit(model, lambda run: run(inputs, outputs)).result(timeout=30)


def test_its_models_say_what_they_take(engine: InferenceEngine) -> None:
    pair = engine.models[0]
    assert [(t.name, t.datatype, t.shape) for t in pair.inputs] == [("a", "FP32", (None, 4)), ("b", "FP32", (None, 4))]
    assert [tensor.name for tensor in pair.outputs] == ["sum", "difference"]


def test_lists_and_arrays_are_the_same_tensors(engine: InferenceEngine) -> None:
    row = np.array([ROW], np.float32)
    forms = [
        InputTensor("a", [ROW]),
        InputTensor("a", ROW, "FP32", [1, 4]),
        InputTensor("a", row, "FP32", [1, 4]),
    ]
    for form in forms:
        found = ask(engine, "pair", form, InputTensor("b", row))
        np.testing.assert_array_equal(found["sum"], row + row)
        np.testing.assert_array_equal(found["difference"], row - row)
    assert list(ask(engine, "pair", *(InputTensor(n, row) for n in "ab"), outputs=["sum"])) == ["sum"]
    assert ask(engine, "text", InputTensor("x", ["ä", "b"]))["y"].tolist() == ["ä", "b"]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([InputTensor("a", [ROW])], "missing input 'b'"),
        ([InputTensor("a", [ROW]), InputTensor("a", [ROW])], "'a' is given twice"),
        ([InputTensor("c", [ROW])], "there is no input 'c'; the inputs are a, b"),
        ([InputTensor("a", [[1.0, 2.0]])], "shape \\[1, 2\\] does not fit \\[-1, 4\\]"),
        ([InputTensor("a", [[1.0, 2.0], [3.0]])], "regular shape"),
        ([InputTensor("a", [["1", "2", "3", "4"]])], "not FP32"),
        ([InputTensor("a", ROW, "FP64", [1, 4])], "datatype must be FP32, found 'FP64'"),
        ([InputTensor("a", np.ones((1, 4)))], "data are float64, not FP32"),
        ([InputTensor("a", ROW, "FP32", [2, 4])], "needs 8 elements"),
    ],
)
def test_what_does_not_fit_is_the_request_s_mistake(
    engine: InferenceEngine, inputs: list[InputTensor], message: str
) -> None:
    with pytest.raises(InvalidRequest, match=message):
        ask(engine, "pair", *inputs)
    assert codes(engine, "pair") == {"400": 1.0}


def codes(engine: InferenceEngine, model: str) -> dict[str, float]:
    (requests,) = (family for family in engine.collect() if family.name == "headgate_requests")
    return {s.labels["code"]: s.value for s in requests.samples if s.labels["pipeline"] == model}


def test_other_mistakes_are_told_apart(engine: InferenceEngine) -> None:
    with pytest.raises(InvalidRequest, match="there is no output 'z'; the outputs are sum, difference"):
        ask(engine, "pair", *(InputTensor(n, [ROW]) for n in "ab"), outputs=["z"])
    with pytest.raises(InvalidRequest, match="does not fit the model"):
        ask(engine, "loose", InputTensor("a", [[1.0, 2.0]]), InputTensor("b", [[1.0, 2.0, 3.0]]))
    with pytest.raises(ModelFailed, match="'failing' failed to run"):
        ask(engine, "failing", InputTensor("x", [ROW]))
    with pytest.raises(LookupError, match="there is no model 'unknown'"):
        engine.submit("unknown", lambda run: None)
    with pytest.raises(ZeroDivisionError):
        engine.submit("double", lambda run: 1 / 0).result(timeout=30)
    assert [codes(engine, name) for name in ("pair", "failing", "double")] == [{"400": 1.0}, {"500": 1.0}, {"500": 1.0}]


def test_a_full_queue_refuses_and_what_nobody_waits_for_is_not_run(models: Path) -> None:
    pipelines = [{"name": "double", "steps": [{"model": "double.onnx"}], "queue": 2}]
    engine = Host().engine("onnx", document(models, [], pipelines=pipelines))
    begun, go = threading.Event(), threading.Event()
    ran: list[int] = []

    def hold(run: Run) -> None:
        begun.set()
        go.wait(30)

    first = engine.submit("double", hold)
    assert begun.wait(30)
    waiting: list[Future[None]] = [engine.submit("double", lambda run, n=n: ran.append(n)) for n in (1, 2)]
    with pytest.raises(Busy, match="too many requests waiting") as refused:
        engine.submit("double", lambda run: None)
    assert refused.value.retry_after > 0
    assert waiting[0].cancel()
    go.set()
    first.result(timeout=30)
    waiting[1].result(timeout=30)
    assert ran == [2]
    engine.close()
    assert codes(engine, "double") == {"200": 2.0, "499": 1.0, "503": 1.0}


def test_wrong_settings_are_told_where(models: Path) -> None:
    with pytest.raises(SettingsError, match="'steam' is not known here; known: onnx"):
        Host().engine("steam", document(models, ["pair"]))
    with pytest.raises(SettingsError, match="pair: there is no model file"):
        Host().engine("onnx", document(models / "elsewhere", ["pair"]))
