from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.controller.conftest import install_into

from headgate.controller import plugins

Installed = Callable[[str, str], None]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installed]:
    """Installs plug-ins of one module into this very process's environment, for as long as the test runs."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(name: str, code: str) -> None:
        install_into(tmp_path, name, textwrap.dedent(code))
        plugins.installed.cache_clear()

    yield install
    plugins.installed.cache_clear()
