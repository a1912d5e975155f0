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

_MOST_REPEATED = 100
"""Values of the document, those that aliases repeat counted each time, for each one that is written in the file."""

_MOST_DIGITS = 1000
"""Of a whole number: Python reads no more than a few thousand."""


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
        written = _check_depth(text, source)
        loader = Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return Document(source, None, {(): 1})
            lines: dict[Path, int] = {}
            _check_size(node, written * _MOST_REPEATED)
            _note_lines(node, (), lines)
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


def _check_depth(text: str, source: str) -> int:
    """How many values, aliases included, are written in `text`."""
    # libyaml builds its tree by recursion in C, where too deep a nesting ends the process instead of raising.
    depth = written = 0
    for event in yaml.parse(text, Loader):
        written += isinstance(event, yaml.NodeEvent)
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _DEEPEST:
                line = event.start_mark.line + 1 if event.start_mark else 1
                raise SettingsError(f"{source}:{line}: is nested too deeply: settings need a few levels")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
    return written


def _check_size(node: yaml.Node, most: int) -> None:
    """That aliases of aliases do not make a small file a huge document. Raises MarkedYAMLError."""
    sizes: dict[int, int] = {}

    def size(node: yaml.Node, around: tuple[yaml.Node, ...]) -> int:
        if node in around:
            raise yaml.MarkedYAMLError(problem="the value contains itself", problem_mark=node.start_mark)
        if id(node) not in sizes:
            parts = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
            inside = parts if isinstance(node, yaml.CollectionNode) else ()
            sizes[id(node)] = 1 + sum(size(part, (*around, node)) for part in inside)
        return sizes[id(node)]

    if size(node, ()) > most:
        raise yaml.MarkedYAMLError(
            problem="its aliases repeat one another to more than settings can be: write the values out",
            problem_mark=node.start_mark,
        )


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is given twice")
    return found


def _note_lines(node: yaml.Node, path: Path, lines: dict[Path, int]) -> None:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            if name in seen:
                raise yaml.MarkedYAMLError(problem=f"{name!r} is given twice: keep one", problem_mark=key.start_mark)
            seen.add(name)
            lines[(*path, name)] = key.start_mark.line + 1
            _note_lines(value, (*path, name), lines)
    elif isinstance(node, yaml.ScalarNode):
        if node.tag.endswith(":int") and len(node.value) > _MOST_DIGITS:
            raise yaml.MarkedYAMLError(problem="a number has too many digits", problem_mark=node.start_mark)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _note_lines(value, (*path, index), lines)
