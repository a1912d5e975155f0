"""What is asked of the server, and what it answers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

Object = dict[str, Any]


@dataclass(frozen=True)
class User:
    name: str
    groups: tuple[str, ...] = ()


ADMIN = User("admin", ("system:masters", "system:authenticated"))
ANONYMOUS = User("system:anonymous", ("system:unauthenticated",))


@dataclass(frozen=True)
class Request:
    """One request, taken apart."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    content_type: str = "application/json"
    agent: str = ""
    user: User = ADMIN
    group: str = ""
    version: str = ""
    namespace: str = ""
    plural: str = ""
    name: str = ""
    sub: str = ""
    remote: bool = False
    """It came by HTTP."""

    @property
    def verb(self) -> str:
        """As RBAC calls it."""
        if self.method == "GET":
            if self.query.get("watch") in ("true", "1"):
                return "watch"
            return "get" if self.name else "list"
        if self.method == "DELETE":
            return "delete" if self.name else "deletecollection"
        return {"POST": "create", "PUT": "update", "PATCH": "patch"}.get(self.method, self.method.lower())

    @property
    def writes(self) -> bool:
        """Whether it may change anything."""
        return self.method != "GET" and not self.dry_run and self.plural != "selfsubjectaccessreviews"

    @property
    def dry_run(self) -> bool:
        return self.query.get("dryRun") == "All"

    @property
    def manager(self) -> str:
        return self.query.get("fieldManager") or self.agent.partition("/")[0] or "unknown"


@dataclass(frozen=True)
class Answer:
    """A status and an object, or text, or for a watch lines as they come."""

    code: int
    object: Any = None
    """Shared with the store: not to be changed."""
    items: Sequence[bytes] | None = None
    """Of a list, as they are sent; the object's own are left out then."""
    text: str = ""
    lines: Iterator[bytes] | None = None

    @property
    def content_type(self) -> str:
        return "text/plain; charset=utf-8" if self.text else "application/json"

    @property
    def data(self) -> bytes:
        """As it is sent."""
        if self.text:
            return self.text.encode()
        if self.items is None:
            return encode(self.object)
        head = encode({key: value for key, value in self.object.items() if key != "items"})
        return head[:-1] + b',"items":[' + b",".join(self.items) + b"]}"


def encode(found: Any) -> bytes:
    return json.dumps(found, separators=(",", ":")).encode()


def answer(found: Object, code: int = 200) -> Answer:
    return Answer(code, found)


def parse(method: str, target: str, **rest: Any) -> Request:
    """Split a request's target: /api/v1/namespaces/NS/pods/NAME/resize?dryRun=All."""
    url = urlsplit(target)
    parts = [unquote(part) for part in url.path.split("/") if part]
    query = dict(parse_qsl(url.query, keep_blank_values=True))
    group = version = namespace = ""
    if parts[:1] == ["api"]:
        version, parts = (parts[1] if len(parts) > 1 else ""), parts[2:]
    elif parts[:1] == ["apis"]:
        group, version, parts = (*parts[1:3], "", "")[0], (*parts[1:3], "", "")[1], parts[3:]
    else:
        parts = []
    if parts[:1] == ["namespaces"] and len(parts) > 2 and parts[2] not in ("status", "finalize"):
        namespace, parts = parts[1], parts[2:]
    plural, name, sub = [*parts, "", "", ""][:3]
    return Request(
        method,
        url.path,
        query,
        group=group,
        version=version,
        namespace=namespace,
        plural=plural,
        name=name,
        sub=sub,
        **rest,
    )
