"""The engine over HTTP: ASGI on uvicorn. The event loop only moves bytes; inferences run in the workers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any

import uvicorn

import headgate
from headgate.engine.control import Control
from headgate.engine.engine import Engine
from headgate.engine.metrics import Metrics
from headgate.engine.oip.errors import OipError
from headgate.engine.oip.response import Headers, Response, error_response, json_response
from headgate.engine.pipeline import VERSION
from headgate.engine.status import status

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

KEEP_ALIVE = 75
"""Seconds that an idle connection stays open: longer than clients' pools keep theirs, so that none is closed while a
request is on its way."""

LINGER = 0.25
"""Seconds after a signal in which new connections are still answered: those that the kernel has accepted already."""

DRAIN_REFUSED = 5.0
"""Seconds for which the rest of a body that was refused is read and thrown away, so that the client reads why."""

_CLOSE: Headers = ((b"connection", b"close"),)
_SERVER_METADATA = {"name": "headgate", "version": headgate.__version__, "extensions": ["binary_tensor_data"]}


class Disconnected(Exception):  # noqa: N818 - what a client does, not a failure
    """The client went away before its request was complete."""


class App:
    """The ASGI application."""

    def __init__(self, engine: Engine, control: Control) -> None:
        self._engine = engine
        self._metrics = Metrics(engine, control)
        self._max_body = engine.settings.max_body
        self.draining = False
        self.active = 0
        """Requests that have not been answered."""
        self._idle = asyncio.Event()
        self._idle.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See https://asgi.readthedocs.io/en/latest/specs/www.html."""
        if scope["type"] != "http":
            return
        self.active += 1
        self._idle.clear()
        try:
            await self._answer(scope, receive, send)
        except Disconnected:
            return
        finally:
            self.active -= 1
            if not self.active:
                self._idle.set()

    async def idle(self) -> None:
        """Wait until every request that came has been answered."""
        await self._idle.wait()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = tuple(scope["path"].strip("/").split("/"))
        body_is_read = scope["method"] in ("GET", "HEAD")
        try:
            if path[:2] == ("v2", "models") and path[-1] == "infer" and len(path) > 3:
                _allow(scope, "POST")
                name = self._model(path[2:-1])
                body, header = await self._body(scope, receive)
                body_is_read = True
                response = await self._infer(name, body, header)
            else:
                response = self._describe(scope, path)
        except OipError as error:
            response = error_response(error)
        await self._send(response, receive, send, body_is_read=body_is_read, head=scope["method"] == "HEAD")

    def _describe(self, scope: Scope, path: tuple[str, ...]) -> Response:
        known = self._page(path)
        _allow(scope, "GET", "HEAD")
        return known()

    def _page(self, path: tuple[str, ...]) -> Callable[[], Response]:
        match path:
            case ("v2",):
                return lambda: json_response(200, _SERVER_METADATA)
            case ("v2", "health", "live"):
                return lambda: json_response(200, {"live": True})
            case ("v2", "health", "ready"):
                return self._ready
            case ("v2", "models", *rest, "ready") if rest:
                self._model(tuple(rest))
                return self._ready
            case ("v2", "models", *rest) if rest:
                name = self._model(tuple(rest))
                return lambda: json_response(200, self._engine.chain(name).metadata())
            case ("headgate", "status"):
                return lambda: json_response(200, status(self._engine))
            case ("metrics",):
                text = ((b"content-type", b"text/plain; version=0.0.4; charset=utf-8"),)
                return lambda: Response(200, self._metrics.text(), text)
        raise OipError(404, "there is nothing at this path; the Open Inference Protocol is at /v2")

    def _ready(self) -> Response:
        if self.draining:
            return json_response(503, {"ready": False, "error": "the server is shutting down"})
        return json_response(200, {"ready": True})

    def _model(self, path: tuple[str, ...]) -> str:
        """The pipeline that `NAME` or `NAME/versions/V` means. Raises OipError 404."""
        match path:
            case (name,):
                return self._engine.chain(name).name
            case (name, "versions", version):
                if version != VERSION:
                    raise OipError(404, f"model {name[:80]!r} has version {VERSION} only")
                return self._engine.chain(name).name
        raise OipError(404, "there is nothing at this path; the Open Inference Protocol is at /v2")

    async def _body(self, scope: Scope, receive: Receive) -> tuple[bytes | bytearray, str | None]:
        """The complete body, and the header that says where its binary part begins."""
        headers: dict[bytes, bytes] = dict(scope["headers"])
        length = headers.get(b"content-length")
        if length is None and b"transfer-encoding" not in headers:
            raise OipError(411, "Content-Length is required")
        if headers.get(b"content-encoding", b"identity") != b"identity":
            raise OipError(415, "compressed requests are not supported: send the body as it is")
        too_large = OipError(413, f"the request is larger than {self._max_body} bytes, the setting max_body")
        if length is not None and int(length) > self._max_body:
            raise too_large
        body: bytes | bytearray = b""
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Disconnected
            chunk, more = message.get("body", b""), message.get("more_body", False)
            if len(body) + len(chunk) > self._max_body:
                raise too_large
            if not body:
                body = chunk
            else:
                body = body if isinstance(body, bytearray) else bytearray(body)
                body += chunk
        header = headers.get(b"inference-header-content-length")
        return body, None if header is None else header.decode("latin-1")

    async def _infer(self, name: str, body: bytes | bytearray, header: str | None) -> Response:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Response] = loop.create_future()

        def resolve(response: Response) -> None:
            if not answer.done():
                answer.set_result(response)

        def reply(response: Response) -> None:
            # After the grace period the loop is closed, and nobody is left to be answered.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(resolve, response)

        self._engine.submit(name, body, header, reply)
        return await answer

    async def _send(self, response: Response, receive: Receive, send: Send, *, body_is_read: bool, head: bool) -> None:
        headers = [*response.headers, (b"content-length", str(len(response.body)).encode())]
        if self.draining or not body_is_read:
            headers += _CLOSE
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        body = b"" if head else response.body
        if not body_is_read:
            # Closing with unread bytes in the socket would reset the connection before the client has read the answer.
            await send({"type": "http.response.body", "body": body, "more_body": True})
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DRAIN_REFUSED):
                    while (await receive()).get("more_body", False):
                        pass
            body = b""
        await send({"type": "http.response.body", "body": body})


