"""The server on a free port of the loopback interface, over plain HTTP/1.1 with kept connections."""

from __future__ import annotations

import json
import socket
import threading
import uuid
from collections.abc import Iterable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml
from tests.cluster.client import Client

from .errors import StatusError, bad_request
from .faults import Faults
from .machine import Machine
from .objects import clone
from .requests import ADMIN, Answer, Request, User, answer, parse
from .store import Store

Object = dict[str, Any]


class ApiServer:
    """Serves until `close`. Options: see Machine."""

    def __init__(self, **options: Any) -> None:
        self.machine = Machine(**options)
        machine = self.machine

        class Handler(_Handler):
            served = machine

        self._http = _Http(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, name="api-server", daemon=True
        )
        self._thread.start()

    @property
    def faults(self) -> Faults:
        return self.machine.faults

    @property
    def store(self) -> Store:
        return self.machine.store

    def client(self, user: User = ADMIN, agent: str = "test", shared: bool = False) -> Client:
        """Requests without HTTP, apart from the faults and the record of what comes by HTTP.

        With `shared` the answers are the store's own objects, not to be changed: for those who read much.
        """

        def send(method: str, target: str, body: Any, content_type: str) -> tuple[int, Any]:
            request = parse(method, target, body=body, content_type=content_type, user=user, agent=agent)
            found = self.machine.answer(request)
            return found.code, found.object if shared else clone(found.object)

        return Client(send)

    def define(self, definitions: Iterable[Object]) -> None:
        """Serve custom resources at once; what is published is large and valid."""
        for found in definitions:
            meta = {**found["metadata"], "uid": str(uuid.uuid4()), "creationTimestamp": self.machine.now()}
            self.store.put(("apiextensions.k8s.io", "customresourcedefinitions"), {**found, "metadata": meta})
            self.machine.registry.define(found)

    def close(self) -> None:
        """Stop at once; open watches end."""
        self.faults.heal()
        self.machine.stop()
        self._http.shutdown()
        self._http.server_close()


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are no concern of the server's."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet for each answer: two would wait for one another
    disable_nagle_algorithm = True
    served: Machine

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class' name
        pass

    def handle_any(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        data = self.rfile.read(length) if length else b""
        try:
            request = self._request(data)
        except StatusError as failure:
            self._send(answer(failure.status(), failure.code))
            return
        found = self.served.handle(request)
        if found is None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        elif found.lines is not None:
            self._stream(found)
        else:
            self._send(found)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any  # noqa: N815 - names that the base class looks up

    def _request(self, data: bytes) -> Request:
        kind = (self.headers.get("Content-Type") or "application/json").partition(";")[0].strip()
        body = read_body(data, kind)
        user = self.served.authority.who(_headers(self.headers))
        return parse(
            self.command,
            self.path,
            body=body,
            content_type=kind,
            agent=self.headers.get("User-Agent", ""),
            user=user,
            remote=True,
        )

    def _send(self, found: Answer) -> None:
        data = found.data
        self.send_response(found.code)
        self.send_header("Content-Type", found.content_type)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, found: Answer) -> None:
        self.send_response(found.code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()
        assert found.lines is not None
        for line in found.lines:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")


def _headers(headers: Any) -> Mapping[str, str]:
    return {key.lower(): value for key, value in headers.items()}


def read_body(data: bytes, kind: str) -> Any:
    """The body of a request. Raises StatusError 400, 415."""
    if not data:
        return None
    if kind == "application/vnd.kubernetes.protobuf":
        raise StatusError(415, "UnsupportedMediaType", f"{kind} is not spoken here")
    try:
        if kind == "application/apply-patch+yaml" and data.lstrip()[:1] not in (b"{", b"["):
            return yaml.safe_load(data)
        return json.loads(data)
    except ValueError as error:
        raise bad_request(f"the object provided is unrecognized: {error}") from None
