"""An HTTP client that takes little from the CPUs that it measures: ready-made requests over kept connections.

General clients cost several times as much per request; here httptools parses, uvloop moves the bytes, and
nothing else is done until the answer is complete.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from time import perf_counter
from typing import Any

import httptools

from headgate.engine.demo.models import Floats

ERROR, TIMEOUT, UNSENT = 0, -1, -2
"""Outcomes without an HTTP status: connection failed, no answer in time, the run ended before."""

Sink = Callable[[int, int, bytes, float], None]
"""Receives a request's token, its status or one of the outcomes above, the body, and the time (perf_counter)."""

# Shorter than any server's keep-alive timeout, so that no request meets a connection that is being closed.
_IDLE = 2.0


def infer_request(pipeline: str, input_name: str, rows: Floats, output: str = "label") -> bytes:
    """An HTTP request with `rows` as a binary tensor of the Open Inference Protocol; the answer is binary too."""
    data = rows.astype("<f4").tobytes()
    header = json.dumps(
        {
            "inputs": [
                {
                    "name": input_name,
                    "datatype": "FP32",
                    "shape": list(rows.shape),
                    "parameters": {"binary_data_size": len(data)},
                }
            ],
            "outputs": [{"name": output, "parameters": {"binary_data": True}}],
        }
    ).encode()
    lines = (
        f"POST /v2/models/{pipeline}/infer HTTP/1.1",
        "Host: headgate-demo",
        "Content-Type: application/octet-stream",
        f"Inference-Header-Content-Length: {len(header)}",
        f"Content-Length: {len(header) + len(data)}",
    )
    return "\r\n".join((*lines, "", "")).encode() + header + data


class Client:
    """Sends requests, each on a connection of its own while it lasts, and reports how they ended."""

    def __init__(self, host: str, port: int, timeout: float, sink: Sink) -> None:
        self.host, self.port, self.timeout, self.sink = host, port, timeout, sink
        self.in_flight: dict[int, tuple[float, Connection | None]] = {}
        """Token -> (when it times out, its connection once there is one)."""
        self._free: list[Connection] = []
        self._opening: set[asyncio.Task[None]] = set()

    def send(self, token: int, payload: bytes, since: float) -> None:
        """Send `payload`; it times out `timeout` seconds after `since` (perf_counter)."""
        deadline = since + self.timeout
        while self._free:
            connection = self._free.pop()
            if connection.usable(perf_counter()):
                self.in_flight[token] = (deadline, connection)
                connection.send(token, payload)
                return
            connection.close()
        self.in_flight[token] = (deadline, None)
        task = asyncio.get_running_loop().create_task(self._open(token, payload))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def warm(self, count: int) -> None:
        """Open `count` connections in advance."""
        loop = asyncio.get_running_loop()
        for _ in range(count):
            _, connection = await loop.create_connection(lambda: Connection(self), self.host, self.port)
            self._free.append(connection)

    async def idle(self) -> None:
        """Wait until every request has ended, in time or not."""
        while self.in_flight:
            self.sweep()
            await asyncio.sleep(0.01)

    def sweep(self) -> None:
        """Give up what has timed out and close what has idled too long."""
        now = perf_counter()
        for token, (deadline, connection) in list(self.in_flight.items()):
            if deadline < now:
                self.finish(token, TIMEOUT, b"", now)
                if connection is not None:
                    connection.token = None
                    connection.close()
        stale = [connection for connection in self._free if not connection.usable(now)]
        self._free = [connection for connection in self._free if connection.usable(now)]
        for connection in stale:
            connection.close()

    async def close(self) -> None:
        """Close every connection; what is in flight gets no outcome."""
        for task in list(self._opening):
            task.cancel()
        await asyncio.gather(*self._opening, return_exceptions=True)
        for _, connection in self.in_flight.values():
            if connection is not None:
                connection.token = None
                connection.close()
        for connection in self._free:
            connection.close()
        await asyncio.sleep(0)

    def finish(self, token: int, status: int, body: bytes, now: float) -> None:
        """Report how `token` ended, unless it was given up before."""
        if self.in_flight.pop(token, None) is not None:
            self.sink(token, status, body, now)

    def release(self, connection: Connection) -> None:
        """Take a connection back for the next request."""
        self._free.append(connection)

    async def _open(self, token: int, payload: bytes) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(lambda: Connection(self), self.host, self.port)
        except OSError:
            self.finish(token, ERROR, b"", perf_counter())
            return
        waiting = self.in_flight.get(token)
        if waiting is None:
            self._free.append(connection)
            return
        self.in_flight[token] = (waiting[0], connection)
        connection.send(token, payload)


class Connection(asyncio.Protocol):
    """One kept connection with at most one request on it."""

    __slots__ = ("_body", "_client", "_parser", "_since", "_transport", "token")

    def __init__(self, client: Client) -> None:
        self.token: int | None = None
        self._client = client
        self._transport: Any = None
        self._since = perf_counter()
        self._parser = httptools.HttpResponseParser(self)
        self._body = bytearray()

    def usable(self, now: float) -> bool:
        """Whether a request may be sent on it at `now`."""
        return now - self._since < _IDLE and self._transport is not None and not self._transport.is_closing()

    def send(self, token: int, payload: bytes) -> None:
        """Send one request."""
        self.token = token
        self._transport.write(payload)

    def close(self) -> None:
        """Drop the connection with whatever is on it."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """See asyncio.Protocol."""
        if self.token is not None:
            self._client.finish(self.token, ERROR, b"", perf_counter())
            self.token = None

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.close()

    def on_body(self, body: bytes) -> None:
        """See httptools.HttpResponseParser."""
        self._body += body

    def on_message_complete(self) -> None:
        """See httptools.HttpResponseParser."""
        now = perf_counter()
        token, self.token, self._since = self.token, None, now
        status, body = self._parser.get_status_code(), bytes(self._body)
        keep = self._parser.should_keep_alive()
        # A parser that has seen one answer carries on with the next one of the same connection.
        self._body.clear()
        if keep:
            self._client.release(self)
        else:
            self._transport.close()
        if token is not None:
            self._client.finish(token, status, body, now)
