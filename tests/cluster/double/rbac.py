"""Who asks, and what he may do by the Roles and ClusterRoles that are bound to him."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .errors import StatusError
from .requests import ADMIN, ANONYMOUS, Request, User
from .store import Store

Object = dict[str, Any]
GROUP = "rbac.authorization.k8s.io"


class Authority:
    """Tokens and rules. Until `enforced` is set everybody may do everything."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.enforced = False
        self.tokens: dict[str, User] = {}
        self.used: dict[str, set[tuple[str, str, str]]] = {}
        """By user's name: what rules were needed for, as (API group, resource or resource/subresource, verb)."""

    def who(self, headers: Mapping[str, str]) -> User:
        """By bearer token. Raises StatusError 401 for a token that is not known."""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if not token:
            return ANONYMOUS if self.enforced else ADMIN
        if scheme.lower() != "bearer" or (token not in self.tokens and self.enforced):
            raise StatusError(401, "Unauthorized", "Unauthorized")
        return self.tokens.get(token, ADMIN)

    def check(self, request: Request) -> None:
        """Raises StatusError 403."""
        if not self.enforced or "system:masters" in request.user.groups or not request.plural:
            return
        if request.plural == "selfsubjectaccessreviews" and request.user != ANONYMOUS:
            return
        verbs = ["patch", "create"] if _creates_by_apply(request, self._store) else [request.verb]
        for verb in verbs:
            attributes = (verb, request.group, request.plural, request.sub, request.name)
            if not self.allows(request.user, request.namespace, *attributes):
                raise _denied(request, verb)
            resource = f"{request.plural}/{request.sub}" if request.sub else request.plural
            self.used.setdefault(request.user.name, set()).add((request.group, resource, verb))

    def review(self, request: Request) -> Object:
        """A SelfSubjectAccessReview with its status."""
        spec = (request.body or {}).get("spec") or {}
        asked = spec.get("resourceAttributes") or {}
        allowed = (
            not self.enforced
            or "system:masters" in request.user.groups
            or self.allows(
                request.user,
                asked.get("namespace", ""),
                asked.get("verb", ""),
                asked.get("group", ""),
                asked.get("resource", ""),
                asked.get("subresource", ""),
                asked.get("name", ""),
            )
        )
        kind = {"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "metadata": {}}
        return {**kind, "spec": spec, "status": {"allowed": allowed}}

    def allows(self, user: User, namespace: str, verb: str, group: str, plural: str, sub: str, name: str) -> bool:
        """Whether any rule bound to the user covers it."""
        resource = f"{plural}/{sub}" if sub else plural
        return any(
            _has(rule.get("verbs"), verb)
            and _has(rule.get("apiGroups"), group)
            and _covers(rule.get("resources") or [], resource, sub)
            and (not rule.get("resourceNames") or name in rule["resourceNames"])
            for rule in self._rules(user, namespace)
        )

    def _rules(self, user: User, namespace: str) -> Iterator[Object]:
        bindings = list(self._store.all((GROUP, "clusterrolebindings")))
        if namespace:
            bindings += list(self._store.all((GROUP, "rolebindings"), namespace))
        for binding in bindings:
            if any(_is(subject, user, binding) for subject in binding.get("subjects") or []):
                reference = binding["roleRef"]
                where = namespace if reference["kind"] == "Role" else ""
                plural = "roles" if reference["kind"] == "Role" else "clusterroles"
                role = self._store.get((GROUP, plural), where, reference["name"])
                yield from (role or {}).get("rules") or []


def _creates_by_apply(request: Request, store: Store) -> bool:
    apply = request.method == "PATCH" and request.content_type == "application/apply-patch+yaml" and not request.sub
    return apply and store.get((request.group, request.plural), request.namespace, request.name) is None


def _has(values: Any, wanted: str) -> bool:
    return "*" in (values or []) or wanted in (values or [])


def _covers(resources: list[str], resource: str, sub: str) -> bool:
    return "*" in resources or resource in resources or (bool(sub) and f"*/{sub}" in resources)


def _is(subject: Object, user: User, binding: Object) -> bool:
    if subject["kind"] == "ServiceAccount":
        space = subject.get("namespace") or binding["metadata"].get("namespace", "")
        return user.name == f"system:serviceaccount:{space}:{subject['name']}"
    if subject["kind"] == "Group":
        return subject["name"] in user.groups
    return bool(subject["name"] == user.name)


def _denied(request: Request, verb: str) -> StatusError:
    resource = f"{request.plural}/{request.sub}" if request.sub else request.plural
    where = f' in the namespace "{request.namespace}"' if request.namespace else " at the cluster scope"
    told = f'User "{request.user.name}" cannot {verb} resource "{resource}" in API group "{request.group}"{where}'
    shown = f"{request.plural}.{request.group}" if request.group else request.plural
    named = f' "{request.name}"' if request.name else ""
    details = {"name": request.name, "group": request.group, "kind": request.plural}
    details = {key: value for key, value in details.items() if value}
    return StatusError(403, "Forbidden", f"{shown}{named} is forbidden: {told}", details)
