"""What KServe's controller does as far as others see it: workloads of InferenceServices and InferenceGraphs.

By default in Standard mode with an HPA, as KServe does; the annotations serving.kserve.io/deploymentMode and
.../autoscalerClass change that. Metadata of a service flows into its pods' template, and what anybody changes on the
workloads is taken back.
"""

from __future__ import annotations

from typing import Any

from .client import Client, RequestError
from .deployments import owned_by, owner_of
from .double.objects import clone

Object = dict[str, Any]
GROUP = "serving.kserve.io"
MODE = f"{GROUP}/deploymentMode"
CLASS = f"{GROUP}/autoscalerClass"
STOP = f"{GROUP}/stop"
FROZEN = f"{GROUP}/disable-auto-update"
COMPONENTS = ("predictor", "transformer", "explainer")
_DEFAULT = {"requests": {"cpu": "1", "memory": "2Gi"}, "limits": {"cpu": "1", "memory": "2Gi"}}
_SIDECAR = {"requests": {"cpu": "25m"}}
_NOT_PASSED_ON = ("kubectl.kubernetes.io/last-applied-configuration", STOP, FROZEN, CLASS, MODE)


class KServe:
    """Reconciles all InferenceServices and InferenceGraphs once by `sync`."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.asleep: set[tuple[str, str]] = set()
        """(namespace, component name) that Knative has scaled to zero: ("models", "fraud-predictor")."""

    _scalers: set[tuple[str, str, str]]

    def sync(self) -> None:
        deployments = {_key(one): one for one in self.client.list("deployments")}
        self._scalers = {
            (plural, *_key(one))
            for plural in ("horizontalpodautoscalers", "scaledobjects")
            for one in self.client.list(plural)
        }
        wanted: set[tuple[str, str]] = set()
        for service in self.client.list("inferenceservices"):
            if (service["metadata"].get("annotations") or {}).get(FROZEN) == "true":
                owner = service["metadata"]["uid"]
                wanted |= {key for key, one in deployments.items() if owner_of(one) == owner}
                continue
            wanted |= self._service(service, deployments)
        for graph in self.client.list("inferencegraphs"):
            wanted.add(self._ensure(deployments, _router(graph)))
        for key, found in deployments.items():
            kinds = {owner["kind"] for owner in found["metadata"].get("ownerReferences") or []}
            if kinds & {"InferenceService", "InferenceGraph", "Revision"} and key not in wanted:
                self.client.delete("deployments", key[1], key[0])

    def _service(self, service: Object, deployments: dict[tuple[str, str], Object]) -> set[tuple[str, str]]:
        notes = service["metadata"].get("annotations") or {}
        knative = notes.get(MODE) in ("Knative", "Serverless")
        made: set[tuple[str, str]] = set()
        stopped = notes.get(STOP) == "true"
        for component in COMPONENTS:
            if component in service["spec"] and not stopped:
                if knative:
                    made |= self._revisions(service, component, deployments)
                else:
                    made.add(self._ensure(deployments, _deployment(service, component)))
                    self._autoscaler(service, component)
        self._tell(service, [deployments.get(key) for key in made], stopped, knative)
        return made

    def _ensure(self, deployments: dict[tuple[str, str], Object], wanted: Object) -> tuple[str, str]:
        """Create it, or take back what was changed; replicas are another's unless nobody scales."""
        key, found = _key(wanted), deployments.get(_key(wanted))
        if found is None:
            deployments[key] = self.client.create("deployments", wanted)
            return key
        template, replicas = found["spec"]["template"], found["spec"].get("replicas", 1)
        fixed = wanted["metadata"].get("annotations", {}).get(CLASS) == "none"
        changed = _covers(template, wanted["spec"]["template"])
        if not changed or (fixed and replicas != wanted["spec"]["replicas"]):
            kept = wanted["spec"]["replicas"] if fixed else replicas
            body = {**found, "spec": {**found["spec"], "template": wanted["spec"]["template"], "replicas": kept}}
            self._replace("deployments", body)
        return key

    def _replace(self, plural: str, body: Object, sub: str = "") -> None:
        try:
            self.client.replace(plural, body, sub)
        except RequestError as error:
            if error.code not in (404, 409):
                raise

    def _autoscaler(self, service: Object, component: str) -> None:
        """An HPA or a ScaledObject by the service's class; deleted under another class."""
        meta, part = service["metadata"], service["spec"][component]
        kind = (meta.get("annotations") or {}).get(CLASS, "hpa")
        name, least = f"{meta['name']}-{component}", part.get("minReplicas", 1)
        most, target = (
            max(part.get("maxReplicas", 0), least, 1),
            {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
        )
        own: Object = {"name": name, "namespace": meta["namespace"], "ownerReferences": [owned_by(service)]}
        place = (meta["namespace"], name)
        scaled = ("horizontalpodautoscalers", *place) in self._scalers
        if kind == "hpa" and not scaled:
            percent = {"type": "Utilization", "averageUtilization": int(part.get("scaleTarget", 80))}
            metrics = [{"type": "Resource", "resource": {"name": part.get("scaleMetric", "cpu"), "target": percent}}]
            spec = {"scaleTargetRef": target, "minReplicas": max(1, least), "maxReplicas": most, "metrics": metrics}
            body = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": own, "spec": spec}
            self.client.create("horizontalpodautoscalers", body)
        elif kind != "hpa" and scaled:
            self.client.delete("horizontalpodautoscalers", name, meta["namespace"])
        if kind == "keda" and ("scaledobjects", *place) not in self._scalers:
            triggers = [{"type": "cpu", "metricType": "Utilization", "metadata": {"value": "80"}}]
            spec = {
                "scaleTargetRef": {"name": name},
                "minReplicaCount": least,
                "maxReplicaCount": most,
                "triggers": triggers,
            }
            self.client.create(
                "scaledobjects",
                {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": own, "spec": spec},
            )

    def _revisions(
        self, service: Object, component: str, deployments: dict[tuple[str, str], Object]
    ) -> set[tuple[str, str]]:
        """Knative: a Revision for every template; the last one serves, and beside a canary the one before it."""
        meta, name = service["metadata"], f"{service['metadata']['name']}-{component}"
        space, selector = meta["namespace"], f"serving.knative.dev/service={name}"
        have = sorted(
            self.client.list("revisions", space, labelSelector=selector), key=lambda one: one["metadata"]["name"]
        )
        template = _deployment(service, component, knative=True)["spec"]["template"]
        if not have or have[-1]["spec"] != template["spec"]:
            number = len(have) + 1
            labels = {**template["metadata"]["labels"], "serving.knative.dev/service": name}
            have.append(
                self.client.create(
                    "revisions",
                    {
                        "apiVersion": "serving.knative.dev/v1",
                        "kind": "Revision",
                        "metadata": {
                            "name": f"{name}-{number:05d}",
                            "namespace": space,
                            "labels": labels,
                            "annotations": template["metadata"].get("annotations", {}),
                            "ownerReferences": [owned_by(service)],
                        },
                        "spec": template["spec"],
                    },
                )
            )
        canary = service["spec"][component].get("canaryTrafficPercent", 100) < 100
        served = have[-2:] if canary else have[-1:]
        return {self._ensure(deployments, self._of_revision(service, component, one)) for one in served}

    def _of_revision(self, service: Object, component: str, revision: Object) -> Object:
        found, name = _deployment(service, component, knative=True), revision["metadata"]["name"]
        owner = f"{service['metadata']['name']}-{component}"
        labels = found["spec"]["template"]["metadata"]["labels"] | {
            "serving.knative.dev/service": owner,
            "serving.knative.dev/configuration": owner,
            "serving.knative.dev/revision": name,
            "app": name,
        }
        found["metadata"]["name"] = f"{name}-deployment"
        found["metadata"]["ownerReferences"] = [owned_by(revision)]
        found["metadata"].setdefault("annotations", {})[CLASS] = "none"  # the replicas are Knative's
        found["spec"]["template"] = {"metadata": {"labels": labels}, "spec": clone(revision["spec"])}
        found["spec"]["selector"]["matchLabels"] = {"serving.knative.dev/revision": name}
        if (service["metadata"]["namespace"], owner) in self.asleep:
            found["spec"]["replicas"] = 0
        return found

    def _tell(self, service: Object, made: list[Object | None], stopped: bool, knative: bool) -> None:
        ready = bool(made) and all(
            one is not None and (one.get("status") or {}).get("availableReplicas", 0) >= one["spec"].get("replicas", 1)
            for one in made
        )
        conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
        if stopped:
            conditions.append({"type": "Stopped", "status": "True", "reason": "Stopped"})
        status = {
            "deploymentMode": "Knative" if knative else "Standard",
            "conditions": conditions,
            "url": f"http://{service['metadata']['name']}.{service['metadata']['namespace']}.example.org",
            "observedGeneration": service["metadata"]["generation"],
        }
        have = service.get("status") or {}
        if any(have.get(key) != value for key, value in status.items()):
            self._replace("inferenceservices", {**service, "status": {**have, **status}}, "status")


def _key(found: Object) -> tuple[str, str]:
    return found["metadata"]["namespace"], found["metadata"]["name"]


def _covers(have: Any, wanted: Any) -> bool:
    """Whether everything wanted is there; what the server filled in besides does not count."""
    if isinstance(wanted, dict):
        have = have or {}
        return all(_covers(have.get(key), value) for key, value in wanted.items())
    if isinstance(wanted, list):
        return len(have or []) == len(wanted) and all(_covers(a, b) for a, b in zip(have, wanted, strict=True))
    return bool(have == wanted)


def _pod_spec(service: Object, component: str, knative: bool) -> Object:
    part = service["spec"][component]
    if "model" in part:
        model = part["model"]
        main = {"name": "kserve-container", "image": "example.org/runtime:1", "resources": _resources(model)}
        containers = [main, *clone(part.get("containers") or [])]
    else:
        containers = clone(part.get("containers") or [])
    for container in containers:
        container["resources"] = _resources(container)
        container.setdefault("image", "example.org/runtime:1")
    if part.get("logger") or part.get("batcher"):
        containers.append({"name": "agent", "image": "example.org/agent:1", "resources": dict(_SIDECAR)})
    if knative:
        containers.append({"name": "queue-proxy", "image": "example.org/queue:1", "resources": dict(_SIDECAR)})
    passed = {key: clone(part[key]) for key in ("nodeSelector", "tolerations", "schedulerName") if key in part}
    return {"containers": containers, "terminationGracePeriodSeconds": 30, **passed}


def _resources(part: Object) -> Object:
    """As asked for, by default KServe's own."""
    return clone(part.get("resources") or _DEFAULT)  # type: ignore[no-any-return]


def _deployment(service: Object, component: str, knative: bool = False) -> Object:
    meta, part = service["metadata"], service["spec"][component]
    name = f"{meta['name']}-{component}"
    notes = {k: v for k, v in (meta.get("annotations") or {}).items() if k not in _NOT_PASSED_ON}
    labels = {
        **(meta.get("labels") or {}),
        **(part.get("labels") or {}),
        "app": f"isvc.{name}",
        "component": component,
        f"{GROUP}/inferenceservice": meta["name"],
    }
    notes |= part.get("annotations") or {}
    kind = (meta.get("annotations") or {}).get(CLASS)
    template_meta = {"labels": labels, **({"annotations": notes} if notes else {})}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": name,
            "namespace": meta["namespace"],
            "labels": labels,
            "ownerReferences": [owned_by(service)],
            **({"annotations": {CLASS: kind}} if kind else {}),
        },
        "spec": {
            "replicas": max(part.get("minReplicas", 1), 0 if knative else 1),
            "selector": {"matchLabels": {"app": f"isvc.{name}"}},
            "template": {"metadata": template_meta, "spec": _pod_spec(service, component, knative)},
        },
    }


def _router(graph: Object) -> Object:
    meta, name = graph["metadata"], graph["metadata"]["name"]
    resources = graph["spec"].get("resources") or {"requests": {"cpu": "100m", "memory": "100Mi"}}
    labels = {"app": name, f"{GROUP}/inferencegraph": name}
    container = {"name": name, "image": "example.org/router:1", "resources": clone(resources)}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": name,
            "namespace": meta["namespace"],
            "labels": labels,
            "ownerReferences": [owned_by(graph)],
        },
        "spec": {
            "replicas": graph["spec"].get("minReplicas", 1),
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }
