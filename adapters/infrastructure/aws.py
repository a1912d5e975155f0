"""AWS Auto Scaling groups. One request deletes a machine by its instance id and lowers the desired capacity."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import Field, model_validator

from headgate.adapters.infrastructure.settings import GroupLimits, check_groups
from headgate.core.config import Model, SettingsError
from headgate.core.providers import (
    Conflict,
    Instance,
    InstanceState,
    NodeTemplate,
    ProviderError,
    ProviderGroup,
    Refused,
    Unavailable,
)

if TYPE_CHECKING:
    from botocore.client import BaseClient

T = TypeVar("T")

CLUSTER_AUTOSCALER = "k8s.io/cluster-autoscaler/enabled"
"""Cluster Autoscaler's auto-discovery manages the groups with this tag."""
_LATER = {
    "Throttling",
    "ThrottlingException",
    "RequestLimitExceeded",
    "ScalingActivityInProgress",
    "ResourceContention",
    "ServiceUnavailable",
    "InternalFailure",
}


class AwsGroup(GroupLimits):
    """One Auto Scaling group. The limits here and the group's own hold both."""

    autoscaling_group: str = Field(min_length=1)


class AwsSettings(Model):
    """Groups of one region. Credentials come from boto3's own chain, never from this file."""

    region: str
    groups: list[AwsGroup]
    endpoint: str | None = None
    """Another address of the API, for a private endpoint or a test."""

    @model_validator(mode="after")
    def _names(self) -> AwsSettings:
        check_groups(list(self.groups))
        return self


def connect(settings: AwsSettings) -> BaseClient:
    """A client that gives up after seconds and repeats nothing by itself."""
    try:
        import boto3
        from botocore.config import Config
    except ImportError:
        raise SettingsError("node provider aws needs the extra aws: pip install 'headgate[aws]'") from None

    config = Config(connect_timeout=5, read_timeout=15, retries={"total_max_attempts": 1})
    from botocore.exceptions import BotoCoreError

    try:
        return boto3.client("autoscaling", region_name=settings.region, endpoint_url=settings.endpoint, config=config)
    except (BotoCoreError, ValueError) as error:
        raise SettingsError(f"node provider aws: region or endpoint cannot be used: {error}") from None


