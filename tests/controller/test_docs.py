"""The pages of docs/ say what is so: their examples run, and nothing that they should name is missing."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import pytest
import yaml

from headgate.controller.plugins import Plugins, built_in
from headgate.controller.run.settings import RunSettings
from headgate.core import hookspecs
from headgate.core.budgets import BudgetSpec

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


def test_the_fields_of_a_budget_are_current_and_its_example_is_one() -> None:
    code, tables, _ = invoke("schema", "--format", "budget")
    assert code == 0
    page = (ROOT / "docs" / "cpubudget.md").read_text()
    assert page.endswith(tables), "headgate schema --format budget is the end of docs/cpubudget.md"
    (example,) = re.findall(r"^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert BudgetSpec.model_validate(yaml.safe_load(example)["spec"]).total == 16_000


def test_the_example_of_the_controller_is_valid() -> None:
    page = (ROOT / "docs" / "controller.md").read_text()
    (example,) = re.findall(r"^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    settings = RunSettings.model_validate(yaml.safe_load(example))
    found = built_in()
    for source in settings.sources:
        assert source.model_extra is not None
        kind = found.named("headgate_metric_sources")[source.kind][1][source.kind]
        kind.settings.model_validate(source.model_extra)
    host, home = settings.kind_of("host"), settings.kind_of("home")
    found.named("headgate_host_adapters")["kserve"][1]["kserve"].settings.model_validate(host)
    found.named("headgate_homes")["kubernetes"][1]["kubernetes"].settings.model_validate(home)


def test_every_metric_of_the_controller_is_documented() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    code = (ROOT / "controller" / "run" / "metrics.py").read_text()
    names = re.findall(r'(Gauge|Counter)MetricFamily\(\s*"(\w+)"', code)
    assert len(names) > 15
    for kind, name in names:
        assert f"`{name}{'_total' if kind == 'Counter' else ''}`" in page, name


def test_links_between_pages_lead_somewhere() -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        for link in re.findall(r"\]\((?!http)([^)#]+)", page.read_text()):
            assert (page.parent / link).exists(), f"{page}: {link}"
