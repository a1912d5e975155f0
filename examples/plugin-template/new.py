"""Starts a plug-in of your own: python new.py my-metric [FOLDER]."""

import re
import sys
from pathlib import Path

TEMPLATE = Path(__file__).resolve().parent / "template"


def main(name: str, folder: str = ".") -> None:
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        sys.exit(f"{name!r} is no name of a package: use small letters, digits and single dashes")
    target = Path(folder) / f"headgate-{name}"
    if target.exists():
        sys.exit(f"{target} exists already")
    names = {"__NAME__": name, "__MODULE__": f"headgate_{name.replace('-', '_')}"}
    for source in sorted(TEMPLATE.rglob("*")):
        if source.is_file() and "__pycache__" not in source.parts:
            path, text = str(source.relative_to(TEMPLATE)), source.read_text()
            for placeholder, value in names.items():
                path, text = path.replace(placeholder, value), text.replace(placeholder, value)
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            (target / path).write_text(text)
    print(f"{target} is ready: pip install -e {target} && headgate plugins")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(*sys.argv[1:])
