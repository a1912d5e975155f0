"""Every recipe against a real Prometheus that scrapes what the servers document to expose, at known rates."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from headgate.controller.sources.prometheus import PrometheusSettings, PrometheusSource
from headgate.controller.sources.recipes import RECIPES
from headgate.core.config import Document, validate
from headgate.core.model import Sample

from .conftest import Answer, Asked, Prometheus, Web

ISVC = "label_serving_kserve_io_inferenceservice"
KN, OLD = "kn_serving_invocation_duration_seconds", "revision_app_request"

# Metric to growth per second (counters, also buckets), and to value (gauges). Latencies lie evenly in (0.1, 0.2] s.
COUNTERS: dict[str, float] = {
    'headgate_requests_total{pipeline="us",code="200"}': 20,
    'headgate_requests_total{pipeline="us",code="503"}': 2,
    'headgate_cpu_seconds_total{pipeline="us"}': 0.5,
    'headgate_request_duration_seconds_bucket{pipeline="us",le="0.1"}': 0,
    'headgate_request_duration_seconds_bucket{pipeline="us",le="0.2"}': 20,
    'headgate_request_duration_seconds_bucket{pipeline="us",le="+Inf"}': 20,
    'request_predict_seconds_count{model_name="us"}': 20,
    'request_predict_seconds_bucket{model_name="us",le="0.1"}': 0,
    'request_predict_seconds_bucket{model_name="us",le="0.2"}': 20,
    'request_predict_seconds_bucket{model_name="us",le="+Inf"}': 20,
    'container_cpu_usage_seconds_total{namespace="prod",pod="us-1",container="kserve-container"}': 0.3,
    'container_cpu_usage_seconds_total{namespace="prod",pod="us-2",container="kserve-container"}': 0.2,
    'container_cpu_usage_seconds_total{namespace="prod",pod="us-2",container="queue-proxy"}': 9,
    'container_cpu_usage_seconds_total{namespace="prod",pod="sd-1",container="model"}': 0.5,
    f'{KN}_count{{kn_service_name="us-predictor",http_response_status_code="200"}}': 18,
    f'{KN}_count{{kn_service_name="us-predictor",http_response_status_code="503"}}': 2,
    f'{KN}_bucket{{kn_service_name="us-predictor",http_response_status_code="200",le="0.1"}}': 0,
    f'{KN}_bucket{{kn_service_name="us-predictor",http_response_status_code="200",le="0.2"}}': 18,
    f'{KN}_bucket{{kn_service_name="us-predictor",http_response_status_code="200",le="+Inf"}}': 18,
    f'{OLD}_count{{service_name="eu-predictor",response_code_class="2xx"}}': 9,
    f'{OLD}_count{{service_name="eu-predictor",response_code_class="5xx"}}': 1,
    f'{OLD}_latencies_bucket{{service_name="eu-predictor",le="100"}}': 0,
    f'{OLD}_latencies_bucket{{service_name="eu-predictor",le="200"}}': 10,
    f'{OLD}_latencies_bucket{{service_name="eu-predictor",le="+Inf"}}': 10,
    'seldon_model_infer_total{model="us",code="200"}': 20,
    'seldon_model_infer_total{model="us",code="500"}': 2,
    'seldon_model_infer_api_seconds_bucket{model="us",le="0.1"}': 0,
    'seldon_model_infer_api_seconds_bucket{model="us",le="0.2"}': 20,
    'seldon_model_infer_api_seconds_bucket{model="us",le="+Inf"}': 20,
    'seldon_api_executor_server_requests_seconds_count{deployment_name="us",code="200"}': 20,
    'seldon_api_executor_server_requests_seconds_bucket{deployment_name="us",le="0.1"}': 0,
    'seldon_api_executor_server_requests_seconds_bucket{deployment_name="us",le="0.2"}': 20,
    'seldon_api_executor_server_requests_seconds_bucket{deployment_name="us",le="+Inf"}': 20,
    'bentoml_service_request_total{runner_name="us",endpoint="/predict",http_response_code="200"}': 20,
    'bentoml_service_request_total{runner_name="us",endpoint="/predict",http_response_code="429"}': 2,
    'bentoml_service_request_total{runner_name="us",endpoint="/readyz",http_response_code="200"}': 99,
    'bentoml_service_request_duration_seconds_bucket{runner_name="us",endpoint="/predict",le="0.1"}': 0,
    'bentoml_service_request_duration_seconds_bucket{runner_name="us",endpoint="/predict",le="0.2"}': 20,
    'bentoml_service_request_duration_seconds_bucket{runner_name="us",endpoint="/predict",le="+Inf"}': 20,
}
GAUGES: dict[str, float] = {
    'headgate_queue_length{pipeline="us"}': 3,
    f'kube_pod_labels{{namespace="prod",pod="us-1",{ISVC}="us"}}': 1,
    f'kube_pod_labels{{namespace="prod",pod="us-2",{ISVC}="us"}}': 1,
    'kube_pod_labels{namespace="prod",pod="sd-1",label_seldon_deployment_id="us"}': 1,
    'kn_serving_queue_depth{kn_service_name="us-predictor"}': 3,
    'revision_queue_depth{service_name="eu-predictor"}': 4,
}

# Recipe, pipeline, and what has to come out of it per second (amounts) or as it is (queue).
EXPECTED: list[tuple[str, str, dict[str, float]]] = [
    ("engine", "us", {"arrivals": 22, "completions": 20, "dropped": 2, "cpu_seconds": 0.5, "queue": 3}),
    ("kserve", "us", {"arrivals": 20, "completions": 20, "cpu_seconds": 0.5}),
    ("kserve-knative", "us", {"arrivals": 20, "completions": 18, "cpu_seconds": 0.5, "queue": 3}),
    ("kserve-knative", "eu", {"arrivals": 10, "completions": 9, "queue": 4}),
    ("seldon", "us", {"arrivals": 22, "completions": 20}),
    ("seldon-v1", "us", {"arrivals": 20, "completions": 20, "cpu_seconds": 0.5}),
    ("bentoml", "us", {"arrivals": 22, "completions": 20, "dropped": 2}),
]


def exporter(begin: float) -> Callable[[Asked], Answer]:
    def answer(asked: Asked) -> Answer:
        elapsed = time.time() - begin
        series = {**{name: rate * elapsed for name, rate in COUNTERS.items()}, **GAUGES}
        # The text format wants the series of one metric together.
        lines = [f"{name} {value}" for name, value in sorted(series.items(), key=lambda item: item[0].split("{")[0])]
        return Answer("\n".join(lines) + "\n")

    return answer


def read(prometheus: Prometheus, recipe: str, **settings: Any) -> dict[str, Sample]:
    given = {"url": prometheus.url, "recipe": recipe, "window": 5, "percentiles": [50], "retries": 0, **settings}
    made = PrometheusSource(validate(Document("s.yaml", given), PrometheusSettings), ["us", "eu"])
    try:
        return {sample.pipeline: sample for sample in made.read(time.time())}
    finally:
        made.close()


def test_every_recipe_finds_what_its_server_exposes(web: Web, prometheus: Callable[[str], Prometheus]) -> None:
    assert {recipe for recipe, _, _ in EXPECTED} == set(RECIPES) - {"none"}
    web.answer = exporter(time.time() - 1000)
    watched = prometheus(web.url.removeprefix("http://"))
    end = time.monotonic() + 60
    while not read(watched, "engine"):
        assert time.monotonic() < end, "nothing was ever scraped"
        time.sleep(0.2)
    time.sleep(7)  # a whole window
    for recipe, pipeline, expected in EXPECTED:
        sample = read(watched, recipe)[pipeline]
        for field, value in expected.items():
            found = getattr(sample, field)
            assert found is not None, f"{recipe}: {field}"
            rate = found if field == "queue" else found / sample.window
            assert rate == pytest.approx(value, rel=0.02), f"{recipe}: {field}"
        # Evenly in (0.1, 0.2]: the median is 0.15 s, whatever the unit of the server's buckets.
        assert sample.latency == {50: pytest.approx(0.15, rel=0.02)}, recipe
    assert sorted(read(watched, "engine", match={"pipeline": "us"})) == ["us"]
    assert read(watched, "kserve", match={"namespace": "test"}) == {}
