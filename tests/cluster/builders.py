"""Objects as tests need them: nodes, pods of each QoS class, quotas, limit ranges, InferenceServices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Object = dict[str, Any]


def node(name: str, cpu: str = "8", memory: str = "32Gi", **labels: str) -> Object:
    """A node that is ready; its allocatable is its capacity."""
    room = {"cpu": cpu, "memory": memory, "pods": "250"}
    shown = {
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        **{k.replace("__", "/"): v for k, v in labels.items()},
    }
    info = {"kubeletVersion": "v1.36.0", "operatingSystem": "linux", "architecture": "amd64"} | dict.fromkeys(
        (
            "bootID",
            "containerRuntimeVersion",
            "kernelVersion",
            "kubeProxyVersion",
            "machineID",
            "osImage",
            "systemUUID",
        ),
        "",
    )
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": shown},
        "spec": {},
        "status": {
            "capacity": room,
            "allocatable": room,
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": ""}],
            "nodeInfo": info,
        },
    }


def resources(
    cpu: str | None = None, limit: str | None = None, memory: str | None = "256Mi", most: str | None = None
) -> Object:
    """Requests `cpu` and `memory`, limits `limit` and `most`; those that are None are left out."""
    found = {"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": limit, "memory": most}}
    kept = {
        part: {name: value for name, value in values.items() if value is not None} for part, values in found.items()
    }
    return {part: values for part, values in kept.items() if values}


def guaranteed(cpu: str, memory: str = "256Mi") -> Object:
    return resources(cpu, cpu, memory, memory)


def burstable(cpu: str, limit: str | None = None, memory: str = "256Mi") -> Object:
    return resources(cpu, limit, memory)


def container(name: str = "main", wanted: Mapping[str, Any] | None = None, **more: Any) -> Object:
    return {"name": name, "image": "example.org/image:1", "resources": dict(wanted or {}), **more}


def restarting(policy: str = "RestartContainer") -> list[Object]:
    """A resize policy for CPU."""
    return [{"resourceName": "cpu", "restartPolicy": policy}]


def pod(
    name: str,
    *containers: Object,
    namespace: str = "default",
    node: str = "",
    labels: Mapping[str, str] | None = None,
    **spec: Any,
) -> Object:
    """A pod; without containers a BestEffort one."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": dict(labels or {})},
        "spec": {
            "containers": list(containers) or [container()],
            **({"nodeName": node} if node else {}),
            **spec,
        },
    }


def quota(name: str, namespace: str, used: Mapping[str, str] | None = None, **hard: str) -> Object:
    """A ResourceQuota, its keys with "__" for "."; the status is what the quota controller would write."""
    asked = {key.replace("__", "."): value for key, value in hard.items()}
    status = {"hard": asked, "used": {**dict.fromkeys(asked, "0"), **(used or {})}}
    return {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"hard": asked},
        "status": status,
    }


def limit_range(name: str, namespace: str, **limit: Any) -> Object:
    """A LimitRange of containers: max={"cpu": "2"}, min=..., default=..., defaultRequest=..."""
    meta = {"name": name, "namespace": namespace}
    return {
        "apiVersion": "v1",
        "kind": "LimitRange",
        "metadata": meta,
        "spec": {"limits": [{"type": "Container", **limit}]},
    }


def inference_service(
    name: str,
    namespace: str = "default",
    wanted: Mapping[str, Any] | None = None,
    *,
    transformer: Mapping[str, Any] | None = None,
    annotations: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    custom: bool = False,
    **predictor: Any,
) -> Object:
    """An InferenceService; `transformer` are the resources of one. `custom`: a container instead of a model."""
    if custom:
        predictor["containers"] = [
            {"name": "kserve-container", "image": "example.org/own:1", "resources": dict(wanted or {})}
        ]
    else:
        model = {"modelFormat": {"name": "onnx"}, "storageUri": "pvc://models/one", "resources": dict(wanted or {})}
        predictor["model"] = model
    spec: Object = {"predictor": predictor}
    if transformer is not None:
        one = {"name": "kserve-container", "image": "example.org/transformer:1", "resources": dict(transformer)}
        spec["transformer"] = {"containers": [one]}
    meta: Object = {"name": name, "namespace": namespace}
    if annotations:
        meta["annotations"] = dict(annotations)
    if labels:
        meta["labels"] = dict(labels)
    return {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "metadata": meta, "spec": spec}
