"""A real Prometheus scrapes a real engine under a real load; what the source says is held against what was sent.

Bounds: the arrival rate within 15 % of what was sent in the same window (rate() extrapolates to the ends of its range,
by up to one of six scrapes), percentiles within one bucket of the engine's histogram of what the client measured, and
a sample no older than two scrapes.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper
from tests.engine.conftest import Running, Start, models, save, start, tensor, write_settings

from headgate.controller.feed import Feed
from headgate.controller.sources.prometheus import PrometheusSettings, PrometheusSource
from headgate.core.config import Document, validate
from headgate.core.hookspecs import SourceError
from headgate.core.model import Sample
from headgate.core.observation import Part, merge

from .conftest import Prometheus, free_port

pytestmark = pytest.mark.alone

__all__ = ["models", "start", "write_settings"]

WINDOW = 6.0
SCRAPE = 1.0
BUCKETS = [0.0, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]
WIDTH, LAYERS = 1024, 50
BODY = json.dumps({"inputs": [{"name": "x", "shape": [1, WIDTH], "datatype": "FP32", "data": [0.5] * WIDTH}]})
RATES = {"a": 20, "b": 5}


class Load:
    """Open-loop requests at a steady rate, for at most two minutes; failures are what a dead server gives."""

    def __init__(self, port: int, pipeline: str, rate: float) -> None:
        self.sent: list[float] = []
        self.latencies: list[tuple[float, float]] = []
        self._port, self._pipeline, self._rate = port, pipeline, rate
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=5)
        begin = time.monotonic()
        for number in range(int(120 * self._rate)):
            if self._stop.wait(max(0.0, begin + number / self._rate - time.monotonic())):
                break
            started = time.time()
            try:
                connection.request("POST", f"/v2/models/{self._pipeline}/infer", BODY)
                answer = connection.getresponse()
                answer.read()
            except OSError:
                connection.close()
                continue
            except http.client.HTTPException:
                connection.close()
                continue
            assert answer.status == 200
            self.sent.append(started)
            self.latencies.append((started, time.time() - started))
        connection.close()

    def rate(self, begin: float, end: float) -> float:
        return sum(begin <= sent < end for sent in self.sent) / (end - begin)

    def percentile(self, begin: float, end: float, percentile: float) -> float:
        within = [latency for sent, latency in self.latencies if begin <= sent < end]
        return float(np.percentile(within, percentile))

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


@pytest.fixture
def load() -> Iterator[Callable[[int, str, float], Load]]:
    begun: list[Load] = []

    def begin(port: int, pipeline: str, rate: float) -> Load:
        begun.append(Load(port, pipeline, rate))
        return begun[-1]

    yield begin
    for each in begun:
        each.stop()


def save_slow_model(path: Path) -> None:
    """Some 10 to 20 ms of work, beside which the client's own part of what it measures is small."""
    names = ["x", *(f"h{layer}" for layer in range(1, LAYERS)), "y"]
    nodes = [helper.make_node("MatMul", [given, "w"], [made]) for given, made in pairwise(names)]
    ends = [tensor("x", shape=("n", WIDTH))], [tensor("y", shape=("n", WIDTH))]
    save(path, nodes, *ends, [numpy_helper.from_array(np.eye(WIDTH, dtype=np.float32), "w")])


def source(prometheus: Prometheus, **settings: Any) -> PrometheusSource:
    given = {"url": prometheus.url, "window": WINDOW, "timeout": "1s", "retries": 0, **settings}
    return PrometheusSource(validate(Document("s.yaml", given), PrometheusSettings), ["a", "b"])


def read(made: PrometheusSource) -> dict[str, Sample]:
    return {sample.pipeline: sample for sample in made.read(time.time())}


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "never happened"
        time.sleep(0.1)


