"""The files under deploy/, and the permissions that they give, one by one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]
Grant = tuple[str, str, str]
"""(API group, resource or resource/subresource, verb)."""

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "headgate"
MANIFESTS = DEPLOY / "manifests"
VARIANTS = ("cluster", "namespaced")


def objects(*paths: Path) -> list[Object]:
    return [found for path in paths for found in yaml.safe_load_all(path.read_text()) if found]


def manifests(variant: str) -> list[Object]:
    """All objects of a variant but the settings, which kustomize puts into a ConfigMap, and the definition."""
    base = [path for path in sorted((MANIFESTS / "base").glob("*.yaml")) if path.name != "kustomization.yaml"]
    return objects(*base, MANIFESTS / variant / "rbac.yaml")


def settings(variant: str) -> Object:
    found: Object = yaml.safe_load((MANIFESTS / variant / "headgate.yaml").read_text())
    return found


def rules(*names: str) -> list[Object]:
    """The chart's rules by the name of their file."""
    return [rule for name in names for rule in yaml.safe_load((CHART / "files" / "rbac" / f"{name}.yaml").read_text())]


def grants(given: Iterable[Object]) -> set[Grant]:
    return {
        (group, resource, verb)
        for rule in given
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def documented(page: str) -> dict[Grant, str]:
    """What the table "Permissions" of a page lists, and what it says that is for. Groups and resources of one row
    belong together one by one where there are as many of both."""
    text = (ROOT / "docs" / page).read_text().split("## Permissions\n")[1].split("\n## ")[0]
    found: dict[Grant, str] = {}
    groups: list[str] = []
    for line in text.splitlines():
        if not line.startswith("|") or line.startswith(("|---", "| group ")):
            continue
        group, resource, verbs, purpose = (cell.strip() for cell in line.strip("|").split("|"))
        groups = ["" if name == "core" else name for name in _names(group)] or groups
        resources = _names(resource)
        pairs = zip(groups, resources, strict=True) if len(groups) > 1 else ((groups[0], each) for each in resources)
        for where, what in pairs:
            found |= {(where, what, verb): purpose for verb in _names(verbs)}
    return found


def _names(cell: str) -> list[str]:
    return [name.strip(" `") for name in cell.split(",") if name.strip()]
