"""Where known servers keep what a sample is made of: for the direct scrape, and as PromQL for a Prometheus.

Names from the servers' own documentation: BentoML 1.4 "Metrics", Knative Serving 1.10 to 1.21 "Service metrics" and
"Serving metrics", KServe's SDK 0.21 (`kserve.metrics`), Seldon Core 2 "Operational metrics" and Seldon Core 1
"Metrics with Prometheus", cAdvisor and kube-state-metrics.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from headgate.controller.sources.scrape import Scrape, ScrapeSettings, Selector


class EngineSettings(ScrapeSettings):
    """headgate's own engine."""

    arrivals: Selector | None = Selector(metric="headgate_requests_total")
    completions: Selector | None = Selector(metric="headgate_requests_total", where={"code": "2.."})
    dropped: Selector | None = Selector(metric="headgate_requests_total", where={"code": "503"})
    cpu_seconds: Selector | None = Selector(metric="headgate_cpu_seconds_total")
    queue: Selector | None = Selector(metric="headgate_queue_length")
    latency: Selector | None = Selector(metric="headgate_request_duration_seconds")


# Probes are requests too for BentoML.
_ENDPOINT = r"(?!/(livez|readyz|healthz|metrics)$).*"


class BentoSettings(ScrapeSettings):
    """A BentoML service; a pipeline is a runner, that is one service of a `depends()` tree."""

    label: str = "runner_name"
    arrivals: Selector | None = Selector(metric="bentoml_service_request_total", where={"endpoint": _ENDPOINT})
    completions: Selector | None = Selector(
        metric="bentoml_service_request_total", where={"endpoint": _ENDPOINT, "http_response_code": "2.."}
    )
    dropped: Selector | None = Selector(
        metric="bentoml_service_request_total", where={"endpoint": _ENDPOINT, "http_response_code": "429|503"}
    )
    latency: Selector | None = Selector(
        metric="bentoml_service_request_duration_seconds", where={"endpoint": _ENDPOINT}
    )


@dataclass(frozen=True, slots=True)
class Recipe:
    """PromQL for each field of a sample, and the label of its results that names the pipeline.

    In a query, $names is a regular expression of the pipelines' names at the host, $window the range of the rates,
    $match further matchers from the settings, $share (0 to 1) the share of a percentile. `age` is the number of
    seconds since the newest sample was scraped; without it none of the other answers is believed.
    """

    label: str
    queries: Mapping[str, str]


_ENGINE = Recipe(
    "pipeline",
    {
        "age": 'time() - max by (pipeline) (timestamp(headgate_requests_total{pipeline=~"$names"$match}))',
        "arrivals": 'sum by (pipeline) (rate(headgate_requests_total{pipeline=~"$names"$match}[$window]))',
        "completions": "sum by (pipeline)"
        ' (rate(headgate_requests_total{pipeline=~"$names",code=~"2.."$match}[$window]))',
        "dropped": 'sum by (pipeline) (rate(headgate_requests_total{pipeline=~"$names",code="503"$match}[$window]))',
        "cpu_seconds": 'sum by (pipeline) (rate(headgate_cpu_seconds_total{pipeline=~"$names"$match}[$window]))',
        "queue": 'sum by (pipeline) (headgate_queue_length{pipeline=~"$names"$match})',
        "latency": "histogram_quantile($share, sum by (pipeline, le)"
        ' (rate(headgate_request_duration_seconds_bucket{pipeline=~"$names"$match}[$window])))',
    },
)

_KSERVE_CPU = (
    "sum by (label_serving_kserve_io_inferenceservice)"
    ' (rate(container_cpu_usage_seconds_total{container="kserve-container"$match}[$window])'
    " * on (namespace, pod) group_left (label_serving_kserve_io_inferenceservice)"
    " max by (namespace, pod, label_serving_kserve_io_inferenceservice)"
    ' (kube_pod_labels{label_serving_kserve_io_inferenceservice=~"$names"$match}))'
)

# The SDK's own histogram; it counts a request when its prediction has ended, so arrivals are completions here.
_KSERVE = Recipe(
    "model_name",
    {
        "age": 'time() - max by (model_name) (timestamp(request_predict_seconds_count{model_name=~"$names"$match}))',
        "arrivals": 'sum by (model_name) (rate(request_predict_seconds_count{model_name=~"$names"$match}[$window]))',
        "completions": 'sum by (model_name) (rate(request_predict_seconds_count{model_name=~"$names"$match}[$window]))',
        "cpu_seconds": f'label_replace({_KSERVE_CPU}, "model_name", "$1",'
        ' "label_serving_kserve_io_inferenceservice", "(.*)")',
        "latency": "histogram_quantile($share, sum by (model_name, le)"
        ' (rate(request_predict_seconds_bucket{model_name=~"$names"$match}[$window])))',
    },
)


def _knative(new: str, old: str) -> str:
    """The same asked with the names since Knative 1.19 and, where those yield nothing, with the older ones."""
    return (
        f'label_replace({new}, "pipeline", "$1", "kn_service_name", "(.*)-predictor")'
        f' or label_replace({old}, "pipeline", "$1", "service_name", "(.*)-predictor")'
    )


