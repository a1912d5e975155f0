"""The reference of all settings, written from the models that check them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

HEAD = """# Settings

Written by `headgate schema --format markdown` from the models that check the files; do not edit by hand.

CPUs are Kubernetes quantities (`250m`, `2`, `1.5`), durations are written like `250ms`, `30s` or `1m30s` (a number is
seconds). Relative paths are relative to the settings file. An unknown key is an error that names its line.
"""


def markdown(schemas: Mapping[str, Mapping[str, Any]]) -> str:
    """A page with a table of keys for each JSON schema by title, and for each model inside it."""
    parts = [HEAD]
    shown: set[str] = set()
    for title, schema in schemas.items():
        parts.append(_section(f"## {title}", schema))
        for name, inner in schema.get("$defs", {}).items():
            # Two models may have one name; what they say is different then.
            if inner.get("type") == "object" and (told := _section(f"### {name}", inner)) not in shown:
                shown.add(told)
                parts.append(told)
    return "\n".join(parts)


def fields(schemas: Mapping[str, Mapping[str, Any]]) -> str:
    """Only the tables, for a page that says the rest in its own words."""
    return markdown(schemas).removeprefix(HEAD).strip() + "\n"


def _section(title: str, schema: Mapping[str, Any]) -> str:
    required = set(schema.get("required", ()))
    lines = [title, "", schema.get("description", "").strip(), ""]
    properties = schema.get("properties", {})
    if not properties:
        return "\n".join([*lines, "No keys of its own.", ""])
    lines += ["| key | type | default | |", "|---|---|---|---|"]
    for name, value in properties.items():
        default = "required" if name in required else _default(value.get("default"))
        text = " ".join(_description(value).split())
        lines.append(f"| `{name}` | {_type(value)} | {default} | {_escaped(text)} |")
    return "\n".join([*lines, ""])


def _description(value: Mapping[str, Any]) -> str:
    described = (value, *value.get("anyOf", ()))
    return next((str(item["description"]) for item in described if "description" in item), "")


def _type(value: Mapping[str, Any]) -> str:
    if "$ref" in value:
        return str(value["$ref"]).rsplit("/", 1)[-1]
    if "enum" in value:
        return " or ".join(f"`{choice}`" for choice in value["enum"])
    for key in ("anyOf", "allOf", "oneOf"):
        if key in value:
            return " or ".join(text for item in value[key] if (text := _type(item)) != "null")
    kind = value.get("type")
    if isinstance(kind, list):
        return " or ".join(kind)
    if kind == "array":
        return f"list of {_type(value.get('items', {}))}"
    if kind == "object" and isinstance(value.get("additionalProperties"), dict):
        return f"mapping to {_type(value['additionalProperties'])}"
    return str(kind or "any")


def _default(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        return ""
    if isinstance(value, list):
        return f"`{value}`" if value else ""
    return f"`{_escaped(str(value).lower() if isinstance(value, bool) else str(value))}`"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
