"""Helm itself installs the chart on a real server: the same as the manifests, and what the values ask for beyond."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cluster.crds import plain
from tests.cluster.harness import Cluster

from .files import CHART, VARIANTS, Object, grants, manifests, rules, settings
from .test_monitoring import ALERTS, DASHBOARD

helm = pytest.importorskip("helm_sdkpy", reason="Helm's library is not installed (PyPI: helm-sdkpy, Python 3.12)")
VALUES: dict[str, Object] = {"cluster": {}, "namespaced": {"namespaced": True, "namespaces": ["models"]}}

Install = Callable[..., tuple[list[Object], str]]


@pytest.fixture
def install(real: Cluster, tmp_path: Path) -> Iterator[Install]:
    """Install with values; the objects and the notes. Uninstalled at the end."""
    real.space("headgate")
    config = tmp_path / "kubeconfig"
    config.write_text(json.dumps(real.kubeconfig()))
    access = helm.Configuration(namespace="headgate", kubeconfig=str(config))
    done = False

    def install(**values: Any) -> tuple[list[Object], str]:
        nonlocal done
        asyncio.run(
            helm.Install(access).run("headgate", str(CHART), values, wait=False, disable_openapi_validation=False)
        )
        done = True
        packed = real.client.get("secrets", "sh.helm.release.v1.headgate.v1", "headgate")["data"]["release"]
        release = json.loads(gzip.decompress(base64.b64decode(base64.b64decode(packed))))
        return [found for found in yaml.safe_load_all(release["manifest"]) if found], release["info"]["notes"]

    yield install
    if done:
        asyncio.run(helm.Uninstall(access).run("headgate", wait=False))


def by_name(objects: list[Object]) -> dict[tuple[str, str], Object]:
    found = {}
    for each in objects:
        each["metadata"].get("labels", {}).pop("app.kubernetes.io/managed-by", None)
        found[each["kind"], each["metadata"]["name"]] = each
    return found


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_is_what_the_manifests_are(variant: str, install: Install) -> None:
    objects, notes = install(**VALUES[variant])
    made = by_name(objects)
    config = made.pop(("ConfigMap", "headgate-settings"))
    assert yaml.safe_load(config["data"]["headgate.yaml"]) == settings(variant)
    # kustomize names the settings by their digest, the chart notes it on the pods.
    template = made["Deployment", "headgate"]["spec"]["template"]
    assert template["metadata"].pop("annotations").keys() == {"headgate.dev/settings"}
    plain_ones = by_name(manifests(variant))
    del plain_ones["Namespace", "headgate"]
    assert made == plain_ones
    assert "No source is set" in notes


def test_all_that_is_optional(real: Cluster, install: Install) -> None:
    monitoring = ("monitoring.coreos.com", "v1")
    real.plane.install(
        [
            plain(*monitoring, "ServiceMonitor", "servicemonitors"),
            plain(*monitoring, "PrometheusRule", "prometheusrules"),
        ]
    )
    for plural in ("servicemonitors", "prometheusrules"):
        real._served(plain(*monitoring, "Any", plural))
    source = {"kind": "prometheus", "url": "http://prometheus:9090", "recipe": "kserve"}
    objects, notes = install(
        apply=True,
        sources=[source],
        settings={"interval": "5s", "host": {"rate": 20}},
        permissions={"template": True, "replicas": True, "metricsApi": True, "nodes": ["karpenter", "capacity"]},
        serviceMonitor={"enabled": True, "labels": {"release": "prometheus"}},
        prometheusRule={"enabled": True},
        dashboard={"enabled": True},
        nodeSelector={"kubernetes.io/os": "linux"},
        tolerations=[{"operator": "Exists"}],
        env=[{"name": "TOKEN", "value": "x"}],
        podAnnotations={"a/b": "c"},
    )
    made = by_name(objects)
    given = yaml.safe_load(made["ConfigMap", "headgate-settings"]["data"]["headgate.yaml"])
    assert given["host"] == {"kind": "kserve", "rate": 20}, "a key more, not another table"
    assert (given["apply"], given["interval"], given["sources"]) == (True, "5s", [source])
    names = ("budgets", "observe", "resize", "nodes", "template", "replicas", "metrics-api")
    scaler = ("node-scaler", "node-scaler-karpenter", "node-scaler-capacity-cluster")
    assert grants(made["ClusterRole", "headgate-headgate"]["rules"]) == grants(rules(*names, *scaler))
    assert grants(made["Role", "headgate-home"]["rules"]) == grants(rules("home", "node-scaler-capacity"))
    assert made["PrometheusRule", "headgate"]["spec"] == yaml.safe_load(ALERTS.read_text())
    assert json.loads(made["ConfigMap", "headgate-dashboard"]["data"]["headgate.json"]) == json.loads(
        DASHBOARD.read_text()
    )
    monitor = made["ServiceMonitor", "headgate"]
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    assert wanted <= made["Service", "headgate"]["metadata"]["labels"].items()
    assert "puts decisions in force" in notes
    assert "No source" not in notes


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"namespaced": True}, "namespaces"),
        ({"namespaces": ["models"]}, "namespaces"),
        ({"replica": 3}, "replica"),
        ({"permissions": {"nodes": ["gce"]}}, "nodes"),
        ({"namespaced": True, "namespaces": ["models"], "permissions": {"nodes": ["aws"]}}, "nodes"),
        ({"sources": [{"url": "http://prometheus"}]}, "kind"),
    ],
)
def test_values_that_make_no_sense_are_refused(values: Object, says: str, install: Install) -> None:
    with pytest.raises(helm.HelmError, match=says):
        install(**values)


def test_it_lints_and_packs(real: Cluster, tmp_path: Path) -> None:
    (tmp_path / "kubeconfig").write_text(json.dumps(real.kubeconfig()))
    access = helm.Configuration(namespace="headgate", kubeconfig=str(tmp_path / "kubeconfig"))
    found = asyncio.run(helm.Lint(access).run(str(CHART)))
    assert not found["Errors"]
    assert Path(asyncio.run(helm.Package(access).run(str(CHART), str(tmp_path)))).is_file()
