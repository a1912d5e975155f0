"""Reads settings files, YAML or JSON, and remembers on which line each value stands."""

from __future__ import annotations

import sys
from pathlib import Path as FilePath

import yaml

from headgate.core.config import Document, Path, SettingsError


def read(path: str) -> Document:
    """The settings file at `path`, "-" for standard input. Raises SettingsError when it cannot be read."""
    source = "standard input" if path == "-" else path
    try:
        text = sys.stdin.read() if path == "-" else FilePath(path).read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"{source}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"{source}: is not UTF-8 text: {error.reason} at byte {error.start}") from None
    return parse(text, source)


def parse(text: str, source: str) -> Document:
    """The document in `text`. Raises SettingsError on broken YAML and on a key given twice."""
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return Document(source, None, {(): 1})
        lines: dict[Path, int] = {}
        _note_lines(node, (), lines, source)
        return Document(source, loader.construct_document(node), lines)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise SettingsError(f"{source}:{line}: is not valid YAML: {error.problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SettingsError(f"{source}: is not valid YAML: {error}") from None
    finally:
        loader.dispose()


def _note_lines(node: yaml.Node, path: Path, lines: dict[Path, int], source: str) -> None:
    if path in lines:
        return  # an alias that contains itself, or a node seen already
    lines[path] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            if name in seen:
                raise SettingsError(f"{source}:{key.start_mark.line + 1}: {name!r} is given twice: keep one")
            seen.add(name)
            _note_lines(value, (*path, name), lines, source)
            lines[(*path, name)] = key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _note_lines(value, (*path, index), lines, source)
