"""Which models are in a mounted folder, and under which names."""

from __future__ import annotations

from pathlib import Path

import pytest

from headgate.adapters.kserve.runtime.folder import document_of
from headgate.controller.settings import read
from headgate.core.config import SettingsError


def folder(tmp_path: Path, *files: str) -> Path:
    for name in files:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return tmp_path


def models(at: Path) -> dict[str, str]:
    data = document_of(at, "service", read).data
    assert isinstance(data, dict)
    return {p["name"]: str(Path(p["steps"][0]["model"]).relative_to(at)) for p in data["pipelines"]}


def test_files_folders_and_versions(tmp_path: Path) -> None:
    at = folder(
        tmp_path, "a.onnx", "b/model.onnx", "c/1/model.onnx", "c/10/model.onnx", "c/9/model.onnx", "notes/x.txt"
    )
    assert models(at) == {"a": "a.onnx", "b": "b/model.onnx", "c": "c/10/model.onnx"}


@pytest.mark.parametrize("file", ["model.onnx", "anything/model.onnx", "anything/3/model.onnx"])
def test_a_single_model_has_the_service_s_name(tmp_path: Path, file: str) -> None:
    assert models(folder(tmp_path, file)) == {"service": file}


def test_settings_that_travel_with_the_models_count(tmp_path: Path) -> None:
    folder(tmp_path, "a.onnx")
    (tmp_path / "headgate.yaml").write_text("pipelines: [{name: mine, steps: [{model: a.onnx}]}]")
    document = document_of(tmp_path, "service", read)
    assert document.source == str(tmp_path / "headgate.yaml")
    assert document.data == {"pipelines": [{"name": "mine", "steps": [{"model": "a.onnx"}]}]}


@pytest.mark.parametrize("files", [("a/x.onnx", "a/y.onnx"), ("a.onnx", "a/model.onnx")])
def test_what_cannot_be_told_apart_is_not_guessed(tmp_path: Path, files: tuple[str, ...]) -> None:
    with pytest.raises(SettingsError, match=r"'a'\? Keep one"):
        document_of(folder(tmp_path, *files), "service", read)


def test_nothing_to_serve_is_said(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"no headgate\.yaml and no ONNX model"):
        document_of(folder(tmp_path, "readme.md"), "service", read)


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="there is no such folder"):
        document_of(tmp_path / "models", "service", read)
