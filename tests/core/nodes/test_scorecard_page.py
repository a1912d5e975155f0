"""docs/nodes-scorecard.md names tests that there are, and all that are numbered for a row."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
ROWS = 25


def test_each_row_names_its_tests() -> None:
    page = (ROOT / "docs/nodes-scorecard.md").read_text()
    found = dict(re.findall(r"^\| (\d+) \| (.+) \|$", page, re.MULTILINE))
    assert [int(row) for row in found] == list(range(1, ROWS + 1))
    for row, text in found.items():
        named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", text)
        assert named, f"row {row} names no test"
        for path, test in named:
            assert f"\ndef {test}(" in (ROOT / path).read_text(), f"row {row}: there is no {path}::{test}"
        there = {
            test
            for path in (ROOT / "tests/core/nodes").glob("test_scorecard_*.py")
            for test in re.findall(rf"^def (test_{int(row):02d}_\w+)", path.read_text(), re.MULTILINE)
        }
        assert there <= {test for _, test in named}, f"row {row} leaves out {sorted(there)}"
