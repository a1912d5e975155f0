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

    In a query, $names is a regular expression of the pipelines' names at the host, $services one of the services in
    names like "namespace/service/component" (either is ".+" where there are too many), $window the range of the rates,
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

# KServe: a pipeline is "namespace/service", with "/transformer" or "/explainer" for those components. Names of services
# are unique within a namespace only, and all components of a service give their metrics the same model name: which of
# them a series is from, the names of KServe's pods and of Knative's services tell.

_POD = r'".*-(transformer|explainer)(-[0-9]{5}-deployment)?-[a-z0-9]+-[a-z0-9]{5}"'
_ISVC = "label_serving_kserve_io_inferenceservice"


def _by(service: str) -> str:
    return f"by (namespace, {service}, headgate_stage)"


def _named(vector: str, service: str) -> str:
    """`vector` with the pipeline's name, from its labels namespace, `service` and headgate_stage."""
    joined = f'label_join({vector}, "pipeline", "/", "namespace", "{service}", "headgate_stage")'
    return f'label_replace({joined}, "pipeline", "$1", "pipeline", "(.*)/")'


def _staged(vector: str) -> str:
    """`vector` with the component, unless it is the predictor, from the pod's name."""
    return f'label_replace({vector}, "headgate_stage", "$1", "pod", {_POD})'


_SDK = 'request_predict_seconds_count{model_name=~"$services"$match}'
_SDK_RATE = _named(f"sum {_by('model_name')} ({_staged(f'rate({_SDK}[$window])')})", "model_name")
_SDK_BUCKETS = _staged('rate(request_predict_seconds_bucket{model_name=~"$services"$match}[$window])')
_POD_CPU = _staged('rate(container_cpu_usage_seconds_total{container="kserve-container"$match}[$window])')
_KSERVE_CPU = _named(
    f"sum {_by(_ISVC)} ({_POD_CPU} * on (namespace, pod) group_left ({_ISVC})"
    f' max by (namespace, pod, {_ISVC}) (kube_pod_labels{{{_ISVC}=~"$services"$match}}))',
    _ISVC,
)

# The SDK's own histogram; it counts a request when its prediction has ended, so arrivals are completions here.
_KSERVE = Recipe(
    "pipeline",
    {
        "age": _named(f"time() - max {_by('model_name')} ({_staged(f'timestamp({_SDK})')})", "model_name"),
        "arrivals": _SDK_RATE,
        "completions": _SDK_RATE,
        "cpu_seconds": _KSERVE_CPU,
        "latency": _named(
            f"histogram_quantile($share, sum by (namespace, model_name, headgate_stage, le) ({_SDK_BUCKETS}))",
            "model_name",
        ),
    },
)


def _knative(new: str, old: str) -> str:
    """The same asked with the names since Knative 1.19 and, where those yield nothing, with the older ones."""
    return f"{_named(new, 'headgate_service')} or {_named(old, 'headgate_service')}"


def _placed(vector: str, service: str, namespace: str) -> str:
    """`vector` with the service and the component of Knative's service "{service}-{component}", and its namespace."""
    placed = f'label_replace({vector}, "namespace", "$1", "{namespace}", "(.+)")'
    named = f'label_replace({placed}, "headgate_service", "$1", "{service}", "(.*)-(predictor|transformer|explainer)")'
    return f'label_replace({named}, "headgate_stage", "$1", "{service}", ".*-(transformer|explainer)")'


def _new(vector: str) -> str:
    return _placed(vector, "kn_service_name", "k8s_namespace_name")


def _old(vector: str) -> str:
    return _placed(vector, "service_name", "namespace_name")


_COMPONENT = "(predictor|transformer|explainer)"
_NEW = f'kn_service_name=~"($services)-{_COMPONENT}"'
_OLD = f'service_name=~"($services)-{_COMPONENT}"'
_CALLS, _OLD_CALLS = "kn_serving_invocation_duration_seconds", "revision_app_request"
_SUM, _MAX = (f"{how} {_by('headgate_service')}" for how in ("sum", "max"))
_LE = "sum by (namespace, headgate_service, headgate_stage, le)"
_KSERVE_KNATIVE = Recipe(
    "pipeline",
    {
        "age": _knative(
            f"(time() - {_MAX} ({_new(f'timestamp({_CALLS}_count{{{_NEW}$match}})')}))",
            f"(time() - {_MAX} ({_old(f'timestamp({_OLD_CALLS}_count{{{_OLD}$match}})')}))",
        ),
        "arrivals": _knative(
            f"{_SUM} ({_new(f'rate({_CALLS}_count{{{_NEW}$match}}[$window])')})",
            f"{_SUM} ({_old(f'rate({_OLD_CALLS}_count{{{_OLD}$match}}[$window])')})",
        ),
        "completions": _knative(
            f"{_SUM} (" + _new(f'rate({_CALLS}_count{{{_NEW},http_response_status_code=~"2.."$match}}[$window])') + ")",
            f'{_SUM} ({_old(f"""rate({_OLD_CALLS}_count{{{_OLD},response_code_class="2xx"$match}}[$window])""")})',
        ),
        "queue": _knative(
            f"{_SUM} ({_new(f'kn_serving_queue_depth{{{_NEW}$match}}')})",
            f"{_SUM} ({_old(f'revision_queue_depth{{{_OLD}$match}}')})",
        ),
        "cpu_seconds": _KSERVE_CPU,
        "latency": _knative(
            f"histogram_quantile($share, {_LE} ({_new(f'rate({_CALLS}_bucket{{{_NEW}$match}}[$window])')}))",
            f"(histogram_quantile($share, {_LE} "
            f"({_old(f'rate({_OLD_CALLS}_latencies_bucket{{{_OLD}$match}}[$window])')})) / 1000)",
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
