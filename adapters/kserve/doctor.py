"""What `headgate doctor` asks a cluster with KServe; docs/kserve.md has the same table of permissions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress

from headgate.adapters.kserve import services
from headgate.adapters.kubernetes.api import Api
from headgate.adapters.kubernetes.budgets import covered
from headgate.adapters.kubernetes.doctor import Permission, nodes, permissions, resizes, served, unresizable
from headgate.adapters.kubernetes.pods import Pod
from headgate.core.budgets import CPUBudget
from headgate.core.hosting import Finding, Outcome

KSERVE = "serving.kserve.io"


def host_findings(
    api: Api, namespaces: Sequence[str], budgets: Sequence[CPUBudget], pods: Iterable[Pod]
) -> Sequence[Finding]:
    """What the host needs for `budgets`. `namespaces`: those that it looks into; none: all. Raises as an Api does."""
    found = [resizes(api), _installed(api), *permissions(api, needed(namespaces, budgets))]
    if not namespaces:
        with suppress(PermissionError):  # has been said
            found.append(nodes(api))
    return [*found, *unresizable(pods)]


def needed(namespaces: Sequence[str], budgets: Sequence[CPUBudget]) -> list[Permission]:
    """What the account has to be allowed, what matters most first."""
    looked = tuple(namespaces) or ("",)
    changed = tuple(covered(budgets)) or looked
    found = [Permission("patch", "pods/resize", "", changed), Permission("list", "pods", "", looked)]
    found += [Permission("list", name, KSERVE, looked) for name in ("inferenceservices", "inferencegraphs")]
    found += [
        Permission("list", "horizontalpodautoscalers", "autoscaling", looked),
        Permission("list", "scaledobjects", "keda.sh", looked),
        Permission("list", "verticalpodautoscalers", "autoscaling.k8s.io", looked),
        Permission("list", "limitranges", "", looked, "limits of a LimitRange are found by dry runs only"),
    ]
    if not namespaces:
        found.append(Permission("list", "nodes", without="growth is bounded by budgets and kubelets only"))
    templates = [budget for budget in budgets if budget.spec.template.write]
    replicas = [budget for budget in budgets if budget.spec.replicas.manage]
    if templates or replicas:
        where = tuple(covered([*templates, *replicas]))
        found.append(Permission("patch", "inferenceservices", KSERVE, where))
    if replicas:
        where = tuple(covered(replicas))
        found += [
            Permission("get", "deployments", "apps", where),
            Permission("patch", "deployments/scale", "apps", where),
        ]
    return found


def _installed(api: Api) -> Finding:
    if services.RESOURCE in served(api, services.API):
        return Finding("KServe", Outcome.OK, f"{services.API} is served")
    return Finding("KServe", Outcome.FAIL, f"{services.API} is not served", "install KServe in this cluster")
