"""What headgate reads of an InferenceService: its components, its mode, who else manages it, and where traffic goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from headgate.adapters.kubernetes.pods import Pod

API = "serving.kserve.io/v1beta1"
RESOURCE = "inferenceservices"
SERVICE_LABEL = "serving.kserve.io/inferenceservice"
GRAPH_LABEL = "serving.kserve.io/inferencegraph"
REVISION_LABEL = "serving.knative.dev/revision"
COMPONENT_LABEL = "component"
COMPONENTS = ("predictor", "transformer", "explainer")
MAIN = ("kserve-container", "transformer-container", "worker-container")
"""The container that serves, by name; agents, proxies and sidecars are not resized."""

_PREFIX = "serving.kserve.io"


class Deployed(StrEnum):
    """Deployment mode."""

    STANDARD = "Standard"
    KNATIVE = "Knative"


_MODES = {
    "Serverless": Deployed.KNATIVE,
    "Knative": Deployed.KNATIVE,
    "RawDeployment": Deployed.STANDARD,
    "Standard": Deployed.STANDARD,
}


@dataclass(frozen=True, slots=True)
class Service:
    """An InferenceService."""

    namespace: str
    name: str
    labels: Mapping[str, str]
    components: tuple[str, ...]
    mode: Deployed | None
    """None: it has no pods and does not say."""
    stopped: bool
    frozen: bool
    """KServe does not reconcile it: changes of its spec have no effect."""
    autoscaler: str
    """Its autoscalerClass: hpa, keda, external, none; empty: KServe's default."""
    spec: Mapping[str, Any] = field(repr=False)
    traffic: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """By component, the share (0 to 1) of each revision (Knative) or Deployment (Standard); empty: all to one."""
    owner: str = ""
    """The GitOps tool that writes its spec, if any."""
    generation: int = 0
    ready: bool = False

    @property
    def key(self) -> str:
        """namespace/name."""
        return f"{self.namespace}/{self.name}"

    def pipeline(self, component: str) -> str:
        """The name of a component as a pipeline."""
        return self.key if component == "predictor" else f"{self.key}/{component}"


def read_service(found: Mapping[str, Any], owner: str = "") -> Service:
    """An InferenceService of the API."""
    meta, spec, status = found["metadata"], found["spec"], found.get("status") or {}
    noted = meta.get("annotations") or {}
    said = status.get("deploymentMode") or noted.get(f"{_PREFIX}/deploymentMode") or ""
    conditions = status.get("conditions") or ()
    return Service(
        namespace=meta["namespace"],
        name=meta["name"],
        labels=meta.get("labels") or {},
        components=tuple(component for component in COMPONENTS if spec.get(component)),
        mode=_MODES.get(said),
        stopped=noted.get(f"{_PREFIX}/stop", "").lower() == "true",
        frozen=noted.get(f"{_PREFIX}/disable-auto-update", "").lower() == "true",
        autoscaler=noted.get(f"{_PREFIX}/autoscalerClass", ""),
        spec=spec,
        traffic=_traffic(meta["name"], spec, status),
        owner=owner,
        generation=meta.get("generation") or 0,
        ready=any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions),
    )


def main_containers(labels: Mapping[str, str]) -> tuple[str, ...]:
    """The names that the main container of a pod with these labels may have; none: not KServe's."""
    if SERVICE_LABEL in labels:
        return MAIN
    if GRAPH_LABEL in labels:
        return (labels[GRAPH_LABEL], "user-container")
    return ()


def version_of(pod: Pod) -> str:
    """The revision, or the workload, that a pod belongs to: what traffic is divided among."""
    return pod.labels.get(REVISION_LABEL) or pod.owner.partition("/")[2]


def component_of(pod: Pod) -> str:
    """Which component of its service a pod is."""
    return pod.labels.get(COMPONENT_LABEL) or "predictor"


def _traffic(name: str, spec: Mapping[str, Any], status: Mapping[str, Any]) -> Mapping[str, Mapping[str, float]]:
    found: dict[str, Mapping[str, float]] = {}
    for component, state in (status.get("components") or {}).items():
        shares: dict[str, float] = {}
        for target in (state or {}).get("traffic") or ():
            revision = target.get("revisionName") or state.get("latestReadyRevision")
            if revision:
                shares[revision] = shares.get(revision, 0.0) + (target.get("percent") or 0) / 100
        if shares:
            found[component] = shares
    if canaries := _canaries(name, spec):
        found["predictor"] = canaries
    return found


def _canaries(name: str, spec: Mapping[str, Any]) -> Mapping[str, float]:
    """Standard mode since KServe 0.20: a Deployment "{service}-{canary}-predictor" for each entry of `canary`."""
    shares = {}
    for canary in spec.get("canary") or ():
        own = (canary.get("predictor") or {}).get("name")
        if own:
            shares[f"{name}-{own}-predictor"] = (canary.get("trafficPercent") or 0) / 100
    if shares:
        stable = (spec.get("predictor") or {}).get("name")
        main = f"{name}-{stable}-predictor" if stable else f"{name}-predictor"
        shares[main] = max(0.0, 1 - sum(shares.values()))
    return shares