_NEW = 'kn_service_name=~"($names)-predictor"'
_OLD = 'service_name=~"($names)-predictor"'
_KSERVE_KNATIVE = Recipe(
    "pipeline",
    {
        "age": _knative(
            "(time() - max by (kn_service_name)"
            f" (timestamp(kn_serving_invocation_duration_seconds_count{{{_NEW}$match}})))",
            f"(time() - max by (service_name) (timestamp(revision_app_request_count{{{_OLD}$match}})))",
        ),
        "arrivals": _knative(
            f"sum by (kn_service_name) (rate(kn_serving_invocation_duration_seconds_count{{{_NEW}$match}}[$window]))",
            f"sum by (service_name) (rate(revision_app_request_count{{{_OLD}$match}}[$window]))",
        ),
        "completions": _knative(
            "sum by (kn_service_name) (rate(kn_serving_invocation_duration_seconds_count"
            f'{{{_NEW},http_response_status_code=~"2.."$match}}[$window]))',
            "sum by (service_name)"
            f' (rate(revision_app_request_count{{{_OLD},response_code_class="2xx"$match}}[$window]))',
        ),
        "queue": _knative(
            f"sum by (kn_service_name) (kn_serving_queue_depth{{{_NEW}$match}})",
            f"sum by (service_name) (revision_queue_depth{{{_OLD}$match}})",
        ),
        "cpu_seconds": f'label_replace({_KSERVE_CPU}, "pipeline", "$1",'
        ' "label_serving_kserve_io_inferenceservice", "(.*)")',
        "latency": _knative(
            "histogram_quantile($share, sum by (kn_service_name, le)"
            f" (rate(kn_serving_invocation_duration_seconds_bucket{{{_NEW}$match}}[$window])))",
            "(histogram_quantile($share, sum by (service_name, le)"
            f" (rate(revision_app_request_latencies_bucket{{{_OLD}$match}}[$window]))) / 1000)",
        ),
    },
)

# Seldon Core 2: a pipeline is a Model. CPU is the Server's, shared by its Models, and so not told apart here.
_SELDON = Recipe(
    "model",
    {
        "age": 'time() - max by (model) (timestamp(seldon_model_infer_total{model=~"$names"$match}))',
        "arrivals": 'sum by (model) (rate(seldon_model_infer_total{model=~"$names"$match}[$window]))',
        "completions": 'sum by (model) (rate(seldon_model_infer_total{model=~"$names",code=~"200|OK"$match}[$window]))',
        "latency": "histogram_quantile($share, sum by (model, le)"
        ' (rate(seldon_model_infer_api_seconds_bucket{model=~"$names"$match}[$window])))',
    },
)

_SELDON_V1_COUNT = "seldon_api_executor_server_requests_seconds_count"
_SELDON_V1 = Recipe(
    "deployment_name",
    {
        "age": f'time() - max by (deployment_name) (timestamp({_SELDON_V1_COUNT}{{deployment_name=~"$names"$match}}))',
        "arrivals": f'sum by (deployment_name) (rate({_SELDON_V1_COUNT}{{deployment_name=~"$names"$match}}[$window]))',
        "completions": "sum by (deployment_name)"
        f' (rate({_SELDON_V1_COUNT}{{deployment_name=~"$names",code=~"2.."$match}}[$window]))',
        "cpu_seconds": "label_replace(sum by (label_seldon_deployment_id)"
        ' (rate(container_cpu_usage_seconds_total{container!=""$match}[$window])'
        " * on (namespace, pod) group_left (label_seldon_deployment_id)"
        " max by (namespace, pod, label_seldon_deployment_id)"
        ' (kube_pod_labels{label_seldon_deployment_id=~"$names"$match})),'
        ' "deployment_name", "$1", "label_seldon_deployment_id", "(.*)")',
        "latency": "histogram_quantile($share, sum by (deployment_name, le)"
        ' (rate(seldon_api_executor_server_requests_seconds_bucket{deployment_name=~"$names"$match}[$window])))',
    },
)

_BENTOML_CHOSEN = 'runner_name=~"$names",endpoint!~"/(livez|readyz|healthz|metrics)"'
_BENTOML = Recipe(
    "runner_name",
    {
        "age": f"time() - max by (runner_name) (timestamp(bentoml_service_request_total{{{_BENTOML_CHOSEN}$match}}))",
        "arrivals": f"sum by (runner_name) (rate(bentoml_service_request_total{{{_BENTOML_CHOSEN}$match}}[$window]))",
        "completions": "sum by (runner_name)"
        f' (rate(bentoml_service_request_total{{{_BENTOML_CHOSEN},http_response_code=~"2.."$match}}[$window]))',
        "dropped": "sum by (runner_name)"
        f' (rate(bentoml_service_request_total{{{_BENTOML_CHOSEN},http_response_code=~"429|503"$match}}[$window]))',
        "latency": "histogram_quantile($share, sum by (runner_name, le)"
        f" (rate(bentoml_service_request_duration_seconds_bucket{{{_BENTOML_CHOSEN}$match}}[$window])))",
    },
)

RECIPES: Mapping[str, Recipe] = {
    "engine": _ENGINE,
    "kserve": _KSERVE,
    "kserve-knative": _KSERVE_KNATIVE,
    "seldon": _SELDON,
    "seldon-v1": _SELDON_V1,
    "bentoml": _BENTOML,
    "none": Recipe("pipeline", {}),
}
"""By the name that the settings use."""

__all__ = ["RECIPES", "BentoSettings", "EngineSettings", "Recipe", "Scrape"]
