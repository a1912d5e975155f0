"""How the API server says no: metav1.Status objects and field errors, worded as it words them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Object = dict[str, Any]

_REASONS = {"Invalid": "FieldValueInvalid", "Required": "FieldValueRequired", "Forbidden": "FieldValueForbidden"} | {
    "NotSupported": "FieldValueNotSupported",
    "TypeInvalid": "FieldValueTypeInvalid",
}
_SAID = {"Required": "Required value", "Forbidden": "Forbidden"}


@dataclass
class StatusError(Exception):
    """An answer that is not a success."""

    code: int
    reason: str
    message: str
    details: Object = field(default_factory=dict)

    def status(self) -> Object:
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        } | ({"details": self.details} if self.details else {})


@dataclass(frozen=True)
class FieldError:
    """One field that is wrong."""

    kind: str
    path: str
    value: Any = None
    detail: str = ""

    @property
    def said(self) -> str:
        head = _SAID.get(self.kind)
        if head is None:
            shown = self.value if isinstance(self.value, dict | list) else None
            text = json.dumps(shown if shown is not None else self.value)
            head = f"{'Unsupported' if self.kind == 'NotSupported' else 'Invalid'} value: {text}"
        return f"{head}: {self.detail}" if self.detail else head

    def __str__(self) -> str:
        return f"{self.path}: {self.said}"


def invalid(kind: str, group: str, name: str, errors: Sequence[FieldError]) -> StatusError:
    texts = [str(error) for error in errors]
    told = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    shown = f"{kind}.{group}" if group else kind
    causes = [{"reason": _REASONS[e.kind], "message": e.said, "field": e.path} for e in errors]
    details = {"name": name, **({"group": group} if group else {}), "kind": kind, "causes": causes}
    return StatusError(422, "Invalid", f'{shown} "{name}" is invalid: {told}', details)


def not_found(plural: str, group: str, name: str) -> StatusError:
    details = {"name": name, **({"group": group} if group else {}), "kind": plural}
    return StatusError(404, "NotFound", f'{_qualified(plural, group)} "{name}" not found', details)


def no_such_path() -> StatusError:
    return StatusError(404, "NotFound", "the server could not find the requested resource")


def already_exists(plural: str, group: str, name: str) -> StatusError:
    details = {"name": name, **({"group": group} if group else {}), "kind": plural}
    return StatusError(409, "AlreadyExists", f'{_qualified(plural, group)} "{name}" already exists', details)


def conflict(plural: str, group: str, name: str, why: str = "") -> StatusError:
    told = why or "the object has been modified; please apply your changes to the latest version and try again"
    details = {"name": name, **({"group": group} if group else {}), "kind": plural}
    message = f'Operation cannot be fulfilled on {_qualified(plural, group)} "{name}": {told}'
    return StatusError(409, "Conflict", message, details)


def forbidden(plural: str, group: str, name: str, why: str, cause: str = "") -> StatusError:
    details: Object = {"name": name, **({"group": group} if group else {}), "kind": plural}
    if cause:
        details["causes"] = [{"reason": cause}]
    named = f' "{name}"' if name else ""
    return StatusError(403, "Forbidden", f"{_qualified(plural, group)}{named} is forbidden: {why}", details)


def bad_request(message: str) -> StatusError:
    return StatusError(400, "BadRequest", message)


def gone(message: str) -> StatusError:
    return StatusError(410, "Expired", message)


def _qualified(plural: str, group: str) -> str:
    return f"{plural}.{group}" if group else plural
