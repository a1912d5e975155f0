"""What the slower paths share: writes to other objects than pods, and what a host's refusal of one means."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from headgate.adapters.kserve.members import Member
from headgate.adapters.kubernetes.api import APPLY, MANAGER, Api, ApiError
from headgate.core.hosting import Change, Refusal


@dataclass(slots=True)
class Slow:
    """What came of one look at the slower paths."""

    changes: list[Change] = field(default_factory=list)
    pending: dict[str, str] = field(default_factory=dict)
    notes: dict[str, Refusal] = field(default_factory=dict)
    """By "pipeline template" or "pipeline replicas": why that stays as it is. The pods are resized all the same."""


@dataclass(frozen=True, slots=True)
class Write:
    """One request."""

    member: Member
    part: str
    """template or replicas."""
    target: str
    path: str
    content_type: str
    body: Any
    reason: str
    before: int
    after: int

    def send(self, api: Api, slow: Slow, allowed: Callable[[], bool], dry_run: bool) -> Mapping[str, Any] | None:
        """The object after it, None where it was not made; what the server says no to becomes a note."""
        name = self.member.name
        if not dry_run and not allowed():
            return None
        query = {"fieldManager": MANAGER, **({"dryRun": "All"} if dry_run else {})}
        refused = None
        found: Mapping[str, Any] | None = None
        try:
            found = api.patch(self.path, self.body, self.content_type, **query)
        except ApiError as error:
            if error.retry:
                raise ConnectionError(str(error)) from None
            refused = slow.notes[f"{name} {self.part}"] = self._refusal(error)
        if dry_run or refused is None:
            slow.changes.append(
                Change(
                    name,
                    self.target,
                    self.content_type,
                    self.body,
                    self.path,
                    self.reason,
                    self.before,
                    self.after,
                    refused,
                )
            )
        return None if dry_run else found

    def _refusal(self, error: ApiError) -> Refusal:
        if error.status == 409 and self.content_type == APPLY:
            owners = "; ".join(cause.message or cause.field for cause in error.causes) or error.message
            return Refusal(
                "FieldOwned",
                f"somebody else sets the CPU of {self.target} ({owners}): take it out of what they apply, or leave "
                "the template alone",
            )
        if error.status in (409, 422):
            return Refusal("Changed", f"{self.target} was changed in between, it is tried again: {error.message}")
        if error.status == 403:
            return Refusal("Forbidden", f"{error.message}: allow headgate's account to do this")
        return Refusal("Denied", f"{error.message}: see who denies it")
