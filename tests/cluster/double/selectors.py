"""Label and field selectors, as query parameters and as objects."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from .errors import bad_request

Object = dict[str, Any]
Test = Callable[[Object], bool]

_TERM = re.compile(
    r"\s*(?:(?P<key>!?\s*[\w./-]+)\s*(?:(?P<set>in|notin)\s*\((?P<values>[^)]*)\)|(?P<op>==|!=|=)\s*(?P<value>[\w.-]*))?)\s*(?:,|$)"
)


def by_labels(text: str) -> Test | None:
    """A test of an object's labels."""
    if not text.strip():
        return None
    tests: list[Callable[[Mapping[str, str]], bool]] = []
    position = 0
    while position < len(text):
        match = _TERM.match(text, position)
        if match is None or not match["key"]:
            raise bad_request(f"unable to parse requirement: {text!r}")
        position = match.end()
        tests.append(_label_test(match))
    return lambda found: all(test(found["metadata"].get("labels") or {}) for test in tests)


def _label_test(match: re.Match[str]) -> Callable[[Mapping[str, str]], bool]:
    key = match["key"].strip()
    if match["set"]:
        values = {value.strip() for value in match["values"].split(",")}
        inside = match["set"] == "in"
        return lambda labels: (labels.get(key) in values) if inside else (labels.get(key) not in values)
    if match["op"]:
        value, equal = match["value"], match["op"] != "!="
        return lambda labels: (labels.get(key) == value) == equal
    if key.startswith("!"):
        return lambda labels: key[1:].strip() not in labels
    return lambda labels: key in labels


_FIELDS = {
    "pods": {"spec.nodeName", "status.phase", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName"}
    | {"spec.hostNetwork", "status.podIP", "status.nominatedNodeName"},
    "events": {"involvedObject.name", "involvedObject.namespace", "involvedObject.kind", "involvedObject.uid", "reason"}
    | {"type", "source", "reportingComponent"},
    "nodes": {"spec.unschedulable"},
    "namespaces": {"status.phase"},
    "secrets": {"type"},
}


def by_fields(text: str, plural: str) -> Test | None:
    """A test of an object's fields; only those that the server indexes may be asked for."""
    if not text.strip():
        return None
    tests: list[Test] = []
    for term in text.split(","):
        path, operator, value = re.split(r"(==|!=|=)", term, maxsplit=1) if "=" in term else (term, "", "")
        path = path.strip()
        if path not in {"metadata.name", "metadata.namespace", *_FIELDS.get(plural, ())}:
            raise bad_request(f"field label not supported: {path}")
        tests.append(_field_test(path.split("."), value, operator != "!="))
    return lambda found: all(test(found) for test in tests)


def _field_test(path: list[str], value: str, equal: bool) -> Test:
    def test(found: Object) -> bool:
        at: Any = found
        for part in path:
            at = at.get(part) if isinstance(at, dict) else None
        shown = "" if at is None else str(at).lower() if isinstance(at, bool) else str(at)
        return (shown == value) == equal

    return test


def matches(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """Whether a LabelSelector object selects these labels; an empty one selects all, none at all nothing."""
    if selector is None:
        return False
    if not (selector.get("matchLabels") or {}).items() <= labels.items():
        return False
    for term in selector.get("matchExpressions") or []:
        have, values = labels.get(term["key"]), term.get("values") or []
        verdict = {
            "In": have in values,
            "NotIn": have not in values,
            "Exists": have is not None,
            "DoesNotExist": have is None,
        }[term["operator"]]
        if not verdict:
            return False
    return True
