"""The pages of docs/ say what is so: their examples run, and nothing that they should name is missing."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import pytest

from headgate.controller.plugins import Plugins
from headgate.core import hookspecs

from .conftest import install_into
from .test_plugins import invoke

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs" / "plugins").glob("*.md"))
HOOKS = sorted(name for name in vars(hookspecs) if name.startswith("headgate_"))
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "index.md"], ids=lambda page: page.stem)
def test_the_example_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = page.read_text()
    plugin, trial = BLOCK.findall(text)
    name = re.match(r"# (\w+)\.py\n", plugin)
    hook = re.search(r"`(headgate_\w+)`", text)
    assert name, "the first block begins with the name of its file"
    assert hook, "the title names the hook"
    install_into(tmp_path, name[1], plugin)
    script = tmp_path / "trial.py"
    script.write_text(trial)
    result = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert result.returncode == 0, result.stderr
    monkeypatch.syspath_prepend(tmp_path)
    (found,) = Plugins([point for dist in distributions(path=[str(tmp_path)]) for point in dist.entry_points])
    assert found.error is None
    assert found.hooks == (hook[1],)


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_has_a_docstring_a_page_and_a_test(hook: str) -> None:
    assert getattr(hookspecs, hook).__doc__
    titles = [page.read_text().splitlines()[0] for page in PAGES]
    assert sum(f"`{hook}`" in title for title in titles) == 1, f"one page of docs/plugins has {hook} in its title"
    assert f"`{hook}`" in (ROOT / "docs" / "plugins" / "index.md").read_text()
    tests = [path for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__)]
    assert any(re.search(rf"\b{hook}\b", path.read_text()) for path in tests), f"no test calls {hook}"


def test_the_settings_reference_is_current() -> None:
    code, page, _ = invoke("schema", "--format", "markdown")
    assert code == 0
    assert (ROOT / "docs" / "settings.md").read_text() == page, "headgate schema --format markdown > docs/settings.md"


def test_links_between_pages_lead_somewhere() -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        for link in re.findall(r"\]\((?!http)([^)#]+)", page.read_text()):
            assert (page.parent / link).exists(), f"{page}: {link}"
