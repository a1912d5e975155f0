"""What tests and emulated controllers use to talk to a cluster, whichever it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, urlencode

Object = dict[str, Any]
Send = Callable[[str, str, Any, str], tuple[int, Any]]
"""(method, target, body, content type) -> (status, what was answered)."""

MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY = "application/apply-patch+yaml"

APIS = {
    "deployments": "apps/v1",
    "replicasets": "apps/v1",
    "statefulsets": "apps/v1",
    "leases": "coordination.k8s.io/v1",
    "horizontalpodautoscalers": "autoscaling/v2",
    "poddisruptionbudgets": "policy/v1",
    "roles": "rbac.authorization.k8s.io/v1",
    "rolebindings": "rbac.authorization.k8s.io/v1",
    "clusterroles": "rbac.authorization.k8s.io/v1",
    "clusterrolebindings": "rbac.authorization.k8s.io/v1",
    "customresourcedefinitions": "apiextensions.k8s.io/v1",
    "selfsubjectaccessreviews": "authorization.k8s.io/v1",
    "inferenceservices": "serving.kserve.io/v1beta1",
    "inferencegraphs": "serving.kserve.io/v1alpha1",
    "servingruntimes": "serving.kserve.io/v1alpha1",
    "clusterservingruntimes": "serving.kserve.io/v1alpha1",
    "revisions": "serving.knative.dev/v1",
    "podautoscalers": "autoscaling.internal.knative.dev/v1alpha1",
    "scaledobjects": "keda.sh/v1alpha1",
    "verticalpodautoscalers": "autoscaling.k8s.io/v1",
    "machinedeployments": "cluster.x-k8s.io/v1beta2",
    "machines": "cluster.x-k8s.io/v1beta2",
    "nodepools": "karpenter.sh/v1",
    "nodeclaims": "karpenter.sh/v1",
    "cpubudgets": "headgate.dev/v1alpha1",
}
CLUSTER_WIDE = {"nodes", "namespaces", "clusterroles", "clusterrolebindings", "customresourcedefinitions"} | {
    "selfsubjectaccessreviews",
    "clusterservingruntimes",
    "priorityclasses",
    "nodepools",
    "nodeclaims",
}


class RequestError(Exception):
    """The server's answer was an error."""

    def __init__(self, code: int, status: Any) -> None:
        self.code = code
        self.status: Object = status if isinstance(status, dict) else {}
        self.message = str(self.status.get("message", status))
        self.reason = str(self.status.get("reason", ""))
        super().__init__(f"{code} {self.reason}: {self.message}")

    @property
    def causes(self) -> list[Object]:
        return list((self.status.get("details") or {}).get("causes") or [])


class Client:
    """Plain JSON objects by their plural: `client.get("pods", "a", "models")`."""

    def __init__(self, send: Send) -> None:
        self.send = send

    def get(self, plural: str, name: str, namespace: str = "", sub: str = "", **query: str) -> Object:
        return self._ask("GET", target(plural, name, namespace, sub, query))

    def find(self, plural: str, name: str, namespace: str = "") -> Object | None:
        """The object, or None where there is none."""
        try:
            return self.get(plural, name, namespace)
        except RequestError as refused:
            if refused.code == 404:
                return None
            raise

    def list(self, plural: str, namespace: str = "", **query: str) -> list[Object]:
        found: list[Object] = []
        more = ""
        while True:
            page = self._ask("GET", target(plural, "", namespace, "", query | ({"continue": more} if more else {})))
            for item in page["items"]:
                item.setdefault("apiVersion", page["apiVersion"])
                item.setdefault("kind", page["kind"].removesuffix("List"))
            found += page["items"]
            more = page["metadata"].get("continue") or ""
            if not more:
                return found

    def create(self, plural: str, body: Mapping[str, Any], namespace: str = "", sub: str = "", **query: str) -> Object:
        """With a `sub`: to the subresource of the object that metadata.name names."""
        name = body["metadata"]["name"] if sub else ""
        namespace = "" if plural in CLUSTER_WIDE else namespace or body.get("metadata", {}).get("namespace", "default")
        return self._ask("POST", target(plural, name, namespace, sub, query), dict(body))

    def replace(self, plural: str, body: Mapping[str, Any], sub: str = "", **query: str) -> Object:
        meta = body["metadata"]
        return self._ask("PUT", target(plural, meta["name"], meta.get("namespace", ""), sub, query), dict(body))

    def patch(
        self, plural: str, name: str, namespace: str, body: Any, kind: str = MERGE, sub: str = "", **query: str
    ) -> Object:
        return self._ask("PATCH", target(plural, name, namespace, sub, query), body, kind)

    def apply(self, plural: str, body: Mapping[str, Any], manager: str, sub: str = "", **query: str) -> Object:
        """Server-side apply."""
        meta = body["metadata"]
        query = {"fieldManager": manager, **query}
        return self._ask(
            "PATCH", target(plural, meta["name"], meta.get("namespace", ""), sub, query), dict(body), APPLY
        )

    def delete(self, plural: str, name: str, namespace: str = "", grace: int | None = None) -> None:
        """Ask for a deletion; nothing where it is gone already."""
        query = {} if grace is None else {"gracePeriodSeconds": str(grace)}
        try:
            self._ask("DELETE", target(plural, name, namespace, "", query))
        except RequestError as refused:
            if refused.code != 404:
                raise

    def resize(self, pod: str, namespace: str, resources: Mapping[str, Mapping[str, Any]], **query: str) -> Object:
        """Strategic merge of containers' resources: {"main": {"requests": {"cpu": "1"}}}."""
        containers = [{"name": name, "resources": wanted} for name, wanted in resources.items()]
        return self.patch("pods", pod, namespace, {"spec": {"containers": containers}}, STRATEGIC, "resize", **query)

    def status(self, plural: str, name: str, namespace: str, status: Mapping[str, Any]) -> Object:
        """Merge into the status."""
        return self.patch(plural, name, namespace, {"status": dict(status)}, MERGE, "status")

    def _ask(self, method: str, where: str, body: Any = None, kind: str = "application/json") -> Object:
        code, found = self.send(method, where, body, kind)
        if code >= 400:
            raise RequestError(code, found)
        return found  # type: ignore[no-any-return]


def target(plural: str, name: str, namespace: str, sub: str, query: Mapping[str, str]) -> str:
    """The path and query; `plural` may be "group/version/plural" where APIS does not know it."""
    api, _, plural = plural.rpartition("/") if "/" in plural else (APIS.get(plural, "v1"), "", plural)
    root = f"/apis/{api}" if "/" in api else f"/api/{api}"
    parts = (*(("namespaces", namespace) if namespace else ()), plural, *filter(None, (name, sub)))
    path = root + "".join(f"/{quote(part, safe='')}" for part in parts)
    return f"{path}?{urlencode(query)}" if query else path
