"""PromQL for what serves in KServe: its SDK, Triton, MLServer, Knative's queue-proxies, and the routers of graphs.

A pipeline is "namespace/service", with "/transformer" or "/explainer" for those components, and for the router of an
InferenceGraph "namespace/graph/router". Names of services are unique within a namespace only.

Names from the servers' own documentation and code: KServe's SDK 0.21 (`kserve.metrics`), Knative Serving 1.10 to 1.21
"Service metrics" and "Serving metrics", Triton "Metrics" (user guide, 24.01 and newer for what waits), MLServer 1.7
"Metrics" and `mlserver.handlers.dataplane`, Istio "Standard Metrics", cAdvisor and kube-state-metrics. KServe's router
(0.21, `cmd/router`) has no metrics of its own: its requests are those of Knative's queue-proxy or of Istio's sidecar.
"""

from __future__ import annotations

from collections.abc import Mapping

from headgate.controller.sources.recipe import Recipe

_POD = r'".*-(transformer|explainer)(-[0-9]{5}-deployment)?-[a-z0-9]+-[a-z0-9]{5}"'
_ISVC = "label_serving_kserve_io_inferenceservice"
_GRAPH = "label_serving_kserve_io_inferencegraph"


def _by(service: str, *more: str) -> str:
    return f"by ({', '.join(('namespace', service, 'headgate_stage', *more))})"


def _named(vector: str, service: str) -> str:
    """`vector` with the pipeline's name, from its labels namespace, `service` and headgate_stage."""
    joined = f'label_join({vector}, "pipeline", "/", "namespace", "{service}", "headgate_stage")'
    return f'label_replace({joined}, "pipeline", "$1", "pipeline", "(.*)/")'


def _staged(vector: str) -> str:
    """`vector` with the component, unless it is the predictor, from the pod's name."""
    return f'label_replace({vector}, "headgate_stage", "$1", "pod", {_POD})'


def _router(vector: str) -> str:
    """`vector` with the component of a graph's router."""
    return f'label_replace({vector}, "headgate_stage", "router", "", "")'


def _or(*vectors: str) -> str:
    return " or ".join(vectors)


# By pod: whose a pod is, kube-state-metrics tells by its labels. ------------------------------------------------------


def _owned(how: str, vector: str, label: str = _ISVC, *more: str) -> str:
    """`vector`, which has the labels namespace and pod, for each service (or graph) that `label` of the pod names."""
    owner = f'max by (namespace, pod, {label}) (kube_pod_labels{{{label}=~"$services"$match}})'
    return f"{how} {_by(label, *more)} ({vector} * on (namespace, pod) group_left ({label}) {owner})"


def _usage(containers: str) -> str:
    return f"rate(container_cpu_usage_seconds_total{{{containers}$match}}[$window])"


_CPU = _or(
    _named(_owned("sum", _staged(_usage('container="kserve-container"'))), _ISVC),
    # A router's container is called as its graph, and with Knative user-container.
    _named(_owned("sum", _router(_usage('container!~"|istio-proxy|queue-proxy"')), _GRAPH), _GRAPH),
)

# Standard mode: a router is seen by the sidecar of a mesh, if there is one. -------------------------------------------

_MESH = 'reporter="destination",destination_workload=~"$services"'


def _routed(how: str, vector: str, *more: str) -> str:
    """`vector` of Istio for each router, whose Deployment is called as its graph."""
    placed = f'label_replace({vector}, "namespace", "$1", "destination_workload_namespace", "(.+)")'
    return f"{how} {_by('destination_workload', *more)} ({_router(placed)})"


def _mesh(vector: str) -> str:
    return _named(vector, "destination_workload")


_MESH_REQUESTS = f"istio_requests_total{{{_MESH}$match}}"
_MESH_SERVED = f'istio_requests_total{{{_MESH},response_code=~"2.."$match}}'
_MESH_BUCKETS = f"rate(istio_request_duration_milliseconds_bucket{{{_MESH}$match}}[$window])"
_MESH_QUERIES: Mapping[str, str] = {
    "age": _mesh(f"(time() - {_routed('max', f'timestamp({_MESH_REQUESTS})')})"),
    "arrivals": _mesh(_routed("sum", f"rate({_MESH_REQUESTS}[$window])")),
    "completions": _mesh(_routed("sum", f"rate({_MESH_SERVED}[$window])")),
    "latency": _mesh(f"(histogram_quantile($share, {_routed('sum', _MESH_BUCKETS, 'le')}) / 1000)"),
}


def _standard(queries: Mapping[str, str]) -> Recipe:
    """With the CPU of pods, and routers as a mesh sees them."""
    both = {
        field: _or(*(part[field] for part in (queries, _MESH_QUERIES) if field in part))
        for field in dict.fromkeys([*queries, *_MESH_QUERIES])
    }
    return Recipe("pipeline", {**both, "cpu_seconds": _CPU})


