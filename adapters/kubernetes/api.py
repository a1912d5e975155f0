"""The API server as plain JSON over the `kubernetes` client's connection and credentials.

Its typed models reject answers that newer servers give; resources that headgate does not own stay as they are sent.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import urllib3
from kubernetes import client, config

Object = dict[str, Any]

MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY = "application/apply-patch+yaml"
MANAGER = "headgate"
"""Owner of the fields that headgate applies."""


@dataclass(frozen=True, slots=True)
class Cause:
    """One of the causes that the server gives for an error."""

    reason: str
    field: str
    message: str


@dataclass
class ApiError(Exception):
    """The server answered an error, or did not answer (status 0)."""

    status: int
    message: str
    reason: str = ""
    causes: tuple[Cause, ...] = ()

    def __str__(self) -> str:
        return f"{self.status} {self.reason}: {self.message}" if self.status else self.message

    @property
    def retry(self) -> bool:
        """Whether the same request may succeed later. A request without an answer may have had its effect."""
        return self.status in (0, 429) or self.status >= 500


def path(api: str, resource: str, name: str = "", namespace: str = "", subresource: str = "") -> str:
    """The path of a resource; `api` is "v1" or "group/version"."""
    root = f"/api/{api}" if "/" not in api else f"/apis/{api}"
    parts = (*(("namespaces", namespace) if namespace else ()), resource, *filter(None, (name, subresource)))
    return root + "".join(f"/{quote(part, safe='')}" for part in parts)


def connect(kubeconfig: str | None = None, context: str | None = None) -> client.ApiClient:
    """A connection by a kubeconfig, or by the service account when headgate runs in the cluster.

    Raises ValueError that names the file when it cannot be used.
    """
    settings = client.Configuration()
    # By default the client tries three times more, each with a timeout of its own: a write could be made long after
    # the lease was looked at.
    settings.retries = False
    try:
        if kubeconfig is None and context is None:
            config.load_incluster_config(settings)  # type: ignore[no-untyped-call]
        else:
            config.load_kube_config(kubeconfig, context, client_configuration=settings)  # type: ignore[no-untyped-call]
    except config.ConfigException as error:
        if kubeconfig is not None or context is not None:
            named = f"kubeconfig {kubeconfig or 'by default'}" + (f", context {context}" if context else "")
            raise ValueError(f"{named}: {error}") from None
        config.load_kube_config(client_configuration=settings)  # type: ignore[no-untyped-call]
    return client.ApiClient(settings)


class Rate:
    """A token bucket: up to `burst` requests at once, `rate` a second over time. Callers wait their turn."""

    def __init__(
        self,
        rate: float,
        burst: int,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rate, self._burst = rate, burst
        self._clock, self._sleep = clock, sleep
        self._tokens, self._since = float(burst), clock()
        self._lock = threading.Lock()

    def take(self) -> None:
        """Return when one more request is due."""
        with self._lock:
            now = self._clock()
            self._tokens = min(self._burst, self._tokens + (now - self._since) * self._rate) - 1
            self._since = now
            wait = -self._tokens / self._rate
        if wait > 0:
            self._sleep(wait)


class Api:
    """Requests with a deadline and without hidden retries: what to repeat is the caller's to know."""

    def __init__(self, connection: client.ApiClient, timeout: float = 10.0, rate: Rate | None = None) -> None:
        self._connection = connection
        self._timeout = timeout
        self._rate = rate
        self._counted: Counter[tuple[str, str]] = Counter()
        address = urlsplit(str(connection.configuration.host))
        self._server = address.netloc.rpartition("@")[2]
        """Host and port."""

    def requests(self) -> Mapping[tuple[str, str], int]:
        """Requests since the start by verb and outcome: the HTTP status, "0" where no answer came."""
        return dict(self._counted)

    def get(self, where: str, **query: str) -> Object:
        """The object at a path. Raises ApiError."""
        return self._send("GET", where, query=query)

    def list(self, where: str, **query: str) -> list[Object]:
        """All objects of a collection."""
        return [item for page in self.pages(where, **query) for item in page]

    def pages(self, where: str, **query: str) -> Iterator[Sequence[Object]]:
        """All objects of a collection, page by page: only one need be in memory.

        They are one snapshot. Where that has expired between two pages, the server's 410 is raised.
        """
        more = ""
        while True:
            page = self.get(where, **{"limit": "500", **query, **({"continue": more} if more else {})})
            if "items" not in page:
                # Half of what there is, taken for all of it, would look like room.
                raise ApiError(0, f"GET {where}: the answer is no list")
            yield page["items"] or []
            more = page.get("metadata", {}).get("continue") or ""
            if not more:
                return

    def patch(self, where: str, body: Any, kind: str = MERGE, **query: str) -> Object:
        """The object after a patch. With `metadata.resourceVersion` in it, a change in between is a 409."""
        return self._send("PATCH", where, body, {"Content-Type": kind}, query)

    def apply(self, where: str, body: Mapping[str, Any], **query: str) -> Object:
        """Server-side apply, never forced: a 409 whose causes name the fields that somebody else owns."""
        return self.patch(where, body, APPLY, fieldManager=MANAGER, **query)

    def replace(self, where: str, body: Mapping[str, Any], **query: str) -> Object:
        """The object as it replaced what was there."""
        return self._send("PUT", where, body, query=query)

    def create(self, where: str, body: Mapping[str, Any]) -> Object:
        """The object as it was created."""
        return self._send("POST", where, body)

    def delete(self, where: str) -> Object:
        """Ask for a deletion; the object may stay until its finalizers are done."""
        return self._send("DELETE", where)

    def close(self) -> None:
        """Give the connections back."""
        self._connection.close()  # type: ignore[no-untyped-call]

    def _send(
        self,
        method: str,
        where: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> Object:
        sent = {"Accept": "application/json", "Content-Type": "application/json", **(headers or {})}
        request = self._connection.param_serialize(
            method, where, header_params=sent, body=body, auth_settings=["BearerToken"]
        )
        verb, url, headers_, content, *_ = request
        if self._rate is not None:
            self._rate.take()
        if query:
            url = f"{url}?{urlencode(query)}"
        outcome = 0
        try:
            answer = self._connection.call_api(verb, url, headers_, content, _request_timeout=self._timeout)
            data = answer.read()  # type: ignore[no-untyped-call]
            outcome = answer.status
        except urllib3.exceptions.HTTPError as error:
            raise ApiError(0, f"{method} {where}: no answer from {self._server} ({_cause(error)})") from None
        except ValueError:
            # Its text would quote the header, and so the token.
            text = f"{method} {where}: the credentials cannot be sent: is there a line break or such in the token?"
            raise ApiError(0, text) from None
        except client.ApiException as error:
            raise ApiError(error.status or 0, f"{method} {where}: {error.reason}") from None
        finally:
            self._counted[method, str(outcome)] += 1
        return self._read(method, where, answer.status, data)

    def _read(self, method: str, where: str, status: int, data: bytes) -> Object:
        try:
            found = json.loads(data)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            if status < 400:
                # A gateway's page. Whoever got {} for it would take it for an object, or for an empty cluster.
                raise ApiError(
                    0, f"{method} {where}: the answer is not the API server's (HTTP {status}, no JSON object)"
                )
            found = {}
        if status >= 400:
            message = found.get("message") or "an answer that is not JSON"
            listed = (found.get("details") or {}).get("causes") or []
            causes = tuple(Cause(c.get("reason", ""), c.get("field", ""), c.get("message", "")) for c in listed)
            raise ApiError(status, f"{method} {where}: {message}", found.get("reason", ""), causes)
        return found


def _cause(error: BaseException) -> str:
    """What was in the way, in words; the client's own texts show objects' addresses and stacks of causes."""
    name = type(error).__name__
    seen = 0
    while (inner := getattr(error, "reason", None) or error.__cause__ or error.__context__) and seen < 9:
        if not isinstance(inner, BaseException):
            break
        error, seen = inner, seen + 1
    said = getattr(error, "strerror", None) or getattr(error, "verify_message", None)
    return str(said or (name if not seen else type(error).__name__))
