"""The chart by Helm itself: the same as the manifests, and what values ask for beyond; it installs, and goes again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cluster.crds import plain
from tests.cluster.harness import Cluster

from .files import CHART, DEPLOY, ROOT, VARIANTS, Object, grants, manifests, rules, settings
from .test_monitoring import ALERTS, DASHBOARD

VALUES: dict[str, Object] = {"cluster": {}, "namespaced": {"namespaced": True, "namespaces": ["models"]}}
SOURCE = {"kind": "prometheus", "url": "http://prometheus:9090", "recipe": "kserve"}
ALL: Object = {
    "apply": True,
    "sources": [SOURCE],
    "settings": {"interval": "5s", "host": {"rate": 20}},
    "permissions": {"template": True, "replicas": True, "metricsApi": True, "nodes": ["karpenter", "capacity"]},
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "prometheusRule": {"enabled": True},
    "dashboard": {"enabled": True},
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"operator": "Exists"}],
    "env": [{"name": "TOKEN", "value": "x"}],
    "podAnnotations": {"a/b": "c"},
}
"""Everything that is optional."""

Helm = Callable[..., str]


@cache
def program() -> str:
    """Helm 4, which renders without a server; "": there is none."""
    found = shutil.which("helm")
    if found is None:
        return ""
    command = [found, "version", "--template", "{{.Version}}"]
    version = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return found if version.removeprefix("v").partition(".")[0] >= "4" else ""


@pytest.fixture
def helm(tmp_path: Path) -> Helm:
    """Runs Helm with values; what it prints. Raises HelmError with what it complains of."""
    if not program():
        pytest.skip("there is no Helm 4 on the PATH (.ci/run gets one)")
    homes = {f"HELM_{kind}_HOME": str(tmp_path / kind) for kind in ("CACHE", "CONFIG", "DATA")}

    def run(*arguments: str | Path, values: Object | None = None, kubeconfig: Path = tmp_path / "none") -> str:
        command = [program(), *map(str, arguments)]
        if values is not None:
            (tmp_path / "values.yaml").write_text(yaml.safe_dump(values))
            command += ["--values", str(tmp_path / "values.yaml")]
        environment = {**os.environ, **homes, "KUBECONFIG": str(kubeconfig)}
        found = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if found.returncode:
            raise HelmError(found.stdout + found.stderr)
        return found.stdout

    return run


class HelmError(Exception):
    """Helm ended with another code than 0."""


def render(helm: Helm, values: Object, name: str = "headgate", namespace: str = "headgate") -> tuple[list[Object], str]:
    """The objects and the notes."""
    printed = helm("install", name, CHART, "-n", namespace, "--dry-run=client", "-o", "json", values=values)
    release = json.loads(printed)
    return [found for found in yaml.safe_load_all(release["manifest"]) if found], release["info"]["notes"]


def by_name(objects: list[Object]) -> dict[tuple[str, str], Object]:
    found = {}
    for each in objects:
        each["metadata"].get("labels", {}).pop("app.kubernetes.io/managed-by", None)
        found[each["kind"], each["metadata"]["name"]] = each
    assert len(found) == len(objects), "two of one name"
    return found


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_is_what_the_manifests_are(variant: str, helm: Helm) -> None:
    objects, notes = render(helm, VALUES[variant])
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


def test_all_that_is_optional(helm: Helm) -> None:
    objects, notes = render(helm, ALL)
    made = by_name(objects)
    given = yaml.safe_load(made["ConfigMap", "headgate-settings"]["data"]["headgate.yaml"])
    assert given["host"] == {"kind": "kserve", "rate": 20}, "a key more, not another table"
    assert (given["apply"], given["interval"], given["sources"]) == (True, "5s", [SOURCE])
    names = ("budgets", "observe", "resize", "nodes", "template", "replicas", "metrics-api")
    scaler = ("node-scaler", "node-scaler-karpenter", "node-scaler-capacity-cluster")
    assert grants(made["ClusterRole", "headgate-headgate"]["rules"]) == grants(rules(*names, *scaler))
    assert grants(made["Role", "headgate-home"]["rules"]) == grants(rules("home", "node-scaler-capacity"))
    assert made["PrometheusRule", "headgate"]["spec"] == yaml.safe_load(ALERTS.read_text())
    assert json.loads(made["ConfigMap", "headgate-dashboard"]["data"]["headgate.json"]) == json.loads(
        DASHBOARD.read_text()
    )
    monitor, service = made["ServiceMonitor", "headgate"], made["Service", "headgate"]
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    (endpoint,) = monitor["spec"]["endpoints"]
    (port,) = (each for each in service["spec"]["ports"] if each["name"] == endpoint["port"])
    pod = made["Deployment", "headgate"]["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert [each["containerPort"] for each in container["ports"] if each["name"] == port["targetPort"]] == [9464]
    assert given["listen"].endswith(":9464")
    assert container["env"] == ALL["env"]
    assert "puts decisions in force" in notes
    assert "No source" not in notes


def test_a_release_of_another_name_refers_to_its_own_objects_only(helm: Helm) -> None:
    """Two in one cluster do not share an account, a lease or a role."""
    made = by_name(render(helm, VALUES["namespaced"], "two", "tools")[0])
    assert {name for _, name in made} == {"two", "two-settings", "two-home", "tools-two"}
    assert {each["metadata"].get("namespace") for each in made.values()} == {"tools", "models"}
    pod = made["Deployment", "two"]["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == "two"
    assert pod["volumes"][0]["configMap"]["name"] == "two-settings"
    given = yaml.safe_load(made["ConfigMap", "two-settings"]["data"]["headgate.yaml"])
    assert given["home"]["lease"] == {"name": "two"}
    for kind, name in made:
        if kind.endswith("Binding"):
            assert made[kind, name]["roleRef"]["name"] == name
            assert made[kind, name]["subjects"] == [{"kind": "ServiceAccount", "name": "two", "namespace": "tools"}]


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
def test_values_that_make_no_sense_are_refused(values: Object, says: str, helm: Helm) -> None:
    with pytest.raises(HelmError, match=says):
        render(helm, values)


@pytest.mark.parametrize("values", [*VALUES.values(), ALL], ids=[*VALUES, "all"])
def test_it_lints(values: Object, helm: Helm) -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", CHART, values=values)


def test_it_packs_with_what_its_links_point_to(helm: Helm, tmp_path: Path) -> None:
    helm("package", CHART, "--destination", tmp_path)
    (packed,) = tmp_path.glob("*.tgz")
    with tarfile.open(packed) as archive:
        definition = archive.extractfile("headgate/crds/headgate.dev_cpubudgets.yaml")
        assert definition is not None
        assert definition.read() == (DEPLOY / "crds" / "headgate.dev_cpubudgets.yaml").read_bytes()


def test_every_value_is_explained_and_checked() -> None:
    """A comment above or beside each key, or above its group; the schema knows the same keys."""
    text = (CHART / "values.yaml").read_text()
    schema = json.loads((CHART / "values.schema.json").read_text())["properties"]
    values = yaml.safe_load(text)
    assert values.keys() == schema.keys() - {"global"}
    for key, value in values.items():
        if isinstance(value, dict) and (known := schema[key].get("properties")):
            assert value.keys() == known.keys(), key
    groups = text.split("\n\n")
    assert not [group for group in groups if "#" not in group]


def test_it_installs_upgrades_and_goes_again(real: Cluster, helm: Helm, tmp_path: Path) -> None:
    """On a real server, by the commands of the documentation: what is left is the definition, and no object."""
    monitoring = ("monitoring.coreos.com", "v1")
    definitions = [plain(*monitoring, "ServiceMonitor", "servicemonitors")]
    definitions += [plain(*monitoring, "PrometheusRule", "prometheusrules")]
    real.plane.install(definitions)
    for found in definitions:
        real._served(found)
    real.space("headgate")
    config = tmp_path / "kubeconfig"
    config.write_text(json.dumps(real.kubeconfig()))
    kinds = ("deployments", "services", "serviceaccounts", "configmaps", "secrets", "roles", "rolebindings")
    kinds += ("clusterroles", "clusterrolebindings", "monitoring.coreos.com/v1/servicemonitors")

    def there() -> set[tuple[str, str]]:
        return {(kind, each["metadata"]["name"]) for kind in kinds for each in real.client.list(kind)}

    before = there()
    names = ("headgate", CHART, "-n", "headgate")
    helm("install", *names, values=VALUES["cluster"], kubeconfig=config)
    assert ("clusterroles", "headgate-headgate") in there()
    helm("upgrade", *names, values=ALL, kubeconfig=config)
    given = real.client.get("configmaps", "headgate-settings", "headgate")["data"]["headgate.yaml"]
    assert yaml.safe_load(given)["apply"] is True
    assert ("monitoring.coreos.com/v1/servicemonitors", "headgate") in there()
    # As step 6 of docs/tutorial-kserve.md has it, the other way round.
    helm("upgrade", *names, "--reuse-values", "--set", "apply=false", kubeconfig=config)
    given = yaml.safe_load(real.client.get("configmaps", "headgate-settings", "headgate")["data"]["headgate.yaml"])
    assert (given["apply"], given["interval"]) == (False, "5s")
    helm("upgrade", *names, values=VALUES["namespaced"], kubeconfig=config)
    assert ("clusterroles", "headgate-headgate") not in there()
    assert real.client.find("rolebindings", "headgate-headgate", "models") is not None
    helm("uninstall", "headgate", "-n", "headgate", kubeconfig=config)
    assert there() == before
    assert real.client.find("customresourcedefinitions", "cpubudgets.headgate.dev") is not None


def test_the_documentation_names_values_that_there_are() -> None:
    """`--set`, `--set-json` and what is quoted as a value in the pages on installing."""
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    pages = [ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in ("controller", "tutorial-kserve", "nodes"))]
    for page in pages:
        for command in _helm_commands(page.read_text()):
            for key in _set_by(command):
                place: Any = values
                for part in key.split("."):
                    assert part in place, f"{page.name}: {key}"
                    place = place[part]


def _helm_commands(text: str) -> list[str]:
    joined = text.replace("\\\n", " ").splitlines()
    return [line for line in joined if "deploy/helm/headgate" in line]


def _set_by(command: str) -> list[str]:
    words = command.replace("'", " ").split()
    return [after.partition("=")[0] for word, after in pairwise(words) if word.startswith("--set")]
