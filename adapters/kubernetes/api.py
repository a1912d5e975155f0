"""The API server as plain JSON over the `kubernetes` client's connection and credentials.

Its typed models reject answers that newer servers give; resources that headgate does not own stay as they are sent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import urllib3
from kubernetes import client, config

Object = dict[str, Any]

MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"


@dataclass
class ApiError(Exception):
    """The server answered an error, or did not answer (status 0)."""

    status: int
    message: str
    reason: str = ""

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
    """A connection by a kubeconfig, or by the service account when headgate runs in the cluster."""
    settings = client.Configuration()
    try:
        if kubeconfig is None and context is None:
            config.load_incluster_config(settings)  # type: ignore[no-untyped-call]
        else:
            config.load_kube_config(kubeconfig, context, client_configuration=settings)  # type: ignore[no-untyped-call]
    except config.ConfigException:
        config.load_kube_config(kubeconfig, context, client_configuration=settings)  # type: ignore[no-untyped-call]
    return client.ApiClient(settings)


class Api:
    """Requests with a deadline and without hidden retries: what to repeat is the caller's to know."""

    def __init__(self, connection: client.ApiClient, timeout: float = 10.0) -> None:
        self._connection = connection
        self._timeout = timeout

    def get(self, where: str, **query: str) -> Object:
        """The object at a path. Raises ApiError."""
        return self._send("GET", where, query=query)

    def list(self, where: str, **query: str) -> list[Object]:
        """All objects of a collection, page by page."""
        found: list[Object] = []
        more = ""
        while True:
            page = self.get(where, limit="500", **query, **({"continue": more} if more else {}))
            found += page.get("items") or []
            more = page.get("metadata", {}).get("continue") or ""
            if not more:
                return found

    def patch(self, where: str, body: Mapping[str, Any], kind: str = MERGE) -> Object:
        """The object after a patch. With `metadata.resourceVersion` in it, a change in between is a 409."""
        return self._send("PATCH", where, body, {"Content-Type": kind})

    def create(self, where: str, body: Mapping[str, Any]) -> Object:
        """The object as it was created."""
        return self._send("POST", where, body)

    def delete(self, where: str) -> Object:
        """Ask for a deletion; the object may stay until its finalizers are done."""
        return self._send("DELETE", where)

    def _send(
        self,
        method: str,
        where: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> Object:
        sent = {"Accept": "application/json", "Content-Type": "application/json", **(headers or {})}
        request = self._connection.param_serialize(
            method, where, header_params=sent, body=body, auth_settings=["BearerToken"]
        )
        verb, url, headers_, content, *_ = request
        if query:
            url = f"{url}?{urlencode(query)}"
        try:
            answer = self._connection.call_api(verb, url, headers_, content, _request_timeout=self._timeout)
            data = answer.read()  # type: ignore[no-untyped-call]
        except urllib3.exceptions.HTTPError as error:
            raise ApiError(0, f"{method} {where}: no answer ({type(error).__name__})") from None
        except client.ApiException as error:
            raise ApiError(error.status or 0, f"{method} {where}: {error.reason}") from None
        return self._read(method, where, answer.status, data)

    def _read(self, method: str, where: str, status: int, data: bytes) -> Object:
        try:
            found = json.loads(data) if data else {}
        except ValueError:
            found = {}
        if not isinstance(found, dict):
            found = {}
        if status >= 400:
            message = found.get("message") or "an answer that is not JSON"
            raise ApiError(status, f"{method} {where}: {message}", found.get("reason", ""))
        return found
