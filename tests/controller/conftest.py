from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

Install = Callable[..., Path]


def install_into(folder: Path, name: str, code: str, *, version: str = "1.0", point: str | None = None) -> Path:
    """A distribution `name` with one module and an entry point, as an installer would leave it in `folder`."""
    module = name.replace("-", "_")
    (folder / f"{module}.py").write_text(textwrap.dedent(code))
    info = folder / f"{module}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[headgate]\n{point or name} = {module}\n")
    return folder


@pytest.fixture
def install(tmp_path: Path) -> Install:
    folder = tmp_path / "site"
    folder.mkdir()

    def install(name: str, code: str, *, version: str = "1.0", point: str | None = None) -> Path:
        return install_into(folder, name, code, version=version, point=point)

    return install
