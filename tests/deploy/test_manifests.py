"""The plain manifests and the chart's rules give exactly the permissions that the documentation lists."""

from __future__ import annotations

import os
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from tests.cluster.harness import Cluster

from .files import (
    CHART,
    DEPLOY,
    MANIFESTS,
    ROOT,
    VARIANTS,
    Object,
    documented,
    grants,
    manifests,
    objects,
    rules,
    settings,
)

NODES = {
    "node-scaler": "always",
    "node-scaler-cluster-api": "cluster-api",
    "node-scaler-karpenter": "karpenter",
    "node-scaler-capacity": "capacity",
    "node-scaler-capacity-cluster": "capacity-cluster",
}
"""The chart's rules, and how what their rows in the documentation are for begins."""
OPTIONAL = {"template": "`template.write`", "replicas": "`replicas.manage`"}


def role(variant: str, name: str) -> list[Object]:
    (found,) = (o for o in manifests(variant) if o["kind"].endswith("Role") and o["metadata"]["name"] == name)
    return list(found["rules"])


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_roles_are_what_the_documentation_lists_and_no_more(variant: str) -> None:
    host = {grant for grant, purpose in documented("kserve.md").items() if purpose.startswith("always")}
    own = documented("controller.md")
    beyond = {grant for grant, purpose in own.items() if not purpose.startswith("its own namespace")}
    nodes = {("", "nodes", "list")}
    assert nodes <= host
    assert grants(role(variant, "headgate-headgate")) == (host if variant == "cluster" else host - nodes) | beyond
    assert grants(role(variant, "headgate-home")) == own.keys() - beyond


@pytest.mark.parametrize("name", OPTIONAL)
def test_what_is_off_by_default_adds_what_it_needs_and_no_more(name: str) -> None:
    assert grants(rules(name)) == {g for g, use in documented("kserve.md").items() if OPTIONAL[name] in use}


def test_manifests_and_chart_give_the_same() -> None:
    assert role("cluster", "headgate-headgate") == rules("budgets", "observe", "resize", "nodes")
    assert role("namespaced", "headgate-headgate") == rules("budgets", "observe", "resize")
    assert role("cluster", "headgate-home") == role("namespaced", "headgate-home") == rules("home")


@pytest.mark.parametrize("name", NODES)
def test_the_node_scaler_gets_what_its_documentation_lists_and_no_more(name: str) -> None:
    start = NODES[name]
    wanted = {
        grant for grant, use in documented("nodes.md").items() if use.partition(":")[0].partition(";")[0] == start
    }
    assert wanted
    assert grants(rules(name)) == wanted


def test_the_node_scalers_manifests_and_the_chart_give_the_same() -> None:
    for file, parts in {
        "rbac": ["node-scaler"],
        "cluster-api": ["node-scaler-cluster-api"],
        "karpenter": ["node-scaler-karpenter"],
        "capacity": ["node-scaler-capacity", "node-scaler-capacity-cluster"],
    }.items():
        found = objects(MANIFESTS / "nodes" / f"{file}.yaml")
        assert [o["rules"] for o in found if o["kind"].endswith("Role")] == [rules(part) for part in parts]
        for role, binding in zip(found[::2], found[1::2], strict=True):
            assert binding["roleRef"]["kind"] == role["kind"] == binding["kind"].removesuffix("Binding")
            assert binding["roleRef"]["name"] == binding["metadata"]["name"] == role["metadata"]["name"]
            assert [(s["name"], s["namespace"]) for s in binding["subjects"]] == [("headgate", "headgate")]


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_role_is_bound_to_the_account_of_the_deployment(variant: str) -> None:
    found = manifests(variant)
    (account,) = (o["metadata"] for o in found if o["kind"] == "ServiceAccount")
    (deployment,) = (o for o in found if o["kind"] == "Deployment")
    assert deployment["spec"]["template"]["spec"]["serviceAccountName"] == account["name"]
    bound = set()
    for binding in (o for o in found if o["kind"].endswith("Binding")):
        (subject,) = binding["subjects"]
        assert (subject["name"], subject["namespace"]) == (account["name"], account["namespace"])
        bound.add((binding["roleRef"]["kind"], binding["roleRef"]["name"], binding["metadata"].get("namespace")))
    made = {(o["kind"], o["metadata"]["name"], o["metadata"].get("namespace")) for o in found}
    assert bound == {each for each in made if each[0].endswith("Role")}


