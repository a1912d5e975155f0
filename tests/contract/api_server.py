"""A double of the Kubernetes API server: HTTP, JSON, one store; as strict as the real one where providers touch it.

Like the real one it refuses a patch with a stale resourceVersion (409), answers 404 for what is missing and for APIs
that are not installed, applies merge patches (null removes), keeps an object with a finalizer until that is gone,
serves `scale` as an object of its own kind, and pages its lists.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlparse

Object = dict[str, Any]

SCALED = {"machinedeployments", "nodepools", "deployments"}


class ApiServer:
    """Objects by (api, namespace, resource, name)."""

    def __init__(self, apis: set[str]) -> None:
        self.apis = apis
        self.objects: dict[tuple[str, str, str, str], Object] = {}
        self.version = 1
        self.lock = threading.RLock()
        self.fault: Callable[[str, str], int | None] = lambda *_: None
        """(method, path) -> a status to answer instead; 0: no answer, but the request has its effect."""
        self.requests: list[tuple[str, str, str]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # one packet for each answer: two would wait for one another

            def log_message(self, *_: Any) -> None:
                pass

            def handle_any(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                status, found = server.serve(self.command, self.path, body, self.headers.get("Content-Type", ""))
                if status == 0:
                    self.close_connection = True
                    self.connection.close()
                    return
                data = json.dumps(found).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PATCH = do_DELETE = handle_any  # noqa: N815

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()

    # What tests and emulated controllers do

    def put(self, api: str, resource: str, name: str, body: Object, namespace: str = "") -> Object:
        with self.lock:
            found = json.loads(json.dumps(body))
            found.setdefault("metadata", {})["name"] = name
            if namespace:
                found["metadata"]["namespace"] = namespace
            found["metadata"].setdefault("generation", 1)
            return self._store((api, namespace, resource, name), found)

    def find(self, api: str, resource: str, namespace: str = "") -> list[Object]:
        with self.lock:
            return [o for (a, n, r, _), o in self.objects.items() if (a, n, r) == (api, namespace, resource)]

    def get(self, api: str, resource: str, name: str, namespace: str = "") -> Object | None:
        return self.objects.get((api, namespace, resource, name))

    def drop(self, api: str, resource: str, name: str, namespace: str = "") -> None:
        with self.lock:
            self.objects.pop((api, namespace, resource, name), None)

    # What the network sees

    def serve(self, method: str, target: str, body: Any, kind: str) -> tuple[int, Object]:
        url = urlparse(target)
        with self.lock:
            self.requests.append((method, url.path, kind))
            answer = self.fault(method, url.path)
            if answer is not None and answer != 0:
                return answer, _status(answer, "InternalError", "a fault was asked for")
            done = self._serve(method, url.path, parse_qs(url.query), body, kind)
            return (0, {}) if answer == 0 else done

    def _serve(self, method: str, path: str, query: dict[str, list[str]], body: Any, kind: str) -> tuple[int, Object]:
        api, namespace, resource, name, sub = _split(path)
        if api not in self.apis:
            return 404, {}
        if not resource:
            return 200, {"kind": "APIResourceList", "groupVersion": api}
        if method == "POST":
            return self._create(api, namespace, resource, body)
        if not name:
            return self._list(api, namespace, resource, query)
        key = (api, namespace, resource, name)
        found = self.objects.get(key)
        if found is None or (sub and (sub != "scale" or resource not in SCALED)):
            return 404, _status(404, "NotFound", f'{resource} "{name}" not found')
        if method == "GET":
            return 200, _scale(found) if sub else found
        if method == "DELETE":
            return 200, self._delete(key, found)
        return self._patch(key, found, sub, body, kind)

    def _create(self, api: str, namespace: str, resource: str, body: Object) -> tuple[int, Object]:
        key = (api, namespace, resource, body["metadata"]["name"])
        if key in self.objects:
            return 409, _status(409, "AlreadyExists", f'{resource} "{key[3]}" already exists')
        body["metadata"] |= {"generation": 1, **({"namespace": namespace} if namespace else {})}
        return 201, self._store(key, body)

    def _list(self, api: str, namespace: str, resource: str, query: dict[str, list[str]]) -> tuple[int, Object]:
        found = self.find(api, resource, namespace)
        for wanted in filter(None, query.get("labelSelector", [""])[0].split(",")):
            label, _, value = wanted.partition("=")
            found = [o for o in found if (o["metadata"].get("labels") or {}).get(label) == value]
        start, limit = int(query.get("continue", ["0"])[0]), min(2, int(query.get("limit", ["500"])[0]))
        more = str(start + limit) if start + limit < len(found) else ""
        return 200, {"kind": "List", "metadata": {"continue": more}, "items": found[start : start + limit]}

    def _delete(self, key: tuple[str, str, str, str], found: Object) -> Object:
        if found["metadata"].get("finalizers"):
            found["metadata"].setdefault("deletionTimestamp", "2026-01-01T00:00:00Z")
            return self._store(key, found)
        del self.objects[key]
        return {"kind": "Status", "status": "Success"}

    def _patch(
        self, key: tuple[str, str, str, str], found: Object, sub: str, body: Object, kind: str
    ) -> tuple[int, Object]:
        if kind != "application/merge-patch+json":
            return 415, _status(415, "UnsupportedMediaType", f"{kind} is not for custom resources")
        version = (body.get("metadata") or {}).get("resourceVersion")
        if version is not None and version != found["metadata"]["resourceVersion"]:
            message = f'Operation cannot be fulfilled on {key[2]} "{key[3]}": the object has been modified'
            return 409, _status(409, "Conflict", message)
        if sub:
            body = {"spec": {"replicas": body.get("spec", {}).get("replicas")}}
        changed = _merged(found, body)
        if changed.get("spec") != found.get("spec"):
            changed["metadata"]["generation"] = found["metadata"].get("generation", 1) + 1
        stored = self._store(key, changed)
        return 200, _scale(stored) if sub else stored

    def _store(self, key: tuple[str, str, str, str], found: Object) -> Object:
        self.version += 1
        found["metadata"]["resourceVersion"] = str(self.version)
        self.objects[key] = found
        return found


def _split(path: str) -> tuple[str, str, str, str, str]:
    parts = path.strip("/").split("/")
    api, rest = (parts[1], parts[2:]) if parts[0] == "api" else ("/".join(parts[1:3]), parts[3:])
    namespace = ""
    if rest[:1] == ["namespaces"] and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    resource, name, sub = [*rest, "", "", ""][:3]
    return api, namespace, resource, name, sub


def _merged(old: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    merged = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merged(merged.get(key), value)
    return merged


def _scale(found: Object) -> Object:
    meta = {k: v for k, v in found["metadata"].items() if k in ("name", "namespace", "resourceVersion")}
    replicas = (found.get("spec") or {}).get("replicas", 0)
    return {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": meta, "spec": {"replicas": replicas}}


def _status(code: int, reason: str, message: str) -> Object:
    return {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}