# The SDK: its histogram counts a request when its prediction has ended. All components of a service give the same model
# name; from which of them a series is, the pod's name tells.

_SDK = 'request_predict_seconds_count{model_name=~"$services"$match}'
_SDK_BUCKETS = _staged('rate(request_predict_seconds_bucket{model_name=~"$services"$match}[$window])')
_KSERVE = _standard(
    {
        "age": _named(f"(time() - max {_by('model_name')} ({_staged(f'timestamp({_SDK})')}))", "model_name"),
        "completions": _named(f"sum {_by('model_name')} ({_staged(f'rate({_SDK}[$window])')})", "model_name"),
        "latency": _named(
            f"histogram_quantile($share, sum {_by('model_name', 'le')} ({_SDK_BUCKETS}))",
            "model_name",
        ),
    }
)


def _pods(how: str, vector: str, *more: str) -> str:
    return _owned(how, _staged(vector), _ISVC, *more)


def _sum(metric: str, where: str = "") -> str:
    return _pods("sum", f'rate({metric}{{pod!=""{where}$match}}[$window])')


def _age(metric: str) -> str:
    return _named(f'(time() - {_pods("max", f"""timestamp({metric}{{pod!=""$match}})""")})', _ISVC)


# Triton counts each request as one, whatever its batch, when it has ended. Its percentiles are summaries
# (--metrics-config summary_latencies=true), which cannot be added up: the slowest pod's counts.
_TRITON_REFUSED = ',reason="REJECTED"'
_KSERVE_TRITON = _standard(
    {
        "age": _age("nv_inference_request_success"),
        "completions": _named(_sum("nv_inference_request_success"), _ISVC),
        "dropped": _named(_sum("nv_inference_request_failure", _TRITON_REFUSED), _ISVC),
        "queue": _named(_pods("sum", 'nv_inference_pending_request_count{pod!=""$match}'), _ISVC),
        "latency": _named(
            f"""({_pods("max", 'nv_inference_request_summary_us{pod!="",quantile="$share"$match}')} / 1000000)""", _ISVC
        ),
    }
)

# MLServer's duration counts every request when it has ended, failed ones too; latencies are those of REST.
_REST = 'rest_server_requests_duration_seconds_bucket{path=~"/v2/models/.+/infer"$match}'
_KSERVE_MLSERVER = _standard(
    {
        "age": _age("model_infer_request_duration_count"),
        "completions": _named(_sum("model_infer_request_duration_count"), _ISVC),
        "latency": _named(f"histogram_quantile($share, {_pods('sum', f'rate({_REST}[$window])', 'le')})", _ISVC),
    }
)


# Knative: a component is the Knative service "{service}-{component}", a router the one called as its graph. -----------

_KSVC = r"(.*?)(-(predictor|transformer|explainer))?"


def _knative(new: str, old: str) -> str:
    """The same asked with the names since Knative 1.19 and, where those yield nothing, with the older ones."""
    return f"{_named(new, 'headgate_service')} or {_named(old, 'headgate_service')}"


def _placed(vector: str, service: str, namespace: str) -> str:
    """`vector` with service and component by the name of Knative's service, and its namespace."""
    placed = f'label_replace({vector}, "namespace", "$1", "{namespace}", "(.+)")'
    named = f'label_replace({placed}, "headgate_service", "$1", "{service}", "{_KSVC}")'
    staged = f'label_replace({_router(named)}, "headgate_stage", "", "{service}", ".*-predictor")'
    return f'label_replace({staged}, "headgate_stage", "$1", "{service}", ".*-(transformer|explainer)")'


def _new(vector: str) -> str:
    return _placed(vector, "kn_service_name", "k8s_namespace_name")


def _old(vector: str) -> str:
    return _placed(vector, "service_name", "namespace_name")


_COMPONENT = "(-(predictor|transformer|explainer))?"
_NEW = f'kn_service_name=~"($services){_COMPONENT}"'
_OLD = f'service_name=~"($services){_COMPONENT}"'
_CALLS, _OLD_CALLS = "kn_serving_invocation_duration_seconds", "revision_app_request"
_SUM, _MAX = (f"{how} {_by('headgate_service')}" for how in ("sum", "max"))
_LE = f"sum {_by('headgate_service', 'le')}"
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
        "cpu_seconds": _CPU,
        "latency": _knative(
            f"histogram_quantile($share, {_LE} ({_new(f'rate({_CALLS}_bucket{{{_NEW}$match}}[$window])')}))",
            f"(histogram_quantile($share, {_LE} "
            f"({_old(f'rate({_OLD_CALLS}_latencies_bucket{{{_OLD}$match}}[$window])')})) / 1000)",
        ),
    },
)

KSERVE_RECIPES: Mapping[str, Recipe] = {
    "kserve": _KSERVE,
    "kserve-knative": _KSERVE_KNATIVE,
    "kserve-triton": _KSERVE_TRITON,
    "kserve-mlserver": _KSERVE_MLSERVER,
}
