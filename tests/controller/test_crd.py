"""The definition of CPUBudget says what the models say, as the API server wants it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from headgate.controller.run.status import BudgetStatus
from headgate.core.budgets import BudgetSpec

from .test_plugins import invoke

FILE = Path(__file__).resolve().parents[2] / "deploy" / "crds" / "headgate.dev_cpubudgets.yaml"


def test_the_file_is_current() -> None:
    code, text, _ = invoke("schema", "--format", "crd")
    assert code == 0
    assert FILE.read_text() == text, f"headgate schema --format crd > {FILE}"


def schemas(node: Any) -> Iterator[dict[str, Any]]:
    """Every schema inside a schema."""
    yield node
    for inner in (*node.get("properties", {}).values(), *filter(None, [node.get("items")])):
        yield from schemas(inner)
    if isinstance(node.get("additionalProperties"), dict):
        yield from schemas(node["additionalProperties"])


def version() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(FILE.read_text())["spec"]["versions"][0]
    return found


def test_it_is_structural() -> None:
    """What apiextensions/v1 demands: one type everywhere, no references, no unions but int-or-string."""
    for node in schemas(version()["schema"]["openAPIV3Schema"]):
        assert node.keys().isdisjoint({"$ref", "$defs", "allOf", "oneOf", "not", "title"}), node
        if node.get("x-kubernetes-int-or-string"):
            assert "type" not in node
            assert node["anyOf"] == [{"type": "integer"}, {"type": "string"}]
        else:
            assert isinstance(node["type"], str)
            assert "anyOf" not in node
        for bound in ("exclusiveMinimum", "exclusiveMaximum"):
            assert node.get(bound) in (None, True), "booleans beside minimum and maximum"
        if "default" in node and "properties" in node:
            assert node["default"] == {}


def test_every_field_of_the_models_is_there() -> None:
    properties = version()["schema"]["openAPIV3Schema"]["properties"]
    assert properties["spec"]["properties"].keys() == BudgetSpec.model_fields.keys()
    assert properties["status"]["properties"].keys() == BudgetStatus.model_fields.keys()
    assert not any("default" in node for node in schemas(properties["status"]))


def test_the_defaults_are_the_models_own() -> None:
    spec = {"total": "4", "pipelines": [{"selector": {}}]}
    properties = version()["schema"]["openAPIV3Schema"]["properties"]["spec"]
    assert BudgetSpec.model_validate(filled(spec, properties)) == BudgetSpec.model_validate(spec)


def filled(value: Any, node: dict[str, Any]) -> Any:
    """With defaults, as the server fills them in."""
    if isinstance(value, dict) and "properties" in node:
        found = {key: inner["default"] for key, inner in node["properties"].items() if "default" in inner} | value
        return {key: filled(inner, node["properties"][key]) for key, inner in found.items()}
    return [filled(item, node["items"]) for item in value] if isinstance(value, list) else value


def test_lists_that_rules_go_through_are_bounded() -> None:
    """The server adds up the worst case of a rule before it takes a definition."""
    spec = version()["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    for name in ("pipelines", "groups"):
        assert spec[name]["maxItems"] <= 256
    for name in ("name", "parent"):
        assert spec["groups"]["items"]["properties"][name]["maxLength"] <= 253
    assert "maxItems" not in version()["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]["pipelines"]
