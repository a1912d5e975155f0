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

ISTIO, REST = "istio_request", "rest_server_requests_duration_seconds"
IGRAPH = "label_serving_kserve_io_inferencegraph"
TRITON_1 = 'namespace="prod",pod="tr-predictor-5d5f8c7b9-abcde"'
TRITON_2 = 'namespace="prod",pod="tr-predictor-5d5f8c7b9-fghij"'
MLSERVER = 'namespace="prod",pod="ml-predictor-66b8c-abcde"'
ROUTER, KROUTER = 'namespace="prod",pod="flow-7d9c-abcde"', 'namespace="prod",pod="flow-00001-deployment-7d9c-klmno"'

CPU = "container_cpu_usage_seconds_total"
FIRST = 'namespace="prod",pod="us-predictor-5d5f8c7b9-abcde"'
SECOND = 'namespace="prod",pod="us-predictor-5d5f8c7b9-fghij"'
BEFORE = 'namespace="prod",pod="us-transformer-77c9d-klmno"'
US = 'k8s_namespace_name="prod",kn_service_name="us-predictor"'


def sdk(namespace: str, pod: str | None, rate: float) -> dict[str, float]:
    """KServe's SDK; whoever scrapes it adds the namespace and, mostly, the pod."""
    labels = f'model_name="us",namespace="{namespace}"' + (f',pod="{pod}"' if pod else "")
    buckets = {f'request_predict_seconds_bucket{{{labels},le="{le}"}}': rate for le in ("0.2", "+Inf")}
    none = {f'request_predict_seconds_bucket{{{labels},le="0.1"}}': 0.0}
    return {f"request_predict_seconds_count{{{labels}}}": rate, **buckets, **none}


def knative(namespace: str, service: str, rate: float) -> dict[str, float]:
    labels = f'k8s_namespace_name="{namespace}",kn_service_name="{service}",http_response_status_code="200"'
    buckets = {f'{KN}_bucket{{{labels},le="{le}"}}': rate for le in ("0.2", "+Inf")}
    return {f"{KN}_count{{{labels}}}": rate, **buckets, f'{KN}_bucket{{{labels},le="0.1"}}': 0.0}


def router(namespace: str, name: str, rate: float) -> dict[str, float]:
    """The router of a graph as Istio's sidecar in front of it sees it; the one at the client counts it, too."""
    found: dict[str, float] = {}
    for reporter, seen in (("destination", rate), ("source", 50.0)):
        labels = f'reporter="{reporter}",destination_workload="{name}",destination_workload_namespace="{namespace}"'
        buckets = {f'{ISTIO}_duration_milliseconds_bucket{{{labels},le="{le}"}}': seen for le in ("200", "+Inf")}
        none = {f'{ISTIO}_duration_milliseconds_bucket{{{labels},le="100"}}': 0.0}
        codes = {f'{ISTIO}s_total{{{labels},response_code="{code}"}}': n for code, n in ((200, seen - 1), (503, 1.0))}
        found |= {**codes, **buckets, **none}
    return found


def triton(pod: str, models: dict[str, float]) -> dict[str, float]:
    """Triton in a pod, each of its models with a rate of its own; one request a second of each is refused."""
    found = {}
    for model, rate in models.items():
        labels = f'model="{model}",version="1",namespace="prod",pod="{pod}"'
        found[f"nv_inference_request_success{{{labels}}}"] = rate
        found |= {
            f'nv_inference_request_failure{{{labels},reason="{reason}"}}': float(reason == "REJECTED")
            for reason in ("REJECTED", "CANCELED", "BACKEND", "OTHER")
        }
    return found


def mlserver(pod: str, rate: float, failed: float) -> dict[str, float]:
    """MLServer in a pod; whoever asks for the metadata of a model is no load."""
    where = f'namespace="prod",pod="{pod}"'
    model = f'model="ml",version="v1",{where}'
    infer = f'method="POST",path="/v2/models/{{model_name}}/infer",status_code="200",app_name="mlserver",{where}'
    other = f'method="GET",path="/v2/models/{{model_name}}",status_code="200",app_name="mlserver",{where}'
    return {
        f"model_infer_request_success_total{{{model}}}": rate,
        f"model_infer_request_failure_total{{{model}}}": failed,
        f"model_infer_request_duration_count{{{model}}}": rate + failed,
        f'{REST}_bucket{{{infer},le="0.1"}}': 0,
        f'{REST}_bucket{{{infer},le="0.2"}}': rate,
        f'{REST}_bucket{{{infer},le="+Inf"}}': rate,
        f'{REST}_bucket{{{other},le="0.1"}}': 99,
        f'{REST}_bucket{{{other},le="0.2"}}': 99,
        f'{REST}_bucket{{{other},le="+Inf"}}': 99,
    }


