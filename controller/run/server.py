"""The probes and what people ask a running controller: /healthz, /readyz, /status, /metrics."""

from __future__ import annotations

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from headgate.controller.run.clock import Clock
from headgate.controller.run.metrics import Metrics
from headgate.controller.run.nodes_status import nodes_status
from headgate.controller.run.opening import Running
from headgate.controller.run.status import rejected_status, status_of
from headgate.core.address import Address

FRESH = 3
"""A turn that succeeded so many intervals ago is fresh."""


class Server:
    """Answers in threads of its own; a client that is slow or silent is dropped after some seconds."""

    def __init__(self, address: Address, running: Running, clock: Clock) -> None:
        """Listens. Raises OSError where that is not possible."""
        self._running = running
        self._clock = clock
        self._metrics = Metrics(running)
        server = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 10

            def do_GET(self) -> None:
                status, kind, body = server.answer(self.path.partition("?")[0])
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Probes every few seconds are no news."""

        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        listener = type("Listener", (ThreadingHTTPServer,), {"address_family": family, "daemon_threads": True})
        self._http: ThreadingHTTPServer = listener((address.host, address.port), Handler)
        host = f"[{address.host}]" if ":" in address.host else address.host
        self.url = f"http://{host}:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, name="headgate-http", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Answer no more."""
        self._http.shutdown()
        self._http.server_close()

    def answer(self, path: str) -> tuple[int, str, bytes]:
        """Status, content type and body of a GET."""
        text = "text/plain; charset=utf-8"
        match path:
            case "/healthz":
                return _probe(self.hanging())
            case "/readyz":
                return _probe(self.unready())
            case "/metrics":
                return 200, "text/plain; version=0.0.4; charset=utf-8", self._metrics.text()
            case "/status":
                body = json.dumps(self.status(), ensure_ascii=False)
                return 200, "application/json", body.encode()
        return 404, text, b"known here: /healthz, /readyz, /status, /metrics\n"

    def hanging(self) -> str | None:
        """Why the process should be started anew."""
        silent = self._clock() - self._running.loop.record.beat
        return f"no sign of life for {silent:.0f} s" if silent > self._running.settings.watchdog else None

    def unready(self) -> str | None:
        """Why it does not do its work, as leader or on standby."""
        record, interval = self._running.loop.record, self._running.settings.interval
        if record.turned is None:
            return record.problem or "no turn yet"
        old = self._clock() - record.turned
        if old > FRESH * interval + 5:
            return f"the last turn that succeeded was {old:.0f} s ago: {record.problem or 'it takes long'}"
        return None

    def status(self) -> dict[str, Any]:
        """Everything, as JSON has it."""
        loop = self._running.loop
        record = loop.record
        budgets = {key: rejected_status(each) for key, each in loop.rejected.items()}
        budgets |= {key: status_of(view) for key, view in loop.views.items()}
        nodes = self._running.nodes
        return {
            **({"nodes": nodes_status(nodes)} if nodes is not None else {}),
            "time": self._clock(),
            "leads": record.leads,
            "turns": record.turns,
            "failed": record.failed,
            "problem": record.problem,
            "budgets": budgets,
        }


def _probe(problem: str | None) -> tuple[int, str, bytes]:
    return (200 if problem is None else 503), "text/plain; charset=utf-8", f"{problem or 'ok'}\n".encode()
