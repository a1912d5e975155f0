"""Against a double that answers as the metrics API is documented to: metrics.k8s.io/v1beta1 PodMetricsList."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from headgate.controller.sources.kubernetes import KubernetesSettings, KubernetesSource
from headgate.core.hookspecs import SourceError
from headgate.core.model import Sample

from .conftest import Answer, Web

LABEL, GRAPH = "serving.kserve.io/inferenceservice", "serving.kserve.io/inferencegraph"


def kubeconfig(folder: Path, url: str, token: str = "hunter2") -> str:
    path = folder / "kubeconfig"
    path.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "test",
                "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
                "clusters": [{"name": "test", "cluster": {"server": url}}],
                "users": [{"name": "test", "user": {"token": token}}],
            }
        )
    )
    return str(path)


def pod(name: str, service: str, time: str, window: str, **containers: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "prod", "labels": {LABEL: service}},
        "timestamp": time,
        "window": window,
        "containers": [
            {"name": container.replace("_", "-"), "usage": {"cpu": cpu, "memory": "10Mi"}}
            for container, cpu in containers.items()
        ],
    }


def metrics(*items: dict[str, Any]) -> Answer:
    body = {"kind": "PodMetricsList", "apiVersion": "metrics.k8s.io/v1beta1", "metadata": {}, "items": list(items)}
    return Answer(json.dumps(body), kind="application/json")


def source(web: Web, folder: Path, *names: str, **settings: Any) -> KubernetesSource:
    chosen = KubernetesSettings(kubeconfig=kubeconfig(folder, web.url), **settings)
    return KubernetesSource(chosen, names or ["us-east", "eu-west"])


def test_cpu_of_all_pods_of_a_pipeline_with_the_oldest_time(web: Web, tmp_path: Path) -> None:
    web.answer = lambda asked: metrics(
        pod("p1", "us-east", "2026-01-01T00:00:10Z", "20s", kserve_container="500m", queue_proxy="250000u"),
        pod("p2", "us-east", "2026-01-01T00:00:00Z", "15.5s", kserve_container="1250000000n"),
        pod("p3", "other", "2026-01-01T00:00:00Z", "15s", kserve_container="1"),
    )
    start = 1767225600.0  # 2026-01-01T00:00:00Z
    assert list(source(web, tmp_path).read(0)) == [
        Sample("us-east", start, 20, cpu_seconds=pytest.approx((0.5 + 0.25 + 1.25) * 20))  # type: ignore[arg-type]
    ]
    (asked,) = web.asked
    assert urlsplit(asked.path).path == "/apis/metrics.k8s.io/v1beta1/pods"
    assert parse_qs(urlsplit(asked.path).query)["labelSelector"] == [f"{LABEL} in (eu-west,us-east)"]
    assert asked.headers["Authorization"] == "Bearer hunter2"


def test_services_of_one_name_in_two_namespaces_and_their_components_are_kept_apart(web: Web, tmp_path: Path) -> None:
    found = [pod(f"p{i}", "us", "2026-01-01T00:00:00Z", "10s", kserve_container=f"{i}00m") for i in (1, 2, 3)]
    found[1]["metadata"]["namespace"] = "test"
    found[2]["metadata"]["labels"]["component"] = "transformer"
    web.answer = lambda asked: metrics(*found)
    names = ("prod/us", "test/us", "prod/us/transformer")
    samples = {s.pipeline: s.cpu_seconds for s in source(web, tmp_path, *names).read(0)}
    assert samples == {name: pytest.approx(i) for i, name in enumerate(names, 1)}
    assert parse_qs(urlsplit(web.asked[0].path).query)["labelSelector"] == [f"{LABEL} in (us)"]


def test_one_container_of_one_namespace(web: Web, tmp_path: Path) -> None:
    web.answer = lambda asked: metrics(
        pod("p1", "us-east", "2026-01-01T00:00:10Z", "20s", kserve_container="500m", queue_proxy="250m")
    )
    (sample,) = source(web, tmp_path, namespace="prod", container="kserve-container").read(0)
    assert sample.cpu_seconds == pytest.approx(0.5 * 20)
    assert urlsplit(web.asked[0].path).path == "/apis/metrics.k8s.io/v1beta1/namespaces/prod/pods"


def test_routers_of_graphs_without_their_proxies(web: Web, tmp_path: Path) -> None:
    router = pod("p1", "", "2026-01-01T00:00:00Z", "10s", flow="200m", istio_proxy="1")
    router["metadata"]["labels"] = {GRAPH: "flow"}
    served = pod("p2", "flow", "2026-01-01T00:00:00Z", "10s", kserve_container="300m", agent="1")
    web.answer = lambda asked: metrics(router if "graph" in asked.path else served)
    names = ("prod/flow", "prod/flow/router")
    found = source(web, tmp_path, *names, container="kserve-container").read(0)
    assert {s.pipeline: s.cpu_seconds for s in found} == {names[0]: pytest.approx(3), names[1]: pytest.approx(2)}
    selectors = [parse_qs(urlsplit(asked.path).query)["labelSelector"][0] for asked in web.asked]
    assert selectors == [f"{LABEL} in (flow)", f"{GRAPH} in (flow)"]


def test_pods_without_metrics_are_unknown_not_idle(web: Web, tmp_path: Path) -> None:
    web.answer = lambda asked: metrics()
    assert list(source(web, tmp_path).read(0)) == []


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            Answer('{"kind":"Status","message":"pods.metrics.k8s.io is forbidden"}', 403),
            "HTTP 403: pods.* is forbidden",
        ),
        (Answer("404 page not found", 404), "HTTP 404"),
        (Answer("service unavailable", 503), "HTTP 503"),
        (Answer("{}"), "not a list of pod metrics"),
        (Answer("<"), "not a list of pod metrics"),
        (metrics({"metadata": {"name": "p", "labels": {LABEL: "us-east"}}}), "metrics of pod p cannot be read"),
    ],
)
def test_trouble_is_said_without_the_token(web: Web, tmp_path: Path, answer: Answer, message: str) -> None:
    web.answer = lambda asked: answer
    with pytest.raises(SourceError, match=message) as caught:
        list(source(web, tmp_path).read(0))
    assert "hunter2" not in str(caught.value)


def test_a_token_that_no_header_can_hold_is_not_quoted(web: Web, tmp_path: Path) -> None:
    chosen = KubernetesSettings(kubeconfig=kubeconfig(tmp_path, web.url, "hunter2\nhunter3"))
    with pytest.raises(SourceError, match="line break") as raised:
        list(KubernetesSource(chosen, ["us-east"]).read(0.0))
    assert "hunter" not in str(raised.value)


def test_no_cluster_is_said(web: Web, tmp_path: Path) -> None:
    made = source(web, tmp_path, timeout=0.5)
    web.close()
    with pytest.raises(SourceError, match="cannot be reached"):
        list(made.read(0))
    with pytest.raises(SourceError, match="no Kubernetes cluster is known"):
        KubernetesSource(KubernetesSettings(kubeconfig=str(tmp_path / "none")), ["a"])