class AwsProvider:
    """A NodeProvider over Auto Scaling groups.

    Needs autoscaling:DescribeAutoScalingGroups, DescribePolicies, SetDesiredCapacity and
    TerminateInstanceInAutoScalingGroup. The API has no compare-and-set: between the look and the request somebody else
    may change the size, which the next observation shows; sizes are set as absolute numbers, so repeating is safe.
    """

    def __init__(self, client: BaseClient, groups: Sequence[AwsGroup]) -> None:
        self._client: Any = client
        self._groups = {group.name: group for group in groups}

    def groups(self) -> Sequence[ProviderGroup]:
        """As NodeProvider."""
        names = [group.autoscaling_group for group in self._groups.values()]
        found = {g["AutoScalingGroupName"]: g for g in self._described(names)}
        result = []
        for group in self._groups.values():
            asg = found.get(group.autoscaling_group)
            if asg is None:
                raise Refused(f"there is no Auto Scaling group {group.autoscaling_group}")
            low, high = _limits(group, asg)
            result.append(ProviderGroup(group.name, asg["DesiredCapacity"], low, high, self._owner(asg)))
        return result

    def instances(self, group: str) -> Sequence[Instance]:
        """As NodeProvider. Nodes are matched by the instance id in their provider id, hence without `node`."""
        return [_instance(machine) for machine in self._asg(group)[1]["Instances"]]

    def increase(self, group: str, count: int, *, seen: int) -> None:
        """As NodeProvider."""
        own, asg = self._managed(group)
        size = asg["DesiredCapacity"]
        if size == seen + count:
            return
        if size != seen:
            raise Conflict(f"{group} has {size} machines, the decision was made on {seen}")
        _, high = _limits(own, asg)
        if size + count > high:
            raise Refused(f"{group} has a maximum of {high} machines, {size + count} were asked for")
        self._set(own, size + count)

    def delete(self, group: str, instances: Sequence[str]) -> None:
        """As NodeProvider."""
        own, asg = self._managed(group)
        here = {i.name: i.state for i in map(_instance, asg["Instances"])}
        gone = InstanceState.DELETING
        going = [name for name in dict.fromkeys(instances) if here.get(name, gone) is not gone]
        left = asg["DesiredCapacity"] - len(going)
        low, _ = _limits(own, asg)
        if left < low:
            raise Refused(f"{group} has a minimum of {low} machines, {left} would be left")
        failed: list[tuple[str, ProviderError]] = []
        for name in going:
            try:
                self._terminate(name)
            except ProviderError as error:
                failed.append((name, error))
        if failed:
            names = ", ".join(name for name, _ in failed)
            raise type(failed[0][1])(f"{names} could not be deleted: {failed[0][1]}")

    def cancel_pending(self, group: str, count: int, *, seen: int) -> int:
        """As NodeProvider: those without an instance by lowering the desired capacity, then pending ones by id.

        An instance that appears between the look and the request makes AWS choose which one goes; the desired capacity
        is never set below the instances that were seen.
        """
        own, asg = self._managed(group)
        size = int(asg["DesiredCapacity"])
        if size == seen - count:
            return 0
        if size != seen:
            raise Conflict(f"{group} has {size} machines, the decision was made on {seen}")
        machines = [i for i in map(_instance, asg["Instances"]) if i.state is not InstanceState.DELETING]
        low, _ = _limits(own, asg)
        room = min(count, size - low)
        nameless = min(room, max(0, size - len(machines)))
        if nameless:
            self._set(own, size - nameless)
        pending = [i.name for i in machines if i.state is InstanceState.PENDING][: room - nameless]
        for name in pending:
            self._terminate(name)
        return nameless + len(pending)

    def template(self, group: str) -> NodeTemplate | None:
        """As NodeProvider: the settings'; AWS does not know what a node's kubelet leaves to pods."""
        own = self._group(group)
        return own.template.value() if own.template else None

    def _terminate(self, name: str) -> None:
        try:
            self._call(
                lambda: self._client.terminate_instance_in_auto_scaling_group(
                    InstanceId=name, ShouldDecrementDesiredCapacity=True
                )
            )
        except Refused as error:
            if "not found" not in str(error):
                raise

    def _set(self, own: AwsGroup, size: int) -> None:
        self._call(
            lambda: self._client.set_desired_capacity(
                AutoScalingGroupName=own.autoscaling_group, DesiredCapacity=size, HonorCooldown=False
            )
        )

    def _described(self, names: Sequence[str]) -> list[Mapping[str, Any]]:
        def read() -> list[Mapping[str, Any]]:
            pages = self._client.get_paginator("describe_auto_scaling_groups").paginate(AutoScalingGroupNames=names)
            return [group for page in pages for group in page["AutoScalingGroups"]]

        return self._call(read)

    def _owner(self, asg: Mapping[str, Any]) -> str | None:
        if any(tag["Key"] == CLUSTER_AUTOSCALER for tag in asg.get("Tags", ())):
            return f"Cluster Autoscaler (tag {CLUSTER_AUTOSCALER})"
        name = asg["AutoScalingGroupName"]
        policies = self._call(lambda: self._client.describe_policies(AutoScalingGroupName=name))["ScalingPolicies"]
        active = [p["PolicyName"] for p in policies if p.get("Enabled", True)]
        return f"AWS Auto Scaling (policy {active[0]})" if active else None

    def _group(self, group: str) -> AwsGroup:
        if group not in self._groups:
            raise Refused(f"there is no group {group} in the settings")
        return self._groups[group]

    def _asg(self, group: str) -> tuple[AwsGroup, Mapping[str, Any]]:
        own = self._group(group)
        found = self._described([own.autoscaling_group])
        if not found:
            raise Refused(f"there is no Auto Scaling group {own.autoscaling_group}")
        return own, found[0]

    def _managed(self, group: str) -> tuple[AwsGroup, Mapping[str, Any]]:
        own, asg = self._asg(group)
        if (owner := self._owner(asg)) is not None:
            raise Refused(f"{owner} manages {own.autoscaling_group}: one owner per group")
        return own, asg

    def _call(self, call: Callable[[], T]) -> T:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return call()
        except ClientError as error:
            told = error.response.get("Error", {})
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            message = f"{error.operation_name}: {told.get('Code')}: {told.get('Message')}"
            if told.get("Code") in _LATER or status >= 500:
                raise Unavailable(message) from None
            raise Refused(message) from None
        except BotoCoreError as error:
            # Its text may quote the address or the profile; its kind says enough.
            raise Unavailable(f"AWS Auto Scaling did not answer ({type(error).__name__})") from None


def _limits(own: AwsGroup, asg: Mapping[str, Any]) -> tuple[int, int]:
    return max(own.minimum, asg["MinSize"]), min(own.maximum, asg["MaxSize"])


def _instance(machine: Mapping[str, Any]) -> Instance:
    state = machine["LifecycleState"]
    if state.startswith(("Terminat", "Detach")):
        return Instance(machine["InstanceId"], InstanceState.DELETING)
    if state.startswith("Pending"):
        return Instance(machine["InstanceId"], InstanceState.PENDING)
    return Instance(machine["InstanceId"], InstanceState.RUNNING, detail="" if state == "InService" else state)
