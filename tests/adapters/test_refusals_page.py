"""docs/refusals.md has a line for every reason in the code, and none for what is not there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from headgate.adapters.kubernetes.actuate import refusal_of
from headgate.adapters.kubernetes.api import ApiError

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "refusals.md").read_text()
MEANINGS = [
    (422, "Pod running on node without support for resize"),
    (403, "node didn't have enough allocatable resources: cpu"),
    (403, "exceeded quota: rq"),
    (403, "maximum cpu usage per Container is 2"),
    (422, "Pod QOS Class may not change as a result of resizing"),
    (403, 'cannot patch resource "pods/resize"'),
    (403, "a webhook says no"),
    (422, "something is wrong"),
    (404, "the server could not find the requested resource"),
]


def reasons(folder: str) -> Iterator[str]:
    """First arguments of every Refusal."""
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Refusal":
                assert node.args, f"{path}: give the reason as the first argument"
                if isinstance(node.args[0], ast.Constant):
                    yield str(node.args[0].value)


def _reasons() -> Iterator[tuple[str, str]]:
    """Of conditions, troubles, rejections and events, and the files that they are in."""
    begins = r'Trouble\(|_failed\(|reason=(?:"\w+" if \w+ else )?|reason = |reason, message = |Rejected\(.*, '
    pattern = re.compile(rf'(?:{begins}|\("(?:Normal|Warning)", )"([A-Z][A-Za-z]+)"')
    for path in (ROOT / "controller" / "run").glob("*.py"):
        yield from ((reason, path.name) for reason in pattern.findall(path.read_text()))


REASONS = dict(_reasons())


def listed(before: str, after: str) -> set[str]:
    part = PAGE[PAGE.index(before) : PAGE.index(after) if after else len(PAGE)]
    return set(re.findall(r"^\| `([A-Z][A-Za-z]+)` \|", part, re.MULTILINE))


def test_every_refusal_has_its_line() -> None:
    found = {*reasons("adapters"), *reasons("controller")}
    found |= {refusal_of(ApiError(status, message)).reason for status, message in MEANINGS}
    assert found == listed("## Services", "## Conditions")


def test_every_reason_of_a_condition_and_of_an_event_has_its_line() -> None:
    told = set(re.findall(r"`([A-Z][A-Za-z]+)`", PAGE[PAGE.index("## Conditions") :]))
    assert {"Decided", "NothingSelected", "NotObserved", "OtherHost", "Running", "CPUsMoved"} <= REASONS.keys()
    assert not {f"{reason} of {file}" for reason, file in REASONS.items() if reason not in told}
