"""Installs headgate as its users do (`pip install .`, `pip install -e .`, a wheel), each in its own environment."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def run(*command: object, cwd: Path) -> str:
    return subprocess.run([str(part) for part in command], cwd=cwd, check=True, capture_output=True, text=True).stdout


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        away = Path(folder)
        run(sys.executable, "-m", "build", "--outdir", away / "dist", ROOT, cwd=away)
        (wheel,) = (away / "dist").glob("*.whl")
        for name, what in {"install": [ROOT], "editable": ["-e", ROOT], "wheel": [wheel]}.items():
            venv.create(away / name, with_pip=True)
            python = away / name / "bin" / "python"
            run(python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", *what, cwd=away)
            version = run(away / name / "bin" / "headgate", "--version", cwd=away).strip()
            usage = run(away / name / "bin" / "headgate", "--help", cwd=away)
            modules = "headgate.core.decision, headgate.controller.cli, headgate.engine, headgate.adapters"
            run(python, "-c", f"import {modules}", cwd=away)
            if "Usage: headgate" not in usage:
                raise SystemExit(f"{name}: headgate --help printed {usage!r}")
            print(f"{name}: {version}")  # noqa: T201


if __name__ == "__main__":
    main()
