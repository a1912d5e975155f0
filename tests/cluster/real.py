"""A real control plane: etcd and kube-apiserver from the folder that KUBEBUILDER_ASSETS names, as envtest runs them.

Where that folder has them too, a controller manager, a scheduler and kubelets: `kubelet-fakecri` is a kubelet's own
code over a container runtime that only keeps books, as kubemark's hollow nodes are. It takes its size and the CPU
manager's policy from FAKE_CPUS and FAKE_CPU_MANAGER_POLICY.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import urllib3

from .client import APIS, CLUSTER_WIDE, Client
from .double.requests import User

Object = dict[str, Any]
_START = 60.0
_CLEANED = (
    *(
        "inferenceservices",
        "inferencegraphs",
        "servingruntimes",
        "revisions",
        "scaledobjects",
        "verticalpodautoscalers",
    ),
    *("machinedeployments", "cpubudgets", "deployments", "replicasets", "statefulsets", "horizontalpodautoscalers"),
    *("poddisruptionbudgets", "pods", "resourcequotas", "limitranges", "leases", "events", "configmaps", "roles"),
    *("rolebindings", "secrets", "serviceaccounts"),
)


SERVER = ("etcd", "kube-apiserver")
OTHERS = ("kube-controller-manager", "kube-scheduler", "kubelet-fakecri")


def assets(programs: Sequence[str] = SERVER) -> Path | None:
    """Where the binaries are; None: not all of them are there."""
    named = os.environ.get("KUBEBUILDER_ASSETS", "")
    folder = Path(named)
    there = named and all((folder / name).is_file() for name in programs)
    return folder if there else None


class ControlPlane:
    """Runs from its making until `close`. Everybody has a token; RBAC is enforced."""

    real = True
    faults = None

    def __init__(self, folder: Path, tokens: Mapping[str, User], nodes: Mapping[str, int] | None = None) -> None:
        """`nodes`: CPUs by name of nodes with kubelets, and with them the other programs of a cluster."""
        self.inhabited = nodes is not None
        self._state = tempfile.TemporaryDirectory(prefix="headgate-cluster-")
        self._here = Path(self._state.name)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._admin = secrets.token_hex(16)
        self._write_credentials(tokens)
        try:
            self._run(folder)
            if nodes is not None:
                self._inhabit(folder, nodes)
        except BaseException:
            self.close()
            raise
        self._pool = urllib3.PoolManager(maxsize=16, ca_certs=str(self._here / "apiserver.crt"), retries=False)

    def client(self, agent: str = "test", shared: bool = False) -> Client:
        return Client(self._sender(self._admin, agent))

    def as_user(self, token: str) -> Client:
        return Client(self._sender(token, "test"))

    def revision(self) -> str:
        return ""

    def kubeconfig(self, token: str = "") -> Object:
        from .harness import kubeconfig

        cluster = {"server": self.address, "certificate-authority": str(self._here / "apiserver.crt")}
        return kubeconfig(cluster, {"token": token or self._admin})

    def install(self, definitions: Sequence[Object]) -> None:
        client = self.client("install")
        for definition in definitions:
            client.apply("customresourcedefinitions", definition, "install", force="true")

    def settle(self) -> None:
        """Let the server's own caches (nodes, limits, roles) see what was written."""
        time.sleep(0.5)

    def clean(self) -> None:
        """Take away what a test left, in all namespaces."""
        client = self.client("clean")
        for plural in _CLEANED:
            code, found = client.send("GET", _all(plural), None, "application/json")
            if code != 200:
                continue
            for item in found["items"]:
                meta = item["metadata"]
                if meta.get("namespace", "").startswith("kube-") or meta["name"].startswith(("system:", "kube-")):
                    continue
                if meta.get("finalizers"):
                    client.patch(plural, meta["name"], meta["namespace"], {"metadata": {"finalizers": None}})
                client.delete(plural, meta["name"], meta["namespace"], grace=0 if plural == "pods" else None)
        for item in client.list("nodes"):
            if not self.inhabited:  # a kubelet does not register a second time
                client.delete("nodes", item["metadata"]["name"])
        for plural in ("clusterrolebindings", "clusterroles"):
            for item in client.list(plural):
                meta = item["metadata"]
                if "kubernetes.io/bootstrapping" not in (meta.get("labels") or {}) and not meta["name"].startswith(
                    "sys"
                ):
                    client.delete(plural, meta["name"])

    def close(self) -> None:
        for process in reversed(self._processes):
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes = []
        self._state.cleanup()

    def _write_credentials(self, tokens: Mapping[str, User]) -> None:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import rsa

        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        form = (serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
        (self._here / "sa.key").write_bytes(key.private_bytes(serialization.Encoding.PEM, *form))
        rows = [f'{self._admin},admin,admin,"system:masters"']
        rows += [f'{token},{user.name},{user.name},"{",".join(user.groups)}"' for token, user in tokens.items()]
        (self._here / "tokens.csv").write_text("\n".join(rows) + "\n")

    def _run(self, folder: Path) -> None:
        store, peer, port = _free_ports(3)
        here = self._here
        self._start(
            folder / "etcd",
            f"--data-dir={here}/etcd",
            f"--listen-client-urls=http://127.0.0.1:{store}",
            f"--advertise-client-urls=http://127.0.0.1:{store}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        )
        self._start(
            folder / "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{store}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={port}",
            f"--cert-dir={here}",
            "--endpoint-reconciler-type=none",
            f"--token-auth-file={here}/tokens.csv",
            "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={here}/sa.key",
            f"--service-account-signing-key-file={here}/sa.key",
            "--service-cluster-ip-range=10.0.0.0/24",
            # Without a controller manager nobody makes the accounts that it would demand.
            "--disable-admission-plugins=ServiceAccount",
        )
        self.address = f"https://127.0.0.1:{port}"
        self._wait()

    def _inhabit(self, folder: Path, nodes: Mapping[str, int]) -> None:
        manager, scheduler, kubelet = (folder / name for name in OTHERS)
        access = self._here / "kubeconfig"
        access.write_text(json.dumps(self.kubeconfig()))
        common = (f"--kubeconfig={access}", "--leader-elect=false", "--secure-port=0")
        self._start(manager, *common, f"--service-account-private-key-file={self._here}/sa.key")
        self._start(scheduler, *common)
        for (name, cpus), port in zip(nodes.items(), _free_ports(len(nodes)), strict=True):
            (own := self._here / name).mkdir()
            self._start(
                kubelet,
                f"--kubeconfig={access}",
                f"--name={name}",
                f"--kubelet-port={port}",
                "--kubelet-read-only-port=0",
                log=name,
                FAKE_CPUS=str(cpus),
                FAKE_CPU_MANAGER_POLICY="static" if name == "static" else "none",
                FAKE_MEMORY_MIB="16384",
                TMPDIR=str(own),
            )

    def _start(self, program: Path, *arguments: str, log: str = "", **environment: str) -> None:
        guard = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []  # nothing outlives the tests
        with (self._here / f"{log or program.name}.log").open("wb") as file:
            command = [*guard, str(program), *arguments]
            more = {**os.environ, **environment}
            self._processes.append(subprocess.Popen(command, stdout=file, stderr=file, cwd=self._here, env=more))

    def _wait(self) -> None:
        end = time.monotonic() + _START
        while time.monotonic() < end:
            for process in self._processes:
                if process.poll() is not None:
                    raise RuntimeError(f"the control plane ended:\n{self._tails()}")
            certificate = self._here / "apiserver.crt"
            if certificate.is_file():
                with contextlib.suppress(urllib3.exceptions.HTTPError, OSError):
                    pool = urllib3.PoolManager(ca_certs=str(certificate), retries=False)
                    headers = {"Authorization": f"Bearer {self._admin}"}
                    if pool.request("GET", f"{self.address}/readyz", headers=headers, timeout=5).status == 200:
                        return
            time.sleep(0.2)
        raise RuntimeError(f"kube-apiserver is not ready after {_START:.0f} s:\n{self._tails()}")

    def _tails(self) -> str:
        return "\n".join(f"{log.name}: {log.read_text(errors='replace')[-2000:]}" for log in self._here.glob("*.log"))

    def _sender(self, token: str, agent: str) -> Any:
        headers = {"Authorization": f"Bearer {token}", "User-Agent": agent, "Accept": "application/json"}

        def send(method: str, target: str, body: Any, content_type: str) -> tuple[int, Any]:
            data = None if body is None else json.dumps(body).encode()
            answer = self._pool.request(
                method,
                f"{self.address}{target}",
                body=data,
                headers=headers | ({"Content-Type": content_type} if data else {}),
                timeout=30,
            )
            text = answer.data
            try:
                return answer.status, json.loads(text) if text else None
            except ValueError:
                return answer.status, text.decode(errors="replace")

        return send


def _all(plural: str) -> str:
    api = APIS.get(plural, "v1")
    assert plural not in CLUSTER_WIDE
    return f"/apis/{api}/{plural}" if "/" in api else f"/api/{api}/{plural}"


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
