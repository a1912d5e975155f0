"""What to serve from a folder of models, as KServe's storage initializer mounts it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from headgate.core.config import Document, SettingsError

MOUNTED = "/mnt/models"
"""Where KServe mounts what a storageUri names."""

SETTINGS = "headgate.yaml"
"""Settings that travel with the models; its paths are relative to it."""


def document_of(folder: Path, name: str, read: Callable[[str], Document]) -> Document:
    """The settings file in `folder`, or else all models there on equal terms, a single one of them as `name`.

    A model is `NAME.onnx`, or the only ONNX file in `NAME/` or in the highest `NAME/VERSION/`. Raises SettingsError.
    """
    if (settings := folder / SETTINGS).is_file():
        return read(str(settings))
    if not folder.is_dir():
        raise SettingsError(f"{folder}: there is no such folder: give one by --model_dir, or a file by --settings")
    models = {path.stem: path for path in folder.glob("*.onnx")}
    for inside in sorted(path for path in folder.glob("*") if path.is_dir()):
        files = _files(inside)
        if len(files) > 1 or (files and inside.name in models):
            raise SettingsError(f"{inside}: which of {', '.join(f.name for f in files)} is {inside.name!r}? Keep one")
        models.update((inside.name, path) for path in files)
    if not models:
        raise SettingsError(f"{folder}: there is no {SETTINGS} and no ONNX model, NAME.onnx or NAME/model.onnx")
    if len(models) == 1:
        models = {name: models.popitem()[1]}
    pipelines = [{"name": name, "steps": [{"model": str(path.absolute())}]} for name, path in sorted(models.items())]
    return Document(str(folder), {"pipelines": pipelines})


def _files(folder: Path) -> list[Path]:
    versions = sorted((int(path.name), path) for path in folder.glob("*") if path.is_dir() and path.name.isdecimal())
    return sorted((versions[-1][1] if versions else folder).glob("*.onnx"))