def agree(sample: Sample, load: Load) -> None:
    now = time.time()
    assert 0 <= now - sample.time <= 2 * SCRAPE + 1
    begin, end = sample.time - sample.window, sample.time
    assert sample.arrivals is not None
    assert sample.completions is not None
    assert sample.arrivals / sample.window == pytest.approx(load.rate(begin, end), rel=0.15)
    assert sample.completions == pytest.approx(sample.arrivals)
    assert sample.cpu_seconds is not None
    assert 0 < sample.cpu_seconds < sample.window
    assert sample.latency is not None
    for percentile, seconds in sample.latency.items():
        measured = bisect_left(BUCKETS, load.percentile(begin, end, percentile))
        assert abs(bisect_left(BUCKETS, seconds) - measured) <= 1, f"p{percentile}: {seconds}"


def test_what_prometheus_says_is_what_was_sent_and_trouble_is_never_zero(
    start: Start, models: Path, prometheus: Callable[[str], Prometheus], load: Callable[[int, str, float], Load]
) -> None:
    port = free_port()
    save_slow_model(models / "slow.onnx")
    pipelines = [{"name": name, "steps": [{"model": "slow.onnx"}], "floor": "100m"} for name in RATES]

    def serve() -> Running:
        return start(listen=f"127.0.0.1:{port}", pipelines=pipelines)

    engine = serve()
    watched = prometheus(f"127.0.0.1:{port}")
    loads = {name: load(port, name, rate) for name, rate in RATES.items()}
    made = source(watched)

    # Agreement, once the whole window lies within the load and the scrapes.
    until(lambda: set(read(made)) == {"a", "b"})
    time.sleep(WINDOW + 2 * SCRAPE)
    samples = read(made)
    assert sorted(samples) == ["a", "b"]
    for name, sample in samples.items():
        agree(sample, loads[name])

    # A renamed metric is unknown, and so is everything when it is the one that tells the age.
    renamed = read(source(watched, queries={"arrivals": 'sum by (pipeline) (rate(renamed_total{x="y"}[$window]))'}))
    assert renamed["a"].arrivals is None
    assert renamed["a"].completions
    assert read(source(watched, queries={"age": "time() - max by (pipeline) (timestamp(renamed_total))"})) == {}

    # Slow, then itself again.
    feed = Feed("prometheus", lambda _: made, ["a", "b"], every=0.5, stale=2.0)
    feed.start()
    until(lambda: bool(feed.parts("a", time.time())))
    watched.pause()
    until(lambda: "no answer" in (feed.report().problem or ""))
    kept = feed.parts("a", time.time())
    assert [part.sample.arrivals for part in kept] != [0]
    until(lambda: merge(feed.parts("a", now := time.time()), now) is None)
    watched.resume()
    until(lambda: merge(feed.parts("a", now := time.time()), now) is not None)

    # Down, then started again with what it had stored.
    watched.stop()
    until(lambda: "no connection" in (feed.report().problem or ""))
    until(lambda: merge(feed.parts("a", now := time.time()), now) is None)
    watched.start()
    until(lambda: merge(feed.parts("a", now := time.time()), now) is not None)

    # The engine is gone: no samples, where a dashboard would show 0 requests per second.
    assert engine.stop() == 0
    until(lambda: read(made) == {})
    until(lambda: merge(feed.parts("a", now := time.time()), now) is None)

    # It is back with counters from zero: no spike and no dip below zero.
    serve()
    until(lambda: "a" in read(made))
    highest = 0.0
    end = time.monotonic() + WINDOW + 2 * SCRAPE
    while time.monotonic() < end:
        now = time.time()
        parts: list[Part] = feed.parts("a", now)
        for part in parts:
            highest = max(highest, (part.sample.arrivals or 0.0) / WINDOW)
        time.sleep(0.25)
    assert 0 < highest <= RATES["a"] * 1.15
    for name, sample in read(made).items():
        agree(sample, loads[name])
    feed.stop()


def test_a_prometheus_that_refuses_a_query_is_quoted(prometheus: Callable[[str], Prometheus]) -> None:
    made = source(prometheus("127.0.0.1:1"), queries={"age": "sum by ("})
    with pytest.raises(SourceError, match=r"age: HTTP 400 .*parse error"):
        read(made)
