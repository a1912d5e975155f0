"""What the slower paths share: one look at them, writes to other objects than pods, and what a refusal of one means."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from headgate.adapters.kserve.members import Claim, Member
from headgate.adapters.kserve.services import Service
from headgate.adapters.kubernetes.api import APPLY, MANAGER, Api, ApiError
from headgate.core.hosting import Change, Order, Refusal


@dataclass(slots=True)
class Slow:
    """What came of one look at the slower paths."""

    changes: list[Change] = field(default_factory=list)
    pending: dict[str, str] = field(default_factory=dict)
    notes: dict[str, Refusal] = field(default_factory=dict)
    """By "pipeline template" or "pipeline replicas": why that stays as it is. The pods are resized all the same."""


@dataclass(frozen=True, slots=True)
class Look:
    """One look at the slower paths of one budget."""

    claim: Claim
    order: Order
    pending: Mapping[str, str]
    """What the live path waits for, by pipeline."""
    room: int
    """Millicores that nobody has, the reserve among them."""
    now: float
    seen: float
    """When the services were read."""
    allowed: Callable[[], bool]
    dry_run: bool
    slow: Slow
    """Takes down what comes of it."""

    def components(self) -> Iterator[tuple[Member, Service]]:
        """The components of services that are not left alone; the routers of graphs are nobody's component."""
        for member in self.claim.members:
            if member.service is not None and member.refused is None:
                yield member, member.service


@dataclass(frozen=True, slots=True)
class Write:
    """One request."""

    pipeline: str
    part: str
    """template or replicas."""
    target: str
    path: str
    content_type: str
    body: Any
    reason: str
    before: int
    after: int

    def send(self, api: Api, look: Look) -> Mapping[str, Any] | None:
        """The object after it, None where it was not made; what the server says no to becomes a note."""
        if not look.dry_run and not look.allowed():
            return None
        found = self._ask(api, look, dry_run=look.dry_run)
        refused = found if isinstance(found, Refusal) else None
        if look.dry_run or refused is None:
            look.slow.changes.append(self._change(refused))
        return None if look.dry_run or isinstance(found, Refusal) else found

    def possible(self, api: Api, look: Look) -> bool:
        """Whether the server would do it; what it says no to becomes a note."""
        return not isinstance(self._ask(api, look, dry_run=True), Refusal)

    def _ask(self, api: Api, look: Look, *, dry_run: bool) -> Mapping[str, Any] | Refusal:
        query = {"fieldManager": MANAGER, **({"dryRun": "All"} if dry_run else {})}
        try:
            return api.patch(self.path, self.body, self.content_type, **query)
        except ApiError as error:
            if error.retry:
                raise ConnectionError(str(error)) from None
            refusal = look.slow.notes[f"{self.pipeline} {self.part}"] = self._refusal(error)
            return refusal

    def _change(self, refused: Refusal | None) -> Change:
        return Change(
            pipeline=self.pipeline,
            target=self.target,
            content_type=self.content_type,
            body=self.body,
            path=self.path,
            reason=self.reason,
            before=self.before,
            after=self.after,
            refused=refused,
        )

    def _refusal(self, error: ApiError) -> Refusal:
        if error.status == 409 and self.content_type == APPLY:
            owners = "; ".join(cause.message or cause.field for cause in error.causes) or error.message
            return Refusal(
                "FieldOwned",
                f"somebody else sets {_fields(error)} of {self.target} ({owners}): take it out of what they apply, or "
                f"leave the {self.part} alone",
            )
        if error.status in (409, 422):
            return Refusal("Changed", f"{self.target} was changed in between, it is tried again: {error.message}")
        if error.status == 403:
            return Refusal("Forbidden", f"{error.message}: allow headgate's account to do this")
        return Refusal("Denied", f"{error.message}: see who denies it")


def _fields(error: ApiError) -> str:
    """The fields that a conflict is about."""
    return ", ".join(dict.fromkeys(cause.field.lstrip(".") for cause in error.causes if cause.field)) or "a field"
