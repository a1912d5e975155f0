"""What `headgate doctor` asks any cluster: its version, what it serves, who may do what, its nodes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from headgate.adapters.kubernetes import budgets as resources
from headgate.adapters.kubernetes import lease as leases
from headgate.adapters.kubernetes.api import Api, ApiError, path
from headgate.adapters.kubernetes.cluster import listed
from headgate.adapters.kubernetes.pods import Pod
from headgate.core.hosting import Finding, Outcome

OLDEST = (1, 33)
"""The first version that resizes pods in place without a feature gate: beta in 1.33, GA in 1.35."""
GA = (1, 35)
NAMED = 5
"""Objects that a finding names."""


@dataclass(frozen=True, slots=True)
class Permission:
    """What an account has to be allowed."""

    verb: str
    resource: str
    """With its subresource: pods/resize."""
    group: str = ""
    namespaces: tuple[str, ...] = ("",)
    """"": all of the cluster."""
    without: str = ""
    """What headgate does without it; empty: nothing."""

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}{'.' if self.group else ''}{self.group}"


def reached(api: Api) -> tuple[tuple[int, int] | None, str]:
    """The server's version as numbers, None where it does not say, and as it writes it. Raises ApiError."""
    found = api.get("/version")
    text = str(found.get("gitVersion") or "")
    return _numbers(text), text or "unknown"


def resizes(api: Api) -> Finding:
    """Whether the server resizes pods in place. Raises ApiError."""
    check = "in-place resize"
    version, text = reached(api)
    if "pods/resize" not in served(api, "v1"):
        said = f"Kubernetes {text} has no pods/resize"
        return Finding(check, Outcome.FAIL, said, "upgrade to Kubernetes 1.33 or newer (1.35: generally available)")
    if version is None or version >= GA:
        return Finding(check, Outcome.OK, f"Kubernetes {text}: generally available")
    if version >= OLDEST:
        return Finding(check, Outcome.OK, f"Kubernetes {text}: beta, on by default")
    said = f"Kubernetes {text}: alpha, which headgate does not work with"
    return Finding(check, Outcome.FAIL, said, "upgrade to Kubernetes 1.33 or newer (1.35: generally available)")


def served(api: Api, version: str) -> frozenset[str]:
    """The resources of "v1" or "group/version" with their subresources; empty: not served. Raises ApiError."""
    try:
        found = api.get(f"/api/{version}" if "/" not in version else f"/apis/{version}")
    except ApiError as error:
        if error.status == 404:
            return frozenset()
        raise
    return frozenset(str(each["name"]) for each in found.get("resources") or ())


def permissions(api: Api, wanted: Iterable[Permission]) -> list[Finding]:
    """Each permission by SelfSubjectAccessReview, in all its namespaces. Raises ApiError."""
    return [_permission(api, each) for each in wanted]


def _permission(api: Api, wanted: Permission) -> Finding:
    check = f"may {wanted}"
    missing = [namespace for namespace in wanted.namespaces if not _allowed(api, wanted, namespace)]
    if not missing:
        return Finding(check, Outcome.OK, f"allowed in {_places(wanted.namespaces)}")
    found = f"not allowed in {_places(missing)}"
    kind, bound = ("ClusterRole", "ClusterRoleBinding") if "" in missing else ("Role or ClusterRole", "RoleBinding")
    rule = f'{{apiGroups: ["{wanted.group}"], resources: ["{wanted.resource}"], verbs: ["{wanted.verb}"]}}'
    advice = f"give headgate's account the rule {rule} by a {kind} and a {bound}"
    if wanted.without:
        return Finding(check, Outcome.WARN, f"{found}: {wanted.without}", advice)
    return Finding(check, Outcome.FAIL, found, advice)


def _allowed(api: Api, wanted: Permission, namespace: str) -> bool:
    resource, _, subresource = wanted.resource.partition("/")
    asked = {"verb": wanted.verb, "group": wanted.group, "resource": resource}
    asked |= {key: value for key, value in (("subresource", subresource), ("namespace", namespace)) if value}
    kind = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview"}
    answer = api.create(
        path("authorization.k8s.io/v1", "selfsubjectaccessreviews"), {**kind, "spec": {"resourceAttributes": asked}}
    )
    return bool((answer.get("status") or {}).get("allowed"))


def _places(namespaces: Sequence[str]) -> str:
    if "" in namespaces:
        return "the whole cluster"
    return f"namespace{'s' if len(namespaces) > 1 else ''} {', '.join(namespaces)}"


