"""Others who set CPUs or replicas of the same workloads: HPA, KEDA, VPA, and GitOps tools."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headgate.adapters.kubernetes.api import Api
from headgate.adapters.kubernetes.cluster import optional

Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Autoscaler:
    """One that follows a workload."""

    kind: str
    namespace: str
    name: str
    target: str
    """kind/name of the workload."""
    utilisation: bool = False
    """Whether it follows CPU utilisation, which is relative to the requests that headgate changes."""
    sizes: bool = False
    """Whether it sets requests itself."""


def read_autoscalers(api: Api, namespaces: Sequence[str]) -> tuple[Autoscaler, ...]:
    """All that may be in the way, of the kinds that are installed. Raises PermissionError and ConnectionError."""
    kinds = (
        ("autoscaling/v2", "horizontalpodautoscalers", _horizontal),
        ("keda.sh/v1alpha1", "scaledobjects", _keda),
        ("autoscaling.k8s.io/v1", "verticalpodautoscalers", _vertical),
    )
    return tuple(
        scaler
        for api_, resource, read in kinds
        for item in optional(api, api_, resource, namespaces)
        for scaler in read(item)
    )


def _horizontal(item: Object) -> Iterator[Autoscaler]:
    spec = item["spec"]
    if (spec.get("minReplicas") or 1) >= spec["maxReplicas"]:
        return  # it can change nothing
    yield _of(
        "HorizontalPodAutoscaler",
        item,
        spec["scaleTargetRef"],
        utilisation=any(map(_relative, spec.get("metrics") or ())),
    )


def _relative(metric: Object) -> bool:
    found = metric.get("resource") or metric.get("containerResource") or {}
    return found.get("name") == "cpu" and (found.get("target") or {}).get("type") == "Utilization"


def _keda(item: Object) -> Iterator[Autoscaler]:
    spec = item["spec"]
    paused = "autoscaling.keda.sh/paused" in (item["metadata"].get("annotations") or {})
    # KEDA's own default of 100 replicas where none is given.
    if paused or (spec.get("minReplicaCount") or 0) >= (spec.get("maxReplicaCount") or 100):
        return
    relative = any(
        trigger.get("type") == "cpu"
        and (trigger.get("metricType") or (trigger.get("metadata") or {}).get("type") or "Utilization") == "Utilization"
        for trigger in spec.get("triggers") or ()
    )
    yield _of("ScaledObject", item, spec["scaleTargetRef"], utilisation=relative)


def _vertical(item: Object) -> Iterator[Autoscaler]:
    spec = item["spec"]
    mode = (spec.get("updatePolicy") or {}).get("updateMode") or "Auto"
    reference = spec.get("targetRef")
    if reference and mode not in ("Off", "Initial"):
        yield _of(f"VerticalPodAutoscaler ({mode})", item, reference, sizes=True)


def _of(kind: str, item: Object, reference: Object, *, utilisation: bool = False, sizes: bool = False) -> Autoscaler:
    meta = item["metadata"]
    target = f"{reference.get('kind') or 'Deployment'}/{reference['name']}"
    return Autoscaler(kind, meta["namespace"], meta["name"], target, utilisation, sizes)


_TOOLS = (
    ("argocd.argoproj.io/tracking-id", "Argo CD"),
    ("argocd.argoproj.io/instance", "Argo CD"),
    ("kustomize.toolkit.fluxcd.io/name", "Flux"),
    ("helm.toolkit.fluxcd.io/name", "Flux"),
)
_MANAGERS: Iterable[tuple[str, str]] = (
    ("argocd", "Argo CD"),
    ("kustomize-controller", "Flux"),
    ("helm-controller", "Flux"),
)


def gitops_owner(meta: Object) -> str:
    """The tool that keeps an object as it stands in a repository; empty: none that is known."""
    marks = {**(meta.get("labels") or {}), **(meta.get("annotations") or {})}
    for mark, tool in _TOOLS:
        if mark in marks:
            return tool
    managers = [str(entry.get("manager", "")) for entry in meta.get("managedFields") or ()]
    return next((tool for prefix, tool in _MANAGERS if any(m.startswith(prefix) for m in managers)), "")
