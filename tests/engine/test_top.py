from __future__ import annotations

import socket
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
from tests.engine.conftest import HEADGATE, Running


def top(url: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*HEADGATE, "top", "--once", "--url", url], check=False, capture_output=True, text=True)


def test_one_table_of_every_pipeline(server: Running) -> None:
    ended = top(server.url)
    assert ended.returncode == 0, ended.stderr
    for name in httpx.get(server.url + "/headgate/status").json()["pipelines"]:
        assert name in ended.stdout


def test_nobody_there_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    ended = top(f"http://127.0.0.1:{port}")
    assert ended.returncode == 1
    assert f"no engine at http://127.0.0.1:{port}" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_somebody_else_there_is_said() -> None:
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as other:
        threading.Thread(target=other.handle_request, daemon=True).start()
        ended = top(f"http://127.0.0.1:{other.server_port}")
    assert ended.returncode == 1
    assert "answers 501: is it headgate?" in ended.stderr


def test_a_wrong_url_is_said() -> None:
    ended = top("nonsense")
    assert ended.returncode == 1
    assert "no engine at nonsense" in ended.stderr
