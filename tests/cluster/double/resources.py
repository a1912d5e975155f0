"""The types that the server knows: built-in ones by table, custom ones from their definitions; discovery of both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .schema import Schema

Object = dict[str, Any]


@dataclass(frozen=True)
class Scale:
    """Where a type keeps what its scale subresource shows."""

    spec: str = "spec.replicas"
    status: str = "status.replicas"
    selector: str = "spec.selector"


@dataclass(frozen=True)
class Resource:
    """One version of one type."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    status: bool = False
    scale: Scale | None = None
    others: tuple[str, ...] = ()
    counted: bool = False
    """Whether metadata.generation counts changes of the spec."""
    schema: Schema | None = field(default=None, compare=False)
    """Of custom resources."""
    custom: bool = False

    @property
    def key(self) -> tuple[str, str]:
        return self.group, self.plural

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def subresources(self) -> tuple[str, ...]:
        return (*(("status",) if self.status else ()), *(("scale",) if self.scale else ()), *self.others)


def _of(api: str, *rows: tuple[str, str, str]) -> Iterable[Resource]:
    group, _, version = api.rpartition("/")
    for plural, kind, flags in rows:
        words = flags.split()
        yield Resource(
            group,
            version,
            plural,
            kind,
            namespaced="cluster" not in words,
            status="status" in words,
            scale=Scale() if "scale" in words else None,
            others=tuple(word for word in words if word in ("resize", "eviction", "binding", "token")),
            counted="counted" in words,
        )


BUILT_IN = (
    *_of(
        "v1",
        ("namespaces", "Namespace", "cluster status"),
        ("nodes", "Node", "cluster status"),
        ("pods", "Pod", "status resize eviction binding counted"),
        ("services", "Service", "status"),
        ("configmaps", "ConfigMap", ""),
        ("podtemplates", "PodTemplate", ""),
        ("secrets", "Secret", ""),
        ("events", "Event", ""),
        ("serviceaccounts", "ServiceAccount", "token"),
        ("resourcequotas", "ResourceQuota", "status"),
        ("limitranges", "LimitRange", ""),
    ),
    *_of(
        "apps/v1",
        ("deployments", "Deployment", "status scale counted"),
        ("replicasets", "ReplicaSet", "status scale counted"),
        ("statefulsets", "StatefulSet", "status scale counted"),
    ),
    *_of("coordination.k8s.io/v1", ("leases", "Lease", "")),
    *_of("events.k8s.io/v1", ("events", "Event", "")),
    *_of("autoscaling/v2", ("horizontalpodautoscalers", "HorizontalPodAutoscaler", "status")),
    *_of("policy/v1", ("poddisruptionbudgets", "PodDisruptionBudget", "status counted")),
    *_of("scheduling.k8s.io/v1", ("priorityclasses", "PriorityClass", "cluster")),
    *_of(
        "rbac.authorization.k8s.io/v1",
        ("roles", "Role", ""),
        ("rolebindings", "RoleBinding", ""),
        ("clusterroles", "ClusterRole", "cluster"),
        ("clusterrolebindings", "ClusterRoleBinding", "cluster"),
    ),
    *_of(
        "apiextensions.k8s.io/v1", ("customresourcedefinitions", "CustomResourceDefinition", "cluster status counted")
    ),
    *_of("authorization.k8s.io/v1", ("selfsubjectaccessreviews", "SelfSubjectAccessReview", "cluster")),
)

METRICS = tuple(_of("metrics.k8s.io/v1beta1", ("pods", "PodMetrics", ""), ("nodes", "NodeMetrics", "cluster")))
"""Served where something measures; tests write what was measured as they write other objects."""

_VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]


class Registry:
    """Types by their place in a path."""

    def __init__(self, resources: Iterable[Resource] = BUILT_IN) -> None:
        self._known = {(r.group, r.version, r.plural): r for r in resources}

    def add(self, *resources: Resource) -> None:
        self._known |= {(r.group, r.version, r.plural): r for r in resources}

    def drop(self, group: str, plural: str) -> None:
        self._known = {key: r for key, r in self._known.items() if r.key != (group, plural)}

    def find(self, group: str, version: str, plural: str) -> Resource | None:
        return self._known.get((group, version, plural))

    def of_kind(self, api_version: str, kind: str) -> Resource | None:
        return next((r for r in self._known.values() if (r.api_version, r.kind) == (api_version, kind)), None)

    def serves(self, group: str, version: str) -> bool:
        return any(r.group == group and r.version == version for r in self._known.values())

    def define(self, definition: Mapping[str, Any]) -> None:
        """Serve the versions of a CustomResourceDefinition."""
        spec = definition["spec"]
        names = spec["names"]
        self.drop(spec["group"], names["plural"])
        for version in spec["versions"]:
            if version.get("served", True):
                sub = version.get("subresources") or {}
                scale = sub.get("scale")
                self.add(
                    Resource(
                        spec["group"],
                        version["name"],
                        names["plural"],
                        names["kind"],
                        namespaced=spec["scope"] == "Namespaced",
                        status="status" in sub,
                        scale=_paths(scale) if scale else None,
                        counted=True,
                        schema=Schema((version.get("schema") or {}).get("openAPIV3Schema") or {}),
                        custom=True,
                    )
                )

    def groups(self) -> Object:
        """/apis"""
        found: dict[str, list[str]] = {}
        for resource in self._known.values():
            if resource.group and resource.version not in found.setdefault(resource.group, []):
                found[resource.group].append(resource.version)
        groups = []
        for name, versions in found.items():
            listed = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
            groups.append({"name": name, "versions": listed, "preferredVersion": listed[0]})
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}

    def of_version(self, group: str, version: str) -> Object:
        """/api/v1 or /apis/GROUP/VERSION"""
        rows: list[Object] = []
        for r in self._known.values():
            if (r.group, r.version) != (group, version):
                continue
            rows.append(
                {
                    "name": r.plural,
                    "singularName": r.kind.lower(),
                    "namespaced": r.namespaced,
                    "kind": r.kind,
                    "verbs": _VERBS,
                }
            )
            rows += [_sub_row(r, sub) for sub in r.subresources]
        name = f"{group}/{version}" if group else version
        return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": rows}


def _sub_row(resource: Resource, sub: str) -> Object:
    row: Object = {"name": f"{resource.plural}/{sub}", "singularName": "", "namespaced": resource.namespaced}
    if sub == "scale":
        return row | {"group": "autoscaling", "version": "v1", "kind": "Scale", "verbs": ["get", "patch", "update"]}
    if sub == "eviction":
        return row | {"group": "policy", "version": "v1", "kind": "Eviction", "verbs": ["create"]}
    if sub == "binding":
        return row | {"kind": "Binding", "verbs": ["create"]}
    if sub == "token":
        return row | {"group": "authentication.k8s.io", "version": "v1", "kind": "TokenRequest", "verbs": ["create"]}
    return row | {"kind": resource.kind, "verbs": ["get", "patch", "update"]}


def _paths(scale: Mapping[str, str]) -> Scale:
    return Scale(
        scale["specReplicasPath"].lstrip("."),
        scale["statusReplicasPath"].lstrip("."),
        scale.get("labelSelectorPath", "").lstrip("."),
    )
