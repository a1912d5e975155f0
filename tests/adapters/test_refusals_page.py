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


def listed(before: str, after: str) -> set[str]:
    part = PAGE[PAGE.index(before) : PAGE.index(after) if after else len(PAGE)]
    return set(re.findall(r"^\| `([A-Z][A-Za-z]+)` \|", part, re.MULTILINE))


def test_every_refusal_has_its_line() -> None:
    found = {*reasons("adapters"), *reasons("controller")}
    found |= {refusal_of(ApiError(status, message)).reason for status, message in MEANINGS}
    assert found == listed("## Services", "## Conditions")


def test_every_reason_of_a_condition_has_its_line() -> None:
    told = set(re.findall(r"`([A-Z][A-Za-z]+)`", PAGE[PAGE.index("## Conditions") :]))
    pattern = r'(?:Trouble\(|_failed\(|reason=|reason = |reason, message = )"([A-Z][A-Za-z]+)"'
    for name in ("judge.py", "status.py", "loop.py"):
        found = set(re.findall(pattern, (ROOT / "controller" / "run" / name).read_text()))
        assert found <= told, f"{name}: {found - told} are missing in docs/refusals.md"