def _allow(scope: Scope, *methods: str) -> None:
    if scope["method"] not in methods:
        raise OipError(405, f"{scope['method']} is not allowed here: use {methods[0]}")


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers, which would end the process by the signal again."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.accepting = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.accepting.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve(engine: Engine, control: Control, announce: Callable[[str], None]) -> int:
    """Serve until SIGTERM or SIGINT, then answer what was accepted: 0, or 1 when the grace period did not suffice.

    A second signal ends the process at once. `announce` is called with the URL as soon as requests are accepted.
    Raises OSError when the address cannot be used.
    """
    address = engine.settings.listen
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address.host, address.port))
        host = f"[{address.host}]" if family == socket.AF_INET6 else address.host
        url = f"http://{host}:{listener.getsockname()[1]}"
        app = App(engine, control)
        server = _Server(
            uvicorn.Config(
                app,
                http="httptools",
                loop="uvloop",
                lifespan="off",
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE,
                # The grace period is kept here, where what is unanswered can be counted.
                timeout_graceful_shutdown=1,
            )
        )
        with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
            unanswered = runner.run(_serve(server, app, listener, engine, lambda: announce(url)))
    return 1 if unanswered else 0


async def _serve(
    server: _Server, app: App, listener: socket.socket, engine: Engine, announce: Callable[[], None]
) -> int:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def on_signal(number: int) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    serving = loop.create_task(server.serve(sockets=[listener]))
    await server.accepting.wait()
    announce()
    await stop.wait()
    app.draining = True
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(engine.settings.grace):
            await asyncio.sleep(LINGER)
            await app.idle()
    unanswered = app.active
    server.should_exit = True
    await serving
    return unanswered