def nodes(api: Api) -> Finding:
    """Whether the nodes' kubelets resize. Raises ApiError and OSError."""
    kubelets = {
        node["metadata"]["name"]: str(((node.get("status") or {}).get("nodeInfo") or {}).get("kubeletVersion") or "")
        for node in listed(api, "v1", "nodes", ())
    }
    old = {name: text for name, text in kubelets.items() if (version := _numbers(text)) and version < OLDEST}
    if not old:
        versions = ", ".join(sorted(set(kubelets.values()))) or "none"
        return Finding("nodes", Outcome.OK, f"{len(kubelets)} with kubelets {versions}")
    named = ", ".join(f"{name} ({text})" for name, text in sorted(old.items())[:NAMED])
    return Finding(
        "nodes",
        Outcome.WARN,
        f"{len(old)} of {len(kubelets)} have kubelets that do not resize: {named}",
        "upgrade them to 1.33 or newer; their pods keep what they have",
    )


def unresizable(pods: Iterable[Pod]) -> list[Finding]:
    """Pods that their nodes will not resize, in the kubelets' words: a static CPU manager, swap, too little room."""
    return [
        Finding(
            f"pod {pod.key}",
            Outcome.WARN,
            f"node {pod.node} will not resize it: {pod.resize.message or 'it does not say why'}",
            "docs/refusals.md, Infeasible: move the pod, or lower its ceiling",
        )
        for pod in pods
        if pod.infeasible and pod.resize is not None
    ]


def home_findings(
    api: Api, namespace: str, namespaces: Sequence[str], lease: str, *, budgets: bool
) -> Sequence[Finding]:
    """What the home `kubernetes` needs in its namespace. Raises ApiError but where the server does not answer."""
    try:
        _, text = reached(api)
    except ApiError as error:
        advice = "see that kubeconfig and context are right, the server runs, and no firewall is between"
        if error.status in (401, 403):
            advice = "renew the credentials of the kubeconfig, or of the service account"
        return [Finding("API server", Outcome.FAIL, str(error), advice)]
    found = [Finding("API server", Outcome.OK, f"Kubernetes {text} answers")]
    if budgets:
        found.append(_definition(api))
    found += permissions(api, _home_permissions(namespace, namespaces, budgets))
    found.append(_lease(api, namespace, lease))
    return found


def _definition(api: Api) -> Finding:
    check = "CPUBudget resource"
    names = served(api, resources.API)
    if {resources.PLURAL, f"{resources.PLURAL}/status"} <= names:
        return Finding(check, Outcome.OK, f"{resources.API} is served")
    found = f"{resources.API} {'is served without its status' if resources.PLURAL in names else 'is not served'}"
    return Finding(check, Outcome.FAIL, found, "kubectl apply -f deploy/crds, or give `budgets` in the settings file")


def _home_permissions(namespace: str, namespaces: Sequence[str], budgets: bool) -> list[Permission]:
    own, everywhere = (namespace,), tuple(namespaces) or ("",)
    found = [Permission(verb, "leases", "coordination.k8s.io", own) for verb in ("get", "create", "patch")]
    found += [Permission(verb, "configmaps", "", own) for verb in ("get", "list", "create", "patch", "delete")]
    if budgets:
        group = resources.API.partition("/")[0]
        found += [Permission("list", "cpubudgets", group, everywhere)]
        found += [Permission("patch", "cpubudgets/status", group, everywhere)]
        found += [Permission(verb, "events", "", everywhere, "no Events are written") for verb in ("create", "patch")]
    return found


def _lease(api: Api, namespace: str, name: str) -> Finding:
    check = f"lease {namespace}/{name}"
    try:
        spec = api.get(path(leases.API, "leases", name, namespace)).get("spec") or {}
    except ApiError as error:
        if error.status == 404:
            return Finding(check, Outcome.OK, "nobody leads: no controller has run here")
        advice = "see the permissions above"
        return Finding(check, Outcome.WARN, str(error), advice)
    if not (holder := spec.get("holderIdentity")):
        return Finding(check, Outcome.OK, "nobody leads: the last controller has ended")
    return Finding(check, Outcome.OK, f"held by {holder}, last renewed {spec.get('renewTime') or 'never'}")


def _numbers(version: str) -> tuple[int, int] | None:
    """Major and minor of "v1.33.2-gke.1"."""
    found = re.match(r"v?(\d+)\.(\d+)", version)
    return None if found is None else (int(found[1]), int(found[2]))
