"""A cluster for tests, the double or a real control plane, with what runs in a cluster emulated through its API."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from .client import Client, RequestError
from .crds import all_of_them
from .deployments import Deployments
from .double import ApiServer
from .double.errors import StatusError
from .double.requests import ADMIN, User
from .kserve import KServe
from .kubelet import Kubelets
from .scheduler import schedule

Object = dict[str, Any]

HEADGATE = User("system:serviceaccount:headgate:headgate", ("system:serviceaccounts", "system:authenticated"))
_ADMIN = "admin-t0ken"
_RBAC = "rbac.authorization.k8s.io/v1"
TOKENS = {"headgate-t0ken": HEADGATE, "viewer-t0ken": User("viewer", ("system:authenticated",))}


class Plane(Protocol):
    """A control plane."""

    real: bool
    inhabited: bool
    """Whether kubelets, a scheduler and a controller manager of its own run in it."""

    def client(self, agent: str) -> Client:
        """As an administrator; `agent` is the field manager of what it writes."""

    def as_user(self, token: str) -> Client:
        """As somebody else, by one of TOKENS."""

    def revision(self) -> str:
        """Changes whenever something is written; "": it cannot be told."""

    def kubeconfig(self, token: str = "") -> Object:
        """How to get at it; without a token as an administrator."""

    def install(self, definitions: Sequence[Object]) -> None:
        """Custom resource definitions."""

    def settle(self) -> None:
        """Wait until what was written counts everywhere."""

    def close(self) -> None:
        """Leave nothing behind."""


class Double:
    """The double as a control plane."""

    real = False
    inhabited = False

    def __init__(self) -> None:
        self.server = ApiServer()
        self.server.machine.authority.enforced = True
        self.server.machine.authority.tokens |= {**TOKENS, _ADMIN: ADMIN}
        self.faults = self.server.faults

    def client(self, agent: str = "test") -> Client:
        return self.server.client(agent=agent, shared=agent != "test")

    def as_user(self, token: str) -> Client:
        try:
            user = self.server.machine.authority.who({"authorization": f"Bearer {token}"})
        except StatusError as error:
            refusal = error.code, error.status()
            return Client(lambda *_: refusal)
        return self.server.client(user)

    def revision(self) -> str:
        return str(self.server.store.revision)

    def install(self, definitions: Sequence[Object]) -> None:
        """Without the work of an apply: a test in ten would do nothing else."""
        self.server.define(definitions)

    def settle(self) -> None:
        """It does at once."""

    def kubeconfig(self, token: str = "") -> Object:
        return kubeconfig({"server": self.server.address}, {"token": token or _ADMIN})

    def close(self) -> None:
        self.server.close()


class Cluster:
    """A plane and those who live there: kubelets, scheduler, Deployment and KServe controllers, all stepped."""

    def __init__(self, plane: Any, namespace: str = "models", installed: bool = False) -> None:
        self.plane = plane
        self.real: bool = plane.real
        self.client = plane.client("test")
        self.namespace = namespace
        self.kubelets = Kubelets(plane.client("kubelet"))
        self.kserve = KServe(plane.client("manager"))
        self.deployments = Deployments(plane.client("kube-controller-manager"))
        self._scheduler = plane.client("kube-scheduler")
        self._installed = installed
        self._bound = 0
        self._ended = threading.Event()
        self._life: threading.Thread | None = None

    @property
    def faults(self) -> Any:
        """Of the double."""
        return self.plane.faults

    def install(self) -> None:
        """The custom resource definitions of KServe and its neighbours, and headgate's own."""
        if not self._installed:
            self._installed = True
            definitions = all_of_them()
            self.plane.install(definitions)
            for definition in definitions:
                self._served(definition)

    def _served(self, definition: Object) -> None:
        """Wait until the server has taken a definition up."""
        spec = definition["spec"]
        where = f"{spec['group']}/{spec['versions'][-1]['name']}/{spec['names']['plural']}"
        for _ in range(300):
            try:
                self.client.list(where)
                return
            except RequestError as error:
                if error.code not in (404, 429, 503):
                    raise
                self.plane.settle()
        raise AssertionError(f"{where} is not served")

    def space(self, name: str = "") -> str:
        """A namespace, made where it is not there."""
        name = name or self.namespace
        if self.client.find("namespaces", name) is None:
            self.client.create("namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        return name

    def bind(self, name: str, rules: list[Object], user: str = HEADGATE.name, namespace: str = "") -> None:
        """Let a user do what `rules` say, in a namespace or by default everywhere, beside what he may do already."""
        self._bound += 1
        where = {"namespace": namespace} if namespace else {}
        prefix, kind = ("", "Role") if namespace else ("cluster", "ClusterRole")
        meta = {"name": f"{name}-{self._bound}", **where}
        self.client.create(f"{prefix}roles", {"apiVersion": _RBAC, "kind": kind, "metadata": meta, "rules": rules})
        binding = {
            "apiVersion": _RBAC,
            "kind": f"{kind}Binding",
            "metadata": meta,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": meta["name"]},
            "subjects": [{"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"}],
        }
        self.client.create(f"{prefix}rolebindings", binding)
        self.plane.settle()

    def as_user(self, token: str) -> Client:
        """Requests of somebody who is not the administrator."""
        return self.plane.as_user(token)  # type: ignore[no-any-return]

    def add(self, plural: str, body: Object) -> Object:
        """Create an object, and give it its status where it has one: the server forgets it on creation."""
        found = self.client.create(plural, body)
        meta = found["metadata"]
        if body.get("status"):
            found = self.client.status(plural, meta["name"], meta.get("namespace", ""), body["status"])
        return found

    def step(self, seconds: float = 1.0) -> None:
        """Everybody looks once; `seconds` pass for the kubelets."""
        if self._installed:
            self.kserve.sync()
        if self.plane.inhabited:
            return
        self.deployments.sync()
        schedule(self._scheduler)
        self.kubelets.step(seconds)

    def live(self) -> None:
        """From here on everybody acts by themselves, in real time, until `close`."""

        def run() -> None:
            last = time.monotonic()
            while not self._ended.wait(0.1):
                now = time.monotonic()
                try:
                    self.step(now - last)
                except (RequestError, OSError):
                    continue  # somebody else wrote meanwhile: the next look is a fresh one
                finally:
                    last = now

        self._life = threading.Thread(target=run, name="cluster", daemon=True)
        self._life.start()

    def settle(self, rounds: int = 12) -> None:
        """Until nobody changes anything any more."""
        last = ""
        for _ in range(rounds):
            self.step()
            version = self.plane.revision() or ",".join(self._versions())
            if version == last:
                return
            last = version
        raise AssertionError(f"the cluster did not come to rest in {rounds} rounds")

    def _versions(self) -> list[str]:
        kinds = ("pods", "deployments", "replicasets", *(("inferenceservices",) if self._installed else ()))
        return [one["metadata"]["resourceVersion"] for kind in kinds for one in self.client.list(kind)]

    def pods(self, **labels: str) -> list[Object]:
        """Of all namespaces, by labels ("__" for "/"), in order of their names."""
        selector = ",".join(f"{key.replace('__', '/')}={value}" for key, value in labels.items())
        return self.client.list("pods", **({"labelSelector": selector} if selector else {}))

    def of(self, service: str, component: str = "predictor") -> list[Object]:
        """A service's pods."""
        return self.client.list(
            "pods", labelSelector=f"serving.kserve.io/inferenceservice={service},component={component}"
        )

    def kubeconfig(self, token: str = "") -> Object:
        return self.plane.kubeconfig(token)  # type: ignore[no-any-return]

    def connection(self, token: str = "") -> Any:
        """An ApiClient of the `kubernetes` package."""
        from kubernetes import client, config

        settings = client.Configuration()
        config.load_kube_config_from_dict(self.kubeconfig(token), client_configuration=settings)
        settings.retries = False
        return client.ApiClient(settings)

    def close(self) -> None:
        """The emulated parts stop, and the double; a real plane is its session's."""
        self._ended.set()
        if self._life is not None:
            self._life.join()
        self.kubelets.stop()
        if not self.real:
            self.plane.close()


def kubeconfig(cluster: Object, user: Object) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": "test", "user": user}],
    }


Make = Callable[[], Cluster]
