"""The demo end to end, with models that are quick to train and little traffic: a real server, a real generator."""

import io
import json
import signal
import socket
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
from rich.console import Console

from headgate.engine.demo.command import INTERRUPTED, run
from headgate.engine.demo.models import Chain, Forest, VectorMachine, direct, prepare
from headgate.engine.demo.session import Options

SMALL = {
    "americas": Chain(rows=16, hidden=(64, 32), epochs=12),
    "emea": Forest(rows=32, trees=40),
    "apac": VectorMachine(rows=8),
}
LITTLE = Options(seconds=3.0, level=0.1, flood=1.0, calibration=0.3)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    prepare(folder, SMALL)
    return folder


def test_the_models_are_as_good_as_scikit_learn_says(cache):
    for model in prepare(cache, SMALL):
        # 24 requests are a sample of the held-out rows: three standard deviations of a share.
        rows = model.labels.size
        spread = 3 * np.sqrt(model.accuracy * (1 - model.accuracy) / rows)
        assert (model.expected == model.labels).mean() == pytest.approx(model.accuracy, abs=spread)
        assert model.accuracy > 0.85


def test_a_cached_model_is_not_trained_again(cache):
    prepare(cache, SMALL, pytest.fail)


@pytest.mark.parametrize("damage", ["truncate", "remove", "no manifest"])
def test_a_broken_cache_is_made_anew(tmp_path, damage):
    only = {"apac": VectorMachine(rows=2)}
    (model,) = prepare(tmp_path, only)
    file = model.files[0]
    match damage:
        case "truncate":
            file.write_bytes(file.read_bytes()[:1000])
        case "remove":
            file.unlink()
        case "no manifest":
            (file.parent / "manifest.json").write_text("{")
    trained = []
    (again,) = prepare(tmp_path, only, trained.append)
    assert len(trained) == 1
    assert np.array_equal(direct(again.files)(again.inputs[0]), model.expected[0])


@pytest.mark.alone
def test_the_whole_demo(cache, tmp_path):
    text = io.StringIO()
    console = Console(file=text, width=140)
    assert run(LITTLE, tmp_path, cache, console, SMALL) == 0
    figures = json.loads((tmp_path / "results.json").read_text())
    assert figures["complete"]
    requests = {run["figures"]["total"]["requests"] for run in figures["runs"].values()}
    assert len(requests) == 1  # the same traffic
    for name, played in figures["runs"].items():
        assert played["figures"]["total"]["wrong"] == 0, name
        assert played["figures"]["status"]["off_budget"] == 0, name
        assert played["figures"]["status"]["samples"] > 0, name
        assert played["figures"]["total"]["answered"] > 0, name
    for name, pipeline in figures["pipelines"].items():
        assert figures["runs"]["headgate"]["figures"]["whole"][name]["accuracy"] == pytest.approx(
            pipeline["accuracy_of_scikit_learn"], abs=0.1
        )
    assert "<svg" in (tmp_path / "report.html").read_text()
    assert "SLO misses" in text.getvalue()


def test_an_interrupt_stops_everything(cache, tmp_path):
    script = f"""
    import sys
    from pathlib import Path
    from rich.console import Console
    from headgate.engine.demo.command import run
    from headgate.engine.demo.models import Chain, Forest, VectorMachine
    from headgate.engine.demo.session import Options
    recipes = {SMALL!r}
    options = Options(seconds=600.0, level=0.05, flood=1.0, calibration=0.3)
    sys.exit(run(options, Path({str(tmp_path)!r}), Path({str(cache)!r}), Console(), recipes))
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        for line in process.stdout:
            if line.startswith("run: "):
                break
        end = time.monotonic() + 30
        log = tmp_path / "none" / "server.log"
        while not (log.exists() and "listening on" in log.read_text()) and time.monotonic() < end:
            time.sleep(0.05)
        port = int(log.read_text().partition("127.0.0.1:")[2].split()[0])
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == INTERRUPTED
    assert "interrupted" in output
    assert "Traceback" not in errors, errors
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)
