"""The contract of a node provider: whatever can add machines to a group and delete one of them by its name.

Every provider runs through one suite, tests/contract. All calls block and may be repeated: after an error to retry, or
after a crash in between, the same call with the same arguments leads to the same result, once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol, runtime_checkable


class InstanceState(Enum):
    """Where a machine is in its life, as its provider sees it. Whether its node is Ready is the cluster's to say."""

    PENDING = "pending"
    """Asked for; no machine runs yet."""
    RUNNING = "running"
    DELETING = "deleting"
    FAILED = "failed"
    """It will never run; it may be deleted."""


@dataclass(frozen=True, slots=True)
class Instance:
    """A machine of a group. `name` is what `delete` takes; `node` is the name of its node once that is known."""

    name: str
    state: InstanceState
    node: str | None = None
    detail: str = ""
    """The provider's own words on a failure."""


@dataclass(frozen=True, slots=True)
class Taint:
    """Keeps pods that do not tolerate it off a node."""

    key: str
    value: str = ""
    effect: str = "NoSchedule"


@dataclass(frozen=True, slots=True)
class NodeTemplate:
    """What a new node of a group offers to pods: what is allocatable, not what the machine has."""

    cpu: int
    """Millicores."""
    memory: int = 0
    """Bytes; 0: not counted."""
    pods: int = 110
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()


@dataclass(frozen=True, slots=True)
class ProviderGroup:
    """A group as its provider sees it now."""

    name: str
    target: int
    """Machines asked for, running or not; machines that are being deleted do not count."""
    minimum: int = 0
    """The provider's own limits, which it refuses to cross."""
    maximum: int | None = None
    owner: str | None = None
    """Another autoscaler that manages the group: headgate then refuses it. None: nobody."""


class ProviderError(Exception):
    """A call failed. The message says what was asked of whom and what it answered, without credentials."""

    retry = False
    """Whether the same call may succeed later without anybody changing anything."""


class Unavailable(ProviderError):  # noqa: N818 - named for what it is
    """The provider did not answer, or asks to slow down. The call may or may not have had its effect: repeat it."""

    retry = True


class NoCapacity(ProviderError):  # noqa: N818 - named for what it is
    """The provider has no such machines now. Repeat later, or use another group."""

    retry = True


class Conflict(ProviderError):  # noqa: N818 - named for what it is
    """The group's size is not the one that the decision was made on: observe again and decide anew."""


class Refused(ProviderError):  # noqa: N818 - named for what it is
    """Never works as asked: a limit, a missing permission, an unknown group, or somebody else's group."""


class NodeProvider(Protocol):
    """Machines in named groups. Every method raises ProviderError, and nothing else, on failure."""

    def groups(self) -> Sequence[ProviderGroup]:
        """The groups with their present size and limits, read afresh: a cached answer after an error is a lie."""
        ...

    def instances(self, group: str) -> Sequence[Instance]:
        """The machines of a group, those that were only asked for and those being deleted included.

        Machines that have no name yet are left out: the group's `target` counts them.
        """
        ...

    def increase(self, group: str, count: int, *, seen: int) -> None:
        """Ask for `count` (> 0) machines more than `seen`, the target on which the decision was made.

        Compare-and-set, hence safe to repeat: a target that is `seen + count` already is success; any other target
        than `seen` raises Conflict and changes nothing. Above the group's maximum: Refused. Without capacity:
        NoCapacity, now or as FAILED instances later.
        """
        ...

    def delete(self, group: str, instances: Sequence[str]) -> None:
        """Delete these machines, and no others, and lower the target by as many.

        A machine that is being deleted or gone already is success, and lowers nothing twice. A result below the
        group's minimum: Refused, and nothing is deleted. When one of several fails the others are still deleted and
        the error names those that remain; repeat the whole call. Pods are not drained here: that came before.
        """
        ...

    def cancel_pending(self, group: str, count: int, *, seen: int) -> int:
        """Take back up to `count` (> 0) machines that were asked for and do not run; the number taken back.

        Machines that run are never touched, and the target never falls below the minimum. Compare-and-set as
        `increase` is: a target of `seen - count` is success already, any other target than `seen` raises Conflict.
        """
        ...

    def template(self, group: str) -> NodeTemplate | None:
        """What a new node of the group will offer, or None when the provider cannot tell (the settings then must)."""
        ...


@runtime_checkable
class Tidying(Protocol):
    """A provider whose requests stay until somebody closes them."""

    def tidy(self) -> None:
        """Close the requests whose machines have come. Before every look whose plan may be carried out, and only then.

        Raises ProviderError.
        """
        ...
