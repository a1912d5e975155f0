"""The definition of the custom resource CPUBudget, written from the models that check budgets and report on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from headgate.controller.run.status import BudgetStatus
from headgate.core.budgets import BudgetSpec
from headgate.core.units import format_cpu, format_duration

GROUP, VERSION, KIND, PLURAL = "headgate.dev", "v1alpha1", "CPUBudget", "cpubudgets"
HEAD = "# Written by `headgate schema --format crd` from the models that check budgets; do not edit by hand.\n"

QUANTITY = r"^([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+|[numkMGTPE])?$"
DURATION = r"^([0-9]+(\.[0-9]+)?(us|ms|s|m|h|d)?)+$"
MOST = {"pipelines": 256, "groups": 64, "services": 256, "graphs": 256, "namespaces": 64, "matchExpressions": 32}
"""Entries of each list: the server wants to know what checking a rule may cost, and adds up the worst case."""
LONGEST, AMOUNT = 253, 32
"""Characters of a name, and of CPUs or a duration."""

RULES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "BudgetSpec": (
        ("has(self.total) || has(self.nodes)", "give the CPUs to share (total), or nodes to share what these have"),
        (
            "!has(self.groups) || self.groups.all(g, !has(g.parent) || self.groups.exists(o, o.name == g.parent))",
            "the parent of a group must be one of groups",
        ),
        (
            "self.pipelines.all(p, !has(p.group) || (has(self.groups) && self.groups.exists(g, g.name == p.group)))",
            "the group of a pipeline must be one of groups",
        ),
    ),
    "PipelineRule": (
        (
            "has(self.selector) || (has(self.services) && size(self.services) > 0)"
            " || (has(self.graphs) && size(self.graphs) > 0)",
            "name services or graphs, or give a selector ({} selects every service)",
        ),
        (
            "!has(self.floor) || !has(self.ceiling)"
            " || quantity(string(self.floor)).compareTo(quantity(string(self.ceiling))) <= 0",
            "the floor must not be above the ceiling",
        ),
    ),
}
COLUMNS = (
    ("Mode", "string", ".status.mode", 0),
    ("Total", "string", ".status.total", 0),
    ("Granted", "string", ".status.granted", 0),
    ("Unmet", "string", ".status.unmet", 0),
    ("Pipelines", "integer", ".status.count", 0),
    ("Ready", "string", '.status.conditions[?(@.type=="Ready")].status', 0),
    ("Applied", "string", '.status.conditions[?(@.type=="Applied")].status', 0),
    ("Reason", "string", '.status.conditions[?(@.type=="Applied")].reason', 0),
    ("Conflict", "string", '.status.conditions[?(@.type=="Conflict")].status', 1),
    ("Age", "date", ".metadata.creationTimestamp", 0),
)


def definition() -> dict[str, Any]:
    """The CustomResourceDefinition as plain values."""
    text = {"type": "string"}
    schema = {
        "type": "object",
        "description": "A CPU budget: what is shared, among which inference services, by which rule.",
        "required": ["spec"],
        "properties": {
            "apiVersion": text,
            "kind": text,
            "metadata": {"type": "object"},
            "spec": structural(BudgetSpec.model_json_schema()),
            "status": _status(),
        },
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}", "labels": {"app.kubernetes.io/name": "headgate"}},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": "cpubudget",
                "shortNames": ["cpub"],
                "categories": ["headgate"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [
                        {"name": name, "type": kind, "jsonPath": where, **({"priority": level} if level else {})}
                        for name, kind, where, level in COLUMNS
                    ],
                    "schema": {"openAPIV3Schema": schema},
                }
            ],
        },
    }


def text() -> str:
    """The file under deploy/crds."""
    dumped: str = yaml.dump(definition(), Dumper=_Plain, sort_keys=False, width=110)
    return HEAD + dumped


class _Plain(yaml.SafeDumper):
    """Writes values that occur twice twice: anchors are hard to read in a definition."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        """Always."""
        return True


def structural(schema: Mapping[str, Any], limits: Mapping[str, int] = MOST) -> dict[str, Any]:
    """A JSON schema as the API server takes it: no references, one type each; `limits` to lists by their names."""
    return _Writer(schema.get("$defs", {}), limits).of(schema, str(schema.get("title", "")))


def _status() -> dict[str, Any]:
    found = structural(BudgetStatus.model_json_schema(), {})
    conditions = found["properties"]["conditions"]
    conditions["items"]["properties"] |= {
        "lastTransitionTime": {"type": "string", "format": "date-time"},
        "observedGeneration": {"type": "integer", "format": "int64"},
    }
    conditions |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
    for name in ("pipelines", "graphs", "refused"):
        found["properties"][name] |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
    clean: dict[str, Any] = _without_defaults(found)
    return clean


def _without_defaults(schema: Any) -> Any:
    """A status is written by headgate alone; nobody fills in for it."""
    if isinstance(schema, dict):
        return {
            key: {name: _without_defaults(inner) for name, inner in value.items()}
            if key == "properties"
            else _without_defaults(value)
            for key, value in schema.items()
            if key != "default"
        }
    return [_without_defaults(item) for item in schema] if isinstance(schema, list) else schema


class _Writer:
    """Writes one schema after another; `definitions` are what references name."""

    def __init__(self, definitions: Mapping[str, Any], limits: Mapping[str, int]) -> None:
        self._definitions = definitions
        self._limits = limits

    def of(self, schema: Mapping[str, Any], name: str = "", key: str = "") -> dict[str, Any]:
        """One schema; `name` is of its model, `key` of the field that it stands in."""
        if "$ref" in schema:
            name = str(schema["$ref"]).rsplit("/", 1)[-1]
            return self.of({**self._definitions[name], **_own(schema)}, name, key)
        if "anyOf" in schema:
            (one,) = [item for item in schema["anyOf"] if item.get("type") != "null"]
            # A value that may be left out needs no null: null is what the server drops.
            return self.of({**one, **_own(schema)}, name, key)
        if schema.get("format") in ("cpu", "seconds"):
            return self._amount(schema)
        kind = schema.get("type", "object")
        found: dict[str, Any] = {"type": kind}
        if text := schema.get("description"):
            found["description"] = " ".join(text.split())
        if "enum" in schema:
            found["enum"] = list(schema["enum"])
        if kind == "object":
            self._object(schema, name, found)
        elif kind == "array":
            found["items"] = self.of(schema["items"])
            found |= {"maxItems": self._limits[key]} if key in self._limits else {}
            found |= {"minItems": schema["minItems"]} if "minItems" in schema else {}
        elif kind == "string" and "enum" not in found:
            found |= {part: schema[part] for part in ("pattern", "minLength") if part in schema}
            found |= {"maxLength": LONGEST} if key in ("name", "group", "parent", "key", "host", "policy") else {}
        else:
            found |= _bounds(schema)
        return _with_default(found, schema.get("default"))

    def _object(self, schema: Mapping[str, Any], name: str, found: dict[str, Any]) -> None:
        properties = {key: self.of(value, key=key) for key, value in schema.get("properties", {}).items()}
        if properties:
            found["properties"] = properties
        if required := schema.get("required"):
            found["required"] = list(required)
        if isinstance(extra := schema.get("additionalProperties"), dict):
            found["additionalProperties"] = self.of(extra)
        if name in RULES:
            found["x-kubernetes-validations"] = [{"rule": rule, "message": why} for rule, why in RULES[name]]

    def _amount(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        """CPUs and durations: a number or a text. Defaults are written as people write them."""
        cpu = schema["format"] == "cpu"
        found: dict[str, Any] = {"description": " ".join(str(schema.get("description", "")).split())}
        found |= {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "pattern": QUANTITY if cpu else DURATION,
            "maxLength": AMOUNT,
            "x-kubernetes-int-or-string": True,
        }
        if (default := schema.get("default")) is not None:
            found["default"] = format_cpu(default) if cpu else format_duration(default)
        return found


def _own(schema: Mapping[str, Any]) -> dict[str, Any]:
    """What a reference or a choice says besides."""
    return {key: schema[key] for key in ("description", "default") if key in schema}


def _with_default(found: dict[str, Any], default: Any) -> dict[str, Any]:
    """Of scalars, and {} of objects, whose fields have defaults of their own; a list that is left out is empty."""
    if default is None or (isinstance(default, list) and found["type"] == "array"):
        return found
    return found | {"default": {} if isinstance(default, dict) else default}


def _bounds(schema: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part, word in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if part in schema:
            found[part] = schema[part]
        elif word in schema:
            found |= {part: schema[word], word: True}
    return found