# Metric to growth per second (counters, also buckets), and to value (gauges). Latencies lie evenly in (0.1, 0.2] s.
COUNTERS: dict[str, float] = {
    'headgate_requests_total{pipeline="us",code="200"}': 20,
    'headgate_requests_total{pipeline="us",code="503"}': 2,
    'headgate_cpu_seconds_total{pipeline="us"}': 0.5,
    'headgate_request_duration_seconds_bucket{pipeline="us",le="0.1"}': 0,
    'headgate_request_duration_seconds_bucket{pipeline="us",le="0.2"}': 20,
    'headgate_request_duration_seconds_bucket{pipeline="us",le="+Inf"}': 20,
    **sdk("prod", "us-predictor-5d5f8c7b9-abcde", 15),
    **sdk("prod", "us-predictor-5d5f8c7b9-fghij", 5),
    **sdk("prod", "us-transformer-77c9d-klmno", 8),
    **sdk("test", "us-predictor-00002-deployment-77c9d-klmno", 3),
    **sdk("alone", None, 4),
    f'{CPU}{{{FIRST},container="kserve-container"}}': 0.3,
    f'{CPU}{{{SECOND},container="kserve-container"}}': 0.2,
    f'{CPU}{{{SECOND},container="queue-proxy"}}': 9,
    f'{CPU}{{{BEFORE},container="kserve-container"}}': 0.7,
    'container_cpu_usage_seconds_total{namespace="prod",pod="sd-1",container="model"}': 0.5,
    f'{KN}_count{{{US},http_response_status_code="200"}}': 18,
    f'{KN}_count{{{US},http_response_status_code="503"}}': 2,
    f'{KN}_bucket{{{US},http_response_status_code="200",le="0.1"}}': 0,
    f'{KN}_bucket{{{US},http_response_status_code="200",le="0.2"}}': 18,
    f'{KN}_bucket{{{US},http_response_status_code="200",le="+Inf"}}': 18,
    **knative("prod", "us-transformer", 7),
    **knative("test", "us-predictor", 2),
    **knative("prod", "flow", 6),
    f'{OLD}_count{{namespace_name="prod",service_name="eu-predictor",response_code_class="2xx"}}': 9,
    f'{OLD}_count{{namespace_name="prod",service_name="eu-predictor",response_code_class="5xx"}}': 1,
    f'{OLD}_latencies_bucket{{namespace_name="prod",service_name="eu-predictor",le="100"}}': 0,
    f'{OLD}_latencies_bucket{{namespace_name="prod",service_name="eu-predictor",le="200"}}': 10,
    f'{OLD}_latencies_bucket{{namespace_name="prod",service_name="eu-predictor",le="+Inf"}}': 10,
    f'{OLD}_count{{namespace_name="prod",service_name="past",response_code_class="2xx"}}': 3,
    f'{OLD}_latencies_bucket{{namespace_name="prod",service_name="past",le="100"}}': 0,
    f'{OLD}_latencies_bucket{{namespace_name="prod",service_name="past",le="200"}}': 3,
    f'{OLD}_latencies_bucket{{namespace_name="prod",service_name="past",le="+Inf"}}': 3,
    **router("prod", "flow", 12),
    f'{CPU}{{{ROUTER},container="flow"}}': 0.1,
    f'{CPU}{{{ROUTER},container="istio-proxy"}}': 9,
    f'{CPU}{{{KROUTER},container="user-container"}}': 0.05,
    f'{CPU}{{{KROUTER},container="queue-proxy"}}': 9,
    **triton("tr-predictor-5d5f8c7b9-abcde", {"one": 10, "two": 4}),
    **triton("tr-predictor-5d5f8c7b9-fghij", {"one": 6}),
    f'{CPU}{{{TRITON_1},container="kserve-container"}}': 0.4,
    f'{CPU}{{{TRITON_2},container="kserve-container"}}': 0.2,
    **mlserver("ml-predictor-66b8c-abcde", 11, 2),
    f'{CPU}{{{MLSERVER},container="kserve-container"}}': 0.6,
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
    f'kube_pod_labels{{{FIRST},{ISVC}="us"}}': 1,
    f'kube_pod_labels{{{SECOND},{ISVC}="us"}}': 1,
    f'kube_pod_labels{{{BEFORE},{ISVC}="us"}}': 1,
    f'kube_pod_labels{{{TRITON_1},{ISVC}="tr"}}': 1,
    f'kube_pod_labels{{{TRITON_2},{ISVC}="tr"}}': 1,
    f'kube_pod_labels{{{MLSERVER},{ISVC}="ml"}}': 1,
    f'kube_pod_labels{{{ROUTER},{IGRAPH}="flow"}}': 1,
    f'kube_pod_labels{{{KROUTER},{IGRAPH}="flow"}}': 1,
    f'nv_inference_pending_request_count{{model="one",version="1",{TRITON_1}}}': 5,
    f'nv_inference_pending_request_count{{model="one",version="1",{TRITON_2}}}': 2,
    f'nv_inference_request_summary_us{{model="one",version="1",quantile="0.5",{TRITON_1}}}': 100_000,
    f'nv_inference_request_summary_us{{model="one",version="1",quantile="0.5",{TRITON_2}}}': 150_000,
    'kube_pod_labels{namespace="prod",pod="sd-1",label_seldon_deployment_id="us"}': 1,
    'kn_serving_queue_depth{k8s_namespace_name="prod",kn_service_name="us-predictor"}': 3,
    'revision_queue_depth{namespace_name="prod",service_name="eu-predictor"}': 4,
}