def _kubectl() -> str:
    found = shutil.which("kubectl") or shutil.which("kubectl", path=os.environ.get("KUBEBUILDER_ASSETS"))
    if found is None:
        pytest.skip("there is no kubectl on the PATH (.ci/run gets one)")
    return found


@pytest.mark.parametrize("variant", VARIANTS)
def test_kustomize_puts_them_together(variant: str) -> None:
    """The base, the variant's roles, the definition, and the settings that the Deployment mounts."""
    command = [_kubectl(), "kustomize", str(MANIFESTS / variant)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    made = {(o["kind"], o["metadata"]["name"]): o for o in yaml.safe_load_all(found.stdout)}
    (config,) = (name for kind, name in made if kind == "ConfigMap")
    assert yaml.safe_load(made.pop(("ConfigMap", config))["data"]["headgate.yaml"]) == settings(variant)
    definition = made.pop(("CustomResourceDefinition", "cpubudgets.headgate.dev"))
    assert [definition] == objects(DEPLOY / "crds" / "headgate.dev_cpubudgets.yaml")
    volume = made["Deployment", "headgate"]["spec"]["template"]["spec"]["volumes"][0]
    assert volume["configMap"] == {"name": config}
    volume["configMap"]["name"] = "headgate-settings"
    assert made == {(o["kind"], o["metadata"]["name"]): o for o in manifests(variant)}


@pytest.mark.parametrize("variant", VARIANTS)
def test_kubectl_applies_them(variant: str, real: Cluster, tmp_path: Path) -> None:
    """As the README says, on a real server: unknown fields and what Pod Security forbids are refused."""
    config = tmp_path / "kubeconfig"
    config.write_text(yaml.safe_dump(real.kubeconfig()))
    command = [_kubectl(), "--kubeconfig", str(config), "apply", "--server-side", "--validate=strict"]
    command += ["-k", str(MANIFESTS / variant)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    real.client.delete("services", "headgate", "headgate")  # the one kind that the fixture leaves
    assert found.returncode == 0, found.stderr
    assert "arning" not in found.stderr
    (given,) = (o for o in real.client.list("deployments", "headgate") if o["metadata"]["name"] == "headgate")
    template = given["spec"]["template"]["spec"]
    (settings,) = (v["configMap"]["name"] for v in template["volumes"] if v["name"] == "settings")
    assert real.client.get("configmaps", settings, "headgate")["data"].keys() == {"headgate.yaml"}
    # What the Deployment makes, as its controller would: the namespace takes it.
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one", "namespace": "headgate"}, "spec": template}
    real.client.create("pods", pod)


def test_the_chart_is_made_of_the_same_files() -> None:
    """Links, which `helm package` follows; a clone without them (core.symlinks=false) would package their targets."""
    for inside, outside in {
        "crds/headgate.dev_cpubudgets.yaml": "crds/headgate.dev_cpubudgets.yaml",
        "files/headgate.json": "grafana/headgate.json",
        "files/alerts.yaml": "prometheus/alerts.yaml",
    }.items():
        assert (CHART / inside).resolve() == (DEPLOY / outside).resolve()


@pytest.mark.parametrize(
    ("file", "needs"), [("Dockerfile", {"kubernetes", "prometheus"}), ("kserve/Dockerfile", {"kserve"})]
)
def test_the_image_has_what_it_is_for(file: str, needs: set[str]) -> None:
    line = next(x for x in (DEPLOY / file).read_text().splitlines() if x.startswith("RUN pip install"))
    extras = set(line.split('"/src[')[1].split("]")[0].split(","))
    assert needs <= extras <= project()["optional-dependencies"].keys()


def test_the_builder_of_images_gets_what_the_package_is_made_of_and_no_more() -> None:
    """What a wheel includes, what pyproject.toml names, and the versions that the images install."""
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    given = {line.removeprefix("!") for line in lines if line.startswith("!")}
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    packed = {name.partition("/")[0] for name in build["only-include"]}
    assert given == packed | {"pyproject.toml", "constraints.txt", project()["readme"], *project()["license-files"]}


def test_there_is_one_version() -> None:
    labels = [o["metadata"]["labels"] for o in manifests("cluster") if o["kind"] != "Namespace"]
    chart = objects(CHART / "Chart.yaml")[0]
    said = {each["app.kubernetes.io/version"] for each in labels} | {chart["version"], chart["appVersion"]}
    assert said == {project()["version"]}


def project() -> Object:
    found: Object = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return found
