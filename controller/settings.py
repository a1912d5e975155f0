"""Reads settings files, YAML or JSON, and remembers on which line each value stands."""

from __future__ import annotations

import json
import sys
from pathlib import Path as FilePath

import yaml

from headgate.core.config import Document, Path, SettingsError

# libyaml's parser is about eight times as fast; PyYAML is built without it on some platforms.
Loader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_DEEPEST = 50
"""Levels of nesting; settings need about six."""


def read(path: str) -> Document:
    """The settings file at `path`, "-" for standard input. Raises SettingsError when it cannot be read."""
    source = "standard input" if path == "-" else path
    try:
        text = (sys.stdin.buffer.read() if path == "-" else FilePath(path).read_bytes()).decode("utf-8")
    except OSError as error:
        raise SettingsError(f"{source}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"{source}: is not UTF-8 text: {error.reason} at byte {error.start}") from None
    return parse(text, source)


def parse(text: str, source: str) -> Document:
    """The document in `text`. Raises SettingsError on broken YAML or JSON and on a key given twice."""
    if text.lstrip().startswith("{"):
        try:
            return Document(source, json.loads(text, object_pairs_hook=_unique))
        except (ValueError, RecursionError):
            pass  # braces are YAML as well, and its parser says on which line the mistake is
    try:
        _check_depth(text, source)
        loader = Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return Document(source, None, {(): 1})
            lines: dict[Path, int] = {}
            _note_lines(node, (), lines, ())
            return Document(source, loader.construct_document(node), lines)
        finally:
            loader.dispose()
    except SettingsError:
        raise
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise SettingsError(f"{source}:{line}: is not valid YAML: {error.problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SettingsError(f"{source}: is not valid YAML: {' '.join(str(error).split())}") from None


def _check_depth(text: str, source: str) -> None:
    # libyaml builds its tree by recursion in C, where too deep a nesting ends the process instead of raising.
    depth = 0
    for event in yaml.parse(text, Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _DEEPEST:
                line = event.start_mark.line + 1 if event.start_mark else 1
                raise SettingsError(f"{source}:{line}: is nested too deeply: settings need a few levels")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is given twice")
    return found


def _note_lines(node: yaml.Node, path: Path, lines: dict[Path, int], around: tuple[yaml.Node, ...]) -> None:
    if node in around:
        raise yaml.MarkedYAMLError(problem="the value contains itself", problem_mark=node.start_mark)
    lines.setdefault(path, node.start_mark.line + 1)
    around = (*around, node)
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            if name in seen:
                raise yaml.MarkedYAMLError(problem=f"{name!r} is given twice: keep one", problem_mark=key.start_mark)
            seen.add(name)
            lines[(*path, name)] = key.start_mark.line + 1
            _note_lines(value, (*path, name), lines, around)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _note_lines(value, (*path, index), lines, around)
