"""CPU used by pods, from the Kubernetes metrics API (metrics-server): a fallback where there is no Prometheus."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config import ConfigException
from pydantic import Field
from urllib3.exceptions import HTTPError

from headgate.core.config import FilePath, Model, Seconds
from headgate.core.hookspecs import SourceError
from headgate.core.model import Sample
from headgate.core.units import parse_duration

_MOST_BYTES = 64 * 2**20
_MOST_NAMES = 4000
"""Characters of the names in one request."""
_ROUTER = "/router"
_PROXIES = frozenset({"istio-proxy", "queue-proxy"})
"""What stands beside a router's container, whose own name is its graph's or Knative's."""
_EXPONENT = {"n": -9, "u": -6, "m": -3}


class KubernetesSettings(Model):
    """Which cluster, and which pods belong to a pipeline."""

    kubeconfig: FilePath | None = Field(default=None, description="By default the pod's own account, else ~/.kube")
    context: str | None = None
    namespace: str | None = Field(default=None, description="By default all that the account may see")
    label: str = Field(default="serving.kserve.io/inferenceservice", description="Pod label that names the service")
    component: str = Field(
        default="component", description="Pod label of the part: a pipeline is namespace/service, or .../part"
    )
    main: str = Field(default="predictor", description="Part that the service's own name stands for")
    graph: str = Field(
        default="serving.kserve.io/inferencegraph", description="Pod label of a graph's router: namespace/graph/router"
    )
    names: Mapping[str, str] = Field(default_factory=dict, description="Pipeline to another name of it")
    container: str | None = Field(default=None, description="Count this container only; by default all of the pod")
    timeout: Annotated[Seconds, Field(gt=0)] = 5.0


class KubernetesSource:
    """One list of all services, one of all routers. A sample is as old as the oldest of its pods' measurements."""

    def __init__(self, settings: KubernetesSettings, pipelines: Sequence[str]) -> None:
        self._settings = settings
        self._named = {settings.names.get(name, name): name for name in pipelines}
        self._client = _client(settings)
        self._api = client.CustomObjectsApi(self._client)

    def read(self, now: float) -> Iterator[Sample]:  # noqa: ARG002 - the API says when it measured
        """CPU seconds of each pipeline. Raises SourceError."""
        pods: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
        for item in self._items():
            try:
                name = self._pipeline(item["metadata"])
                if name is not None:
                    pods[name].append(self._usage(item))
            except (LookupError, TypeError, ValueError, ArithmeticError) as error:
                pod = item.get("metadata", {}).get("name", "?") if isinstance(item, dict) else "?"
                raise SourceError(f"metrics of pod {pod} cannot be read: {type(error).__name__} {error}") from None
        for name, usages in pods.items():
            window = max(window for _, window, _ in usages)
            cores = sum(cores for _, _, cores in usages)
            yield Sample(name, min(time for time, _, _ in usages), window, cpu_seconds=cores * window)

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()  # type: ignore[no-untyped-call]

    def _pipeline(self, meta: Mapping[str, Any]) -> str | None:
        """Whose pod it is: "namespace/service", "namespace/service/part", or the service's bare name for all of it."""
        labels, settings = meta.get("labels") or {}, self._settings
        if settings.graph in labels:
            return self._named.get(f"{meta.get('namespace', '')}/{labels[settings.graph]}{_ROUTER}")
        service, part = labels.get(settings.label, ""), labels.get(settings.component, settings.main)
        full = f"{meta.get('namespace', '')}/{service}" + ("" if part == settings.main else f"/{part}")
        return self._named.get(full) or self._named.get(service)

    def _items(self) -> list[Any]:
        routers = {name.split("/")[1] for name in self._named if name.endswith(_ROUTER)}
        services = {name.split("/")[1] if "/" in name else name for name in self._named if not name.endswith(_ROUTER)}
        asked = ((self._settings.label, services), (self._settings.graph, routers))
        return [item for label, names in asked if names for item in self._list(label, ",".join(sorted(names)))]

    def _list(self, label: str, services: str) -> list[Any]:
        options: dict[str, Any] = {
            # Too many for a URL: all, of which those that are not asked for are skipped.
            "label_selector": f"{label} in ({services})" if len(services) <= _MOST_NAMES else label,
            "_preload_content": False,  # the typed models refuse what they do not know
            "_request_timeout": self._settings.timeout,
        }
        path = ("metrics.k8s.io", "v1beta1")
        answer: Any
        try:
            if self._settings.namespace:
                answer = self._api.list_namespaced_custom_object(*path, self._settings.namespace, "pods", **options)
            else:
                answer = self._api.list_cluster_custom_object(*path, "pods", **options)
            body = answer.read(_MOST_BYTES + 1)
            answer.release_conn()
        except ApiException as error:
            raise SourceError(f"the metrics API answers HTTP {error.status}: {_said(error)}") from None
        except (HTTPError, OSError) as error:
            raise SourceError(f"the Kubernetes API cannot be reached: {type(error).__name__}") from None
        except ValueError:
            # Its text would quote the header, and so the token.
            raise SourceError("the credentials cannot be sent: is there a line break or such in the token?") from None
        if len(body) > _MOST_BYTES:
            raise SourceError(f"the metrics API's answer is longer than {_MOST_BYTES // 2**20} MiB")
        try:
            return list(json.loads(body)["items"])
        except (ValueError, LookupError, TypeError):
            raise SourceError("the metrics API's answer is not a list of pod metrics") from None

    def _usage(self, item: Mapping[str, Any]) -> tuple[float, float, float]:
        """When it was measured, over how many seconds, and how many CPUs were used."""
        wanted = self._settings.container
        router = self._settings.graph in (item["metadata"].get("labels") or {})
        cores = sum(
            _cores(c["usage"]["cpu"])
            for c in item["containers"]
            if wanted is None or (c["name"] not in _PROXIES if router else c["name"] == wanted)
        )
        return datetime.fromisoformat(item["timestamp"]).timestamp(), parse_duration(item["window"]), cores


def _client(settings: KubernetesSettings) -> client.ApiClient:
    configuration = client.Configuration()
    try:
        if settings.kubeconfig is None and settings.context is None:
            config.load_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        else:
            load = config.load_kube_config
            load(settings.kubeconfig, settings.context, configuration)  # type: ignore[no-untyped-call]
    except (ConfigException, OSError) as error:
        raise SourceError(f"no Kubernetes cluster is known: {error}") from None
    configuration.retries = 1
    return client.ApiClient(configuration)


def _said(error: ApiException) -> str:
    try:
        return str(json.loads(error.body or "")["message"])[:300]
    except (ValueError, LookupError, TypeError):
        return str(error.reason)[:300]


def _cores(quantity: str) -> float:
    """CPUs of a measured quantity, not rounded up to millicores as a request would be: "1500000n", "2m", "1"."""
    number, suffix = (quantity[:-1], quantity[-1]) if quantity[-1:] in _EXPONENT else (quantity, "")
    return float(Decimal(number).scaleb(_EXPONENT.get(suffix, 0)))
