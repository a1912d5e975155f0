"""Where a cluster's nodes come from: what runs at a cloud or in its controllers, emulated through its API.

Each brings a node for every machine that was asked for and takes the nodes of those away that were given up; `give_up`
of the site is told first, and notes what must not happen.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from headgate.adapters.infrastructure.capacity import BUFFER_API, RELEASED
from headgate.adapters.infrastructure.scale import CAPI_DELETE

from . import builders as make
from .crds import plain
from .harness import Cluster

if TYPE_CHECKING:
    from tests.contract.strict_aws import StrictAws

Object = dict[str, Any]
CAPI = "cluster.x-k8s.io"
KARPENTER = "karpenter.sh"


class Nodes(ABC):
    """One group "pool" of nodes of 4 CPUs."""

    def __init__(self, cluster: Cluster, give_up: Callable[[str], None]) -> None:
        self.cluster, self.client, self.give_up = cluster, cluster.client, give_up
        self.barren = False
        """Whether new machines bring no node."""
        self.failing = False
        """Whether they fail, where they can say so."""
        self.slow = False
        """Whether machines that are given up stay."""
        self.count = 0

    def install(self, *definitions: Object) -> None:
        self.cluster.plane.install(definitions)
        for definition in definitions:
            self.cluster._served(definition)

    def bring(self, name: str, provider_id: str = "") -> None:
        node = make.node(name, cpu="4", pool="a")
        node["spec"] = {"providerID": provider_id} if provider_id else {}
        self.cluster.add("nodes", node)
        # Admission taints a new node as not ready; the node controller takes that off.
        self.client.patch("nodes", name, "", {"spec": {"taints": None}})

    def take(self, node: str) -> None:
        self.give_up(node)
        self.client.delete("nodes", node)

    @abstractmethod
    def provider(self, limits: Object, access: Object) -> Object:
        """`nodes.provider` of the settings."""

    @abstractmethod
    def size(self) -> int:
        """Machines asked for."""

    @abstractmethod
    def settle(self) -> None:
        """Look once, as its controllers do again and again."""

    def hand_over(self) -> str:
        """Let another autoscaler manage the group; its name."""
        raise NotImplementedError

    @abstractmethod
    def close(self) -> None:
        """Leave nothing behind."""


class MachineDeployment(Nodes):
    """Cluster API: marked machines go first."""

    def __init__(self, cluster: Cluster, give_up: Callable[[str], None], size: int) -> None:
        super().__init__(cluster, give_up)
        self.install(plain(CAPI, "v1beta2", "Machine", "machines"))
        cluster.space("capi")
        reference = {"kind": "M", "name": "m", "apiGroup": "infrastructure.cluster.x-k8s.io"}
        machine = {"clusterName": "c", "bootstrap": {"dataSecretName": "s"}, "infrastructureRef": reference}
        spec = {"clusterName": "c", "replicas": size, "selector": {}, "template": {"spec": machine}}
        about = {"apiVersion": f"{CAPI}/v1beta2", "kind": "MachineDeployment", "metadata": {"name": "md"}}
        self.client.create("machinedeployments", {**about, "spec": spec}, "capi")

    def provider(self, limits: Object, access: Object) -> Object:
        pool = {"kind": "MachineDeployment", "object": "md", "namespace": "capi", "template": {"cpu": "4"}}
        return {"kind": "scale", "groups": [{**limits, **pool}], **access}

    def size(self) -> int:
        return int(self.client.get("machinedeployments", "md", "capi")["spec"]["replicas"])

    def settle(self) -> None:
        wanted, found = self.size(), self.client.list("machines", "capi")
        order = sorted(found, key=lambda m: not (m["metadata"].get("annotations") or {}).get(CAPI_DELETE))
        for machine in order[: 0 if self.slow else max(0, len(found) - wanted)]:
            if (node := machine["status"].get("nodeRef")) is not None:
                self.take(node["name"])
            self.client.delete("machines", machine["metadata"]["name"], "capi")
        for _ in range(wanted - len(found)):
            self.count += 1
            meta = {"name": f"md-{self.count}", "labels": {f"{CAPI}/deployment-name": "md"}}
            self.client.create(
                "machines", {"apiVersion": f"{CAPI}/v1beta2", "kind": "Machine", "metadata": meta}, "capi"
            )
            status: Object = {"phase": "Failed" if self.failing else "Provisioning", "failureMessage": "no quota"}
            if not self.failing and not self.barren:
                self.bring(f"n{self.count}")
                status = {"phase": "Running", "nodeRef": {"name": f"n{self.count}"}}
            self.client.status("machines", meta["name"], "capi", status)

    def hand_over(self) -> str:
        note = {f"{CAPI}/cluster-api-autoscaler-node-group-max-size": "9"}
        self.client.patch("machinedeployments", "md", "capi", {"metadata": {"annotations": note}})
        return "Cluster Autoscaler"

    def close(self) -> None:
        for machine in self.client.list("machines", "capi"):
            self.client.delete("machines", machine["metadata"]["name"], "capi")


class NodePool(Nodes):
    """Karpenter, static: a NodeClaim that is deleted is replaced as long as the size asks for it."""

    def __init__(self, cluster: Cluster, give_up: Callable[[str], None], size: int) -> None:
        super().__init__(cluster, give_up)
        self.install(
            plain(KARPENTER, "v1", "NodePool", "nodepools", scope="Cluster", scale=True),
            plain(KARPENTER, "v1", "NodeClaim", "nodeclaims", scope="Cluster"),
        )
        about = {"apiVersion": f"{KARPENTER}/v1", "kind": "NodePool", "metadata": {"name": "static"}}
        self.client.create("nodepools", {**about, "spec": {"replicas": size}})

    def provider(self, limits: Object, access: Object) -> Object:
        return {
            "kind": "scale",
            "groups": [{**limits, "kind": "NodePool", "object": "static", "template": {"cpu": "4"}}],
            **access,
        }

    def size(self) -> int:
        return int(self.client.get("nodepools", "static")["spec"]["replicas"])

    def settle(self) -> None:
        claims = self.client.list("nodeclaims")
        for claim in [c for c in claims if c["metadata"].get("deletionTimestamp")]:
            self._end(claim)
            claims.remove(claim)
        wanted = self.size()
        # Static pools give up empty nodes first: those of the newest claims.
        for claim in sorted(claims, key=lambda c: -int(c["metadata"]["name"][7:]))[: max(0, len(claims) - wanted)]:
            self._end(claim)
            self.client.delete("nodeclaims", claim["metadata"]["name"])
        for _ in range(wanted - len(claims)):
            self.count += 1
            name = f"static-{self.count}"
            labels, finalizers = {f"{KARPENTER}/nodepool": "static"}, [f"{KARPENTER}/termination"]
            meta = {"name": name, "labels": labels, "finalizers": finalizers}
            self.client.create("nodeclaims", {"apiVersion": f"{KARPENTER}/v1", "kind": "NodeClaim", "metadata": meta})
            if not self.barren:
                self.bring(f"n{self.count}")
                self.client.status("nodeclaims", name, "", {"nodeName": f"n{self.count}"})

    def _end(self, claim: Object) -> None:
        if (node := (claim.get("status") or {}).get("nodeName")) is not None:
            self.take(node)
        self.client.patch("nodeclaims", claim["metadata"]["name"], "", {"metadata": {"finalizers": None}})

    def close(self) -> None:
        for claim in self.client.list("nodeclaims"):
            self.client.patch("nodeclaims", claim["metadata"]["name"], "", {"metadata": {"finalizers": None}})
            self.client.delete("nodeclaims", claim["metadata"]["name"])
        self.client.delete("nodepools", "static")


class AutoScalingGroup(Nodes):
    """AWS: a moto server behind a proxy that is as strict as AWS is. Nodes are known by their providerID alone."""

    def __init__(self, cluster: Cluster, give_up: Callable[[str], None], size: int, aws: StrictAws) -> None:
        super().__init__(cluster, give_up)
        self.aws = aws
        aws.group("asg", size, 1, 8)
        aws.ending = lambda instance: give_up(f"ip-{instance}")

    def provider(self, limits: Object, access: Object) -> Object:
        pool = {**limits, "autoscaling_group": "asg", "template": {"cpu": "4"}}
        return {"kind": "aws", "region": "eu-west-1", "endpoint": self.aws.address, "groups": [pool]}

    def size(self) -> int:
        return int(self.aws.found()["DesiredCapacity"])

    def settle(self) -> None:
        self.aws.settle()
        there = {f"ip-{name}": name for name in self.aws.running}
        nodes = {node["metadata"]["name"] for node in self.client.list("nodes")}
        for node in nodes - there.keys():
            self.client.delete("nodes", node)
        for node in there.keys() - nodes:
            self.bring(node, f"aws:///eu-west-1a/{there[node]}")

    def hand_over(self) -> str:
        self.aws.client.put_scaling_policy(
            AutoScalingGroupName="asg",
            PolicyName="follow-cpu",
            PolicyType="SimpleScaling",
            AdjustmentType="ChangeInCapacity",
            ScalingAdjustment=1,
        )
        return "AWS Auto Scaling (policy follow-cpu)"

    def close(self) -> None:
        """The next test begins anew."""


class OwnAutoscaler(Nodes):
    """A cluster whose own autoscaler follows CapacityBuffers or pods that wait, and removes released nodes."""

    def __init__(self, cluster: Cluster, give_up: Callable[[str], None], size: int, buffers: bool) -> None:
        super().__init__(cluster, give_up)
        self.buffers = f"{BUFFER_API}/capacitybuffers" if buffers else ""
        group, _, version = BUFFER_API.partition("/")
        if buffers:
            self.install(plain(group, version, "CapacityBuffer", "capacitybuffers"))
        self.request = "buffer" if buffers else "placeholder"
        for _ in range(size):
            self._another()

    def provider(self, limits: Object, access: Object) -> Object:
        pool = {**limits, "template": {"cpu": "4"}, "node_label": "pool=a", "request": self.request}
        return {"kind": "capacity", "groups": [pool], **access}

    def size(self) -> int:
        return len(self.client.list("nodes"))

    def settle(self) -> None:
        for node in self.client.list("nodes"):
            if RELEASED in (node["metadata"].get("annotations") or {}):
                self.take(node["metadata"]["name"])
        for _ in range(self._wanted()):
            self._another()

    def _wanted(self) -> int:
        """Nodes that are missing."""
        if not self.buffers:
            pods = self.client.list("pods", "headgate")
            waiting = [p for p in pods if not p["spec"].get("nodeName") and not p["metadata"].get("deletionTimestamp")]
            return len(waiting)
        empty = self.size() - len({p["spec"].get("nodeName") for p in self.client.list("pods")} - {None})
        asked = sum(int(found["spec"]["replicas"]) for found in self.client.list(self.buffers, "headgate"))
        return max(0, asked - empty)

    def _another(self) -> None:
        if not self.barren:
            self.count += 1
            self.bring(f"n{self.count}")

    def close(self) -> None:
        if self.buffers:
            for found in self.client.list(self.buffers, "headgate"):
                self.client.delete(self.buffers, found["metadata"]["name"], "headgate")
            self.client.delete("podtemplates", "headgate-pool", "headgate")
        else:
            self.client.delete("scheduling.k8s.io/v1/priorityclasses", "headgate-placeholder")