# Recipe, pipeline, and what has to come out of it per second (amounts) or as it is (queue).
EXPECTED: list[tuple[str, str, dict[str, float]]] = [
    ("engine", "us", {"arrivals": 22, "completions": 20, "dropped": 2, "cpu_seconds": 0.5, "queue": 3}),
    ("kserve", "prod/us", {"completions": 20, "cpu_seconds": 0.5}),
    ("kserve", "prod/us/transformer", {"completions": 8, "cpu_seconds": 0.7}),
    ("kserve", "test/us", {"completions": 3}),
    ("kserve", "alone/us", {"completions": 4}),
    ("kserve", "prod/flow/router", {"arrivals": 12, "completions": 11, "cpu_seconds": 0.15}),
    ("kserve-knative", "prod/flow/router", {"arrivals": 6, "completions": 6, "cpu_seconds": 0.15}),
    ("kserve-knative", "prod/past/router", {"arrivals": 3, "completions": 3}),
    ("kserve-triton", "prod/tr", {"completions": 20, "dropped": 3, "queue": 7, "cpu_seconds": 0.6}),
    ("kserve-mlserver", "prod/ml", {"completions": 13, "cpu_seconds": 0.6}),
    ("kserve-knative", "prod/us", {"arrivals": 20, "completions": 18, "cpu_seconds": 0.5, "queue": 3}),
    ("kserve-knative", "prod/us/transformer", {"arrivals": 7, "completions": 7}),
    ("kserve-knative", "test/us", {"arrivals": 2, "completions": 2}),
    ("kserve-knative", "prod/eu", {"arrivals": 10, "completions": 9, "queue": 4}),
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


HOSTED = [
    *("prod/us", "prod/us/transformer", "test/us", "alone/us", "prod/eu", "prod/tr", "prod/ml"),
    *("prod/flow/router", "prod/past/router"),
]


def read(prometheus: Prometheus, recipe: str, **settings: Any) -> dict[str, Sample]:
    names = settings.pop("names", HOSTED if recipe.startswith("kserve") else ["us", "eu"])
    given = {"url": prometheus.url, "recipe": recipe, "window": 5, "percentiles": [50], "retries": 0, **settings}
    made = PrometheusSource(validate(Document("s.yaml", given), PrometheusSettings), names)
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
    assert sorted(read(watched, "kserve", match={"namespace": "test"})) == ["test/us"]
    assert sorted(read(watched, "kserve", match={"namespace": "test"}, names=["us"])) == ["us"]
