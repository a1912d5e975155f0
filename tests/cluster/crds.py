"""Custom resource definitions: the published ones where they are at hand, and plain stand-ins for the rest."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]

ROOT = Path(__file__).resolve().parents[2]
OWN = ROOT / "deploy" / "crds"


def shared() -> Path | None:
    """The folder of published definitions: shared/ beside the repository."""
    for parent in ROOT.parents:
        if (parent / "shared" / "crds").is_dir():
            return parent / "shared" / "crds"
    return None


@cache
def published(relative: str) -> Object | None:
    """A published definition ("kserve/serving.kserve.io_inferenceservices.yaml"); None where there is none."""
    folder = shared()
    return None if folder is None or not (folder / relative).is_file() else load(folder / relative)


@cache
def load(path: Path) -> Object:
    """A definition, without what a cluster would have to run for it (webhooks)."""
    with path.open() as file:
        found: Object = yaml.load(file, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    found.pop("status", None)
    found["spec"].pop("conversion", None)
    found["metadata"].pop("creationTimestamp", None)
    return found


def plain(group: str, version: str, kind: str, plural: str, scope: str = "Namespaced", scale: bool = False) -> Object:
    """A definition that takes any spec and status."""
    free = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    subresources: Object = {"status": {}}
    if scale:
        subresources["scale"] = {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{group}",
            "annotations": {"api-approved.kubernetes.io": "unapproved, a stand-in for tests"},
        },
        "spec": {
            "group": group,
            "scope": scope,
            "names": {"plural": plural, "singular": kind.lower(), "kind": kind, "listKind": f"{kind}List"},
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": free, "status": free}}},
                    "subresources": subresources,
                }
            ],
        },
    }


def all_of_them() -> list[Object]:
    """What a cluster with KServe, Knative, KEDA, VPA, Cluster API and headgate knows."""
    return [
        published("kserve/serving.kserve.io_inferenceservices.yaml")
        or plain("serving.kserve.io", "v1beta1", "InferenceService", "inferenceservices"),
        published("kserve/serving.kserve.io_inferencegraphs.yaml")
        or plain("serving.kserve.io", "v1alpha1", "InferenceGraph", "inferencegraphs"),
        published("kserve/serving.kserve.io_servingruntimes.yaml")
        or plain("serving.kserve.io", "v1alpha1", "ServingRuntime", "servingruntimes"),
        published("cluster-api/cluster.x-k8s.io_machinedeployments.yaml")
        or plain("cluster.x-k8s.io", "v1beta2", "MachineDeployment", "machinedeployments", scale=True),
        plain("serving.knative.dev", "v1", "Revision", "revisions"),
        plain("serving.knative.dev", "v1", "Service", "services"),
        plain("autoscaling.internal.knative.dev", "v1alpha1", "PodAutoscaler", "podautoscalers"),
        plain("keda.sh", "v1alpha1", "ScaledObject", "scaledobjects"),
        plain("autoscaling.k8s.io", "v1", "VerticalPodAutoscaler", "verticalpodautoscalers"),
        *(load(path) for path in sorted(OWN.glob("*.yaml"))),
    ]
