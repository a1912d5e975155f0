"""One harness for each node provider: the provider, and hands on the infrastructure behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Protocol

import pytest
from tests.cluster.crds import plain
from tests.cluster.double import ApiServer
from tests.cluster.double.faults import matching
from tests.contract.strict_aws import SECRET, StrictAws

from headgate.adapters.infrastructure.aws import AwsGroup, AwsProvider, AwsSettings, connect
from headgate.adapters.infrastructure.capacity import (
    BUFFER_API,
    RELEASED,
    CapacityGroup,
    CapacityProvider,
)
from headgate.adapters.infrastructure.dry import DryProvider
from headgate.adapters.infrastructure.scale import CAPI_DELETE, ScaleGroup, ScaleProvider
from headgate.adapters.kubernetes.api import Api
from headgate.controller.nodes.virtual import VirtualCluster, VirtualGroup
from headgate.core.model import Infeasible
from headgate.core.nodes.model import NodeInfo
from headgate.core.providers import NodeProvider, NodeTemplate, ProviderGroup, Unavailable

MINIMUM, MAXIMUM = 1, 6


class Harness(Protocol):
    """A group "pool" with the given machines running, minimum 1, maximum 6."""

    provider: NodeProvider

    def settle(self) -> None:
        """Let time pass: what was asked for runs, what was deleted is gone."""

    def down(self) -> None:
        """From now on the infrastructure does not answer."""

    def lose_answers(self, times: int) -> None:
        """Of the next `times` changing requests the effect takes place and the answer is lost."""

    def own_by_another(self) -> bool:
        """Another autoscaler takes the group over; False: that cannot be."""

    def close(self) -> None: ...


class Dry:
    def __init__(self, size: int) -> None:
        self.provider: Any = DryProvider.of([ProviderGroup("pool", size, MINIMUM, MAXIMUM)])

    def settle(self) -> None:
        self.provider.arrive("pool")

    def down(self) -> None:
        raise Infeasible("a provider without infrastructure is always up")

    def lose_answers(self, times: int) -> None:
        """There is nothing between the caller and the effect."""

    def own_by_another(self) -> bool:
        return False

    def close(self) -> None: ...


class Virtual(Dry):
    def __init__(self, size: int) -> None:
        self.provider = VirtualCluster({"pool": VirtualGroup("pool", NodeTemplate(4000), MINIMUM, MAXIMUM)})
        for index in range(size):
            self.provider.add_node(NodeInfo(f"n{index}", 4000, "pool"))

    def settle(self) -> None:
        self.provider.advance(self.provider.now + 1000)

    def down(self) -> None:
        self.provider.fault = lambda *_: Unavailable("no answer")


class OnApiServer:
    """What the harnesses on the double of the API server share. Its pages are short, so that all have to be read."""

    def __init__(self, *definitions: dict[str, Any]) -> None:
        from kubernetes import client

        self.server = ApiServer(page=2)
        self.server.define(definitions)
        self.client = self.server.client()
        for name in ("capi", "headgate"):
            self.client.create("namespaces", {"metadata": {"name": name}})
        settings = client.Configuration(host=self.server.address)
        settings.api_key = {"authorization": f"Bearer {SECRET}"}
        settings.retries = False
        self.api = Api(client.ApiClient(settings), timeout=5)
        self.count = 0

    def drop(self, plural: str, name: str, namespace: str = "") -> None:
        """Whatever its finalizers wait for is done."""
        self.client.patch(plural, name, namespace, {"metadata": {"finalizers": None}})
        self.client.delete(plural, name, namespace)

    def down(self) -> None:
        self.server.faults.fail(matching(), 503, times=-1)

    def lose_answers(self, times: int) -> None:
        self.server.faults.drop(matching("write"), times=times)

    def close(self) -> None:
        self.server.close()


class ClusterApi(OnApiServer):
    """A MachineDeployment and the controller that follows it: marked machines go first, else the newest."""

    def __init__(self, size: int) -> None:
        group, version = "cluster.x-k8s.io", "v1beta2"
        super().__init__(
            plain(group, version, "MachineDeployment", "machinedeployments", scale=True),
            plain(group, version, "Machine", "machines"),
        )
        self.client.create("machinedeployments", {"metadata": {"name": "md"}, "spec": {"replicas": size}}, "capi")
        self.settle()
        pool = ScaleGroup(
            name="pool", minimum=MINIMUM, maximum=MAXIMUM, kind="MachineDeployment", object="md", namespace="capi"
        )
        self.provider: NodeProvider = ScaleProvider(self.api, [pool])

    def settle(self) -> None:
        wanted = self.client.get("machinedeployments", "md", "capi")["spec"]["replicas"]
        machines = self.client.list("machines", "capi")
        marked = sorted(machines, key=lambda m: not (m["metadata"].get("annotations") or {}).get(CAPI_DELETE))
        for machine in marked[: max(0, len(machines) - wanted)]:
            self.drop("machines", machine["metadata"]["name"], "capi")
        for _ in range(wanted - len(machines)):
            self.count += 1
            meta = {"name": f"md-{self.count}", "labels": {"cluster.x-k8s.io/deployment-name": "md"}}
            self.client.create("machines", {"metadata": meta}, "capi")
            status = {"phase": "Running", "nodeRef": {"name": f"node-{meta['name']}"}}
            self.client.status("machines", f"md-{self.count}", "capi", status)

    def own_by_another(self) -> bool:
        key = "cluster.x-k8s.io/cluster-api-autoscaler-node-group-max-size"
        self.client.patch("machinedeployments", "md", "capi", {"metadata": {"annotations": {key: "9"}}})
        return True


class Karpenter(OnApiServer):
    """A static NodePool; a deleted NodeClaim stays, with its deletionTimestamp, until its finalizer is done."""

    def __init__(self, size: int) -> None:
        group, version = "karpenter.sh", "v1"
        super().__init__(
            plain(group, version, "NodePool", "nodepools", scope="Cluster", scale=True),
            plain(group, version, "NodeClaim", "nodeclaims", scope="Cluster"),
        )
        self.client.create("nodepools", {"metadata": {"name": "static"}, "spec": {"replicas": size}})
        self.settle()
        pool = ScaleGroup(name="pool", minimum=MINIMUM, maximum=MAXIMUM, kind="NodePool", object="static")
        self.provider: NodeProvider = ScaleProvider(self.api, [pool])

    def settle(self) -> None:
        for claim in self.client.list("nodeclaims"):
            if claim["metadata"].get("deletionTimestamp"):
                self.drop("nodeclaims", claim["metadata"]["name"])
        wanted = self.client.get("nodepools", "static")["spec"]["replicas"]
        claims = self.client.list("nodeclaims")
        for claim in claims[: max(0, len(claims) - wanted)]:
            self.drop("nodeclaims", claim["metadata"]["name"])
        for _ in range(wanted - len(claims)):
            self.count += 1
            name = f"static-{self.count}"
            labels, finalizers = {"karpenter.sh/nodepool": "static"}, ["karpenter.sh/termination"]
            meta = {"name": name, "labels": labels, "finalizers": finalizers}
            self.client.create("nodeclaims", {"metadata": meta})
            self.client.status("nodeclaims", name, "", {"nodeName": f"node-{name}"})

    def own_by_another(self) -> bool:
        self.client.patch("nodepools", "static", "", {"spec": {"replicas": None}})
        return True


class Capacity(OnApiServer):
    """A cluster whose own autoscaler brings a node for each unit of room and removes nodes that were released."""

    def __init__(self, size: int, buffers: bool) -> None:
        group, _, version = BUFFER_API.partition("/")
        super().__init__(*([plain(group, version, "CapacityBuffer", "capacitybuffers")] if buffers else []))
        self.requests = f"{BUFFER_API}/capacitybuffers" if buffers else "deployments"
        for _ in range(size):
            self._node()
        pool = CapacityGroup(name="pool", minimum=MINIMUM, maximum=MAXIMUM, template={"cpu": "4"}, node_label="pool=a")
        self.provider = CapacityProvider(self.api, [pool])

    def _node(self) -> None:
        self.count += 1
        self.client.create("nodes", {"metadata": {"name": f"n{self.count}", "labels": {"pool": "a"}}})

    def settle(self) -> None:
        for node in self.client.list("nodes"):
            if RELEASED in (node["metadata"].get("annotations") or {}):
                self.client.delete("nodes", node["metadata"]["name"])
        for request in self.client.list(self.requests, "headgate"):
            for _ in range(request["spec"]["replicas"]):
                self._node()
        self.provider.tidy()  # as before the next observation

    def own_by_another(self) -> bool:
        return False


class Aws:
    def __init__(self, size: int, proxy: StrictAws) -> None:
        self.proxy = proxy
        self.proxy.group("asg", size, MINIMUM, MAXIMUM + 2)
        group = AwsGroup(name="pool", minimum=MINIMUM, maximum=MAXIMUM, autoscaling_group="asg")
        self.provider: NodeProvider = AwsProvider(_client(proxy.address), [group])

    def settle(self) -> None:
        self.proxy.settle()

    def down(self) -> None:
        self.proxy.fault = lambda action: 503

    def lose_answers(self, times: int) -> None:
        left = [times]

        def fault(action: str) -> int | None:
            if action.startswith("Describe") or not left[0]:
                return None
            left[0] -= 1
            return 0

        self.proxy.fault = fault

    def own_by_another(self) -> bool:
        self.proxy.tag("asg", "k8s.io/cluster-autoscaler/enabled", "true")
        return True

    def close(self) -> None:
        """The next test begins anew."""


@cache
def _client(address: str) -> Any:
    # Making a client costs a second of CPU; it holds no state of a test.
    group = AwsGroup(name="pool", maximum=1, autoscaling_group="asg")
    return connect(AwsSettings(region="eu-west-1", groups=[group], endpoint=address))


KINDS = ("dry", "virtual", "machine-deployment", "static-node-pool", "aws", "capacity-buffer", "placeholder")


@pytest.fixture(params=KINDS)
def harness(request: pytest.FixtureRequest) -> Iterator[Callable[[int], Harness]]:
    opened: list[Any] = []

    def make(size: int) -> Harness:
        kinds: dict[str, Callable[[], Any]] = {
            "dry": lambda: Dry(size),
            "virtual": lambda: Virtual(size),
            "machine-deployment": lambda: ClusterApi(size),
            "static-node-pool": lambda: Karpenter(size),
            "aws": lambda: Aws(size, request.getfixturevalue("aws")),
            "capacity-buffer": lambda: Capacity(size, buffers=True),
            "placeholder": lambda: Capacity(size, buffers=False),
        }
        opened.append(kinds[request.param]())
        return opened[-1]  # type: ignore[no-any-return]

    yield make
    for one in opened:
        one.close()
