"""Where known servers keep what a sample is made of: for the direct scrape, and as PromQL for a Prometheus.

Names from the servers' own documentation: BentoML 1.4 "Metrics", Seldon Core 2 "Operational metrics" and Seldon Core 1
"Metrics with Prometheus", cAdvisor and kube-state-metrics; those of the servers in KServe are in `kserve_recipes`.
"""

from __future__ import annotations

from collections.abc import Mapping

from headgate.controller.sources.kserve_recipes import KSERVE_RECIPES
from headgate.controller.sources.recipe import Recipe
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
    **KSERVE_RECIPES,
    "seldon": _SELDON,
    "seldon-v1": _SELDON_V1,
    "bentoml": _BENTOML,
    "none": Recipe("pipeline", {}),
}
"""By the name that the settings use."""

__all__ = ["RECIPES", "BentoSettings", "EngineSettings", "Recipe", "Scrape"]
