"""The manifests of deploy/kserve against KServe's published schemas, and their arguments against the command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from tests.cluster.crds import shared
from tests.cluster.double.schema import Schema

from headgate.adapters.kserve.runtime import server
from headgate.adapters.kserve.runtime.plugin import kserve

ROOT = Path(__file__).resolve().parents[3]
MANIFESTS = ROOT / "deploy" / "kserve"
CRDS = shared()


def manifest(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((MANIFESTS / f"{name}.yaml").read_text())
    return found


@pytest.mark.skipif(CRDS is None, reason="KServe's CRDs are not at ../shared/crds/kserve")
@pytest.mark.parametrize(
    ("name", "kinds"),
    [("servingruntime", ["clusterservingruntimes", "servingruntimes"]), ("inferenceservice", ["inferenceservices"])],
)
def test_kserve_takes_them(name: str, kinds: list[str]) -> None:
    assert CRDS is not None
    for kind in kinds:  # a ServingRuntime is the same in one namespace
        crd = yaml.load((CRDS / "kserve" / f"serving.kserve.io_{kind}.yaml").read_text(), yaml.CSafeLoader)
        found = manifest(name)
        versions = {version["name"]: version["schema"] for version in crd["spec"]["versions"]}
        schema = Schema(versions[found["apiVersion"].partition("/")[2]]["openAPIV3Schema"])
        assert schema.errors(found) == []
        assert schema.prepare(found) == [], "fields that KServe does not know"


def test_the_runtime_s_arguments_are_the_command_s() -> None:
    (container,) = manifest("servingruntime")["spec"]["containers"]
    assert container["command"] == ["python", "-m", "headgate.adapters.kserve"]
    arguments = [argument.replace("{{.Name}}", "recommenders") for argument in container["args"]]
    given = click.Context(kserve, **kserve.context_settings)
    rest = kserve.parse_args(given, arguments)
    assert (given.params["model_name"], given.params["model_dir"]) == ("recommenders", Path("/mnt/models"))
    server.parse(given.params["options"])
    assert rest == []


def test_the_service_names_the_runtime_and_its_format() -> None:
    runtime, model = manifest("servingruntime"), manifest("inferenceservice")["spec"]["predictor"]["model"]
    assert model["runtime"] == runtime["metadata"]["name"]
    assert model["modelFormat"]["name"] in [known["name"] for known in runtime["spec"]["supportedModelFormats"]]
    assert model["protocolVersion"] in runtime["spec"]["protocolVersions"]


def test_a_pod_of_it_may_be_resized_without_a_restart() -> None:
    (container,) = manifest("servingruntime")["spec"]["containers"]
    assert container["resources"]["requests"] == container["resources"]["limits"]
    assert container["resizePolicy"] == [{"resourceName": "cpu", "restartPolicy": "NotRequired"}]
