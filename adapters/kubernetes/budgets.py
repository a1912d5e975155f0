"""CPUBudget resources: read and checked, and their status written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from headgate.adapters.kubernetes.api import MERGE, Api, Object, path
from headgate.core.budgets import BudgetSpec, CPUBudget, PipelineRule
from headgate.core.config import Document, SettingsError, validate
from headgate.core.hosting import Rejected

API = "headgate.dev/v1alpha1"
PLURAL = "cpubudgets"


class Budgets:
    """All budgets of some namespaces, or of the whole cluster."""

    def __init__(self, api: Api, own: str, namespaces: Sequence[str]) -> None:
        """`own`: the controller's namespace, whose budgets may cover others."""
        self._api = api
        self._own = own
        self._namespaces = namespaces
        self._found: dict[str, Object] = {}

    def read(self) -> list[CPUBudget | Rejected]:
        """As they are now. Raises ApiError."""
        places = [path(API, PLURAL, namespace=namespace) for namespace in self._namespaces or ("",)]
        found = [item for place in places for item in self._api.list(place)]
        self._found = {_key(item): item for item in found}
        return [budget_of(item, self._own) for item in found if not item["metadata"].get("deletionTimestamp")]

    def reference(self, key: str) -> Object | None:
        """For events: the object as others name it."""
        item = self._found.get(key)
        if item is None:
            return None
        meta = item["metadata"]
        names = {name: meta.get(name, "") for name in ("namespace", "name", "uid", "resourceVersion")}
        return {"apiVersion": API, "kind": "CPUBudget", **names}

    def report(self, key: str, status: Mapping[str, Any]) -> None:
        """Write a status where it says something new. Raises ApiError."""
        item = self._found.get(key)
        if item is None:
            return
        before = item.get("status") or {}
        wanted = {**status, "conditions": stamped(status.get("conditions", ()), before.get("conditions") or (), status)}
        if wanted == before:
            return
        meta = item["metadata"]
        where = path(API, PLURAL, meta["name"], meta["namespace"], "status")
        # What was there and is not any more has to be said in a merge patch.
        answer = self._api.patch(where, {"status": {**dict.fromkeys(before.keys() - wanted.keys()), **wanted}}, MERGE)
        item["status"] = answer.get("status", wanted)


def budget_of(item: Object, own: str) -> CPUBudget | Rejected:
    """A resource as a budget, or why it is none."""
    meta = item["metadata"]
    namespace, name = meta["namespace"], meta["name"]
    generation = int(meta.get("generation") or 1)
    try:
        spec = validate(Document("spec", item.get("spec")), BudgetSpec)
        if namespace != own:
            check_reach(spec, namespace, own)
    except SettingsError as error:
        return Rejected(f"{namespace}/{name}", generation, str(error))
    return CPUBudget(
        name,
        namespace,
        spec,
        generation,
        created=meta.get("creationTimestamp") or "",
        uid=meta.get("uid") or "",
        reported=_reported(item.get("status") or {}, generation),
    )


def _reported(status: Mapping[str, Any], generation: int) -> bool:
    accepted = [c.get("reason") for c in status.get("conditions") or () if c.get("type") == "Accepted"]
    return status.get("observedGeneration") == generation and bool(accepted) and "OtherHost" not in accepted


def check_reach(spec: BudgetSpec, namespace: str, own: str) -> None:
    """Raise SettingsError where a budget looks beyond its own namespace without standing in the controller's."""
    for index, rule in enumerate(spec.pipelines):
        if beyond := sorted(_namespaces(rule) - {namespace}):
            raise SettingsError(
                f"pipelines[{index}]: looks into {', '.join(beyond)}; a budget in {namespace} may cover only that "
                f"namespace: move it to {own}, where those who run headgate keep theirs"
            )
    if spec.nodes is not None and spec.total is None:
        raise SettingsError(f"nodes: what nodes have belongs to all namespaces; a budget in {namespace} needs a total")


def covered(budgets: Iterable[CPUBudget]) -> list[str]:
    """The namespaces that budgets look into, in order; [""]: all of the cluster."""
    found: set[str] = set()
    for budget in budgets:
        for rule in budget.spec.pipelines:
            plain = rule.selector is not None or any("/" not in name for name in (*rule.services, *rule.graphs))
            found |= _namespaces(rule) | ({budget.namespace} if plain and not rule.namespaces else set())
    return [""] if "*" in found else sorted(found)


def _namespaces(rule: PipelineRule) -> set[str]:
    named = {name.partition("/")[0] for name in (*rule.services, *rule.graphs) if "/" in name}
    return named | set(rule.namespaces)


def stamped(conditions: Sequence[Object], before: Sequence[Object], status: Mapping[str, Any]) -> list[Object]:
    """Conditions with the time of their last change of status, and the generation that they are of."""
    known = {found.get("type"): found for found in before}
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    result = []
    for condition in conditions:
        old = known.get(condition["type"], {})
        same = old.get("status") == condition["status"] and old.get("lastTransitionTime")
        times = {"lastTransitionTime": old["lastTransitionTime"] if same else now}
        result.append({**condition, **times, "observedGeneration": status["observedGeneration"]})
    return result


def _key(item: Object) -> str:
    return f"{item['metadata']['namespace']}/{item['metadata']['name']}"
