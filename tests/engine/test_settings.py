"""What is wrong with the settings or the models is said with file, line and field, and ends with exit code 2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from headgate.controller.cli import cli
from headgate.controller.settings import parse
from headgate.core.address import parse_address
from headgate.core.config import validate
from headgate.core.units import parse_size
from headgate.engine.cpus import usable_cpus
from headgate.engine.plugin import headgate_register_commands
from headgate.engine.settings import EngineSettings

GOOD = "pipelines:\n  - name: a\n    steps: [{model: first.onnx}]\n"
TWO = GOOD + "  - name: b\n    steps:\n      - model: second.onnx\n"

WRONG = {
    "missing model": (TWO.replace("second", "none"), 6, "pipelines[1].steps[0].model", "no model file"),
    "broken model": (TWO.replace("second", "broken"), 6, "pipelines[1].steps[0].model", "ONNX Runtime can load"),
    "chain of other width": (
        TWO + "      - model: wide.onnx\n",
        7,
        "pipelines[1].steps[1].model",
        "input 'x' is of shape [-1, 5], the step before gives [-1, 4] ('y')",
    ),
    "chain of other type": (
        TWO + "      - model: double.onnx\n",
        7,
        "pipelines[1].steps[1].model",
        "is FP64, the step",
    ),
    "chain without names": (
        TWO + "      - model: pair.onnx\n",
        7,
        "pipelines[1].steps[1].model",
        "(a, b) are not among",
    ),
    "unknown key": (GOOD + "    flor: 1\n", 4, "pipelines[0].flor", "unknown setting; known here: ceiling, floor"),
    "unknown key above": (GOOD + "polcy: x\n", 4, "polcy", "unknown setting"),
    "floors above the budget": (
        "budget: 500m\n" + GOOD + "    floor: 600m\n",
        1,
        "budget",
        "the floors need 600m CPUs (a 600m), the budget is 500m",
    ),
    "twice the same name": (TWO.replace("name: b", "name: a"), 4, "pipelines[1].name", "is the name of pipelines[0]"),
    "name for no URL": (GOOD.replace("name: a", "name: a/b"), 2, "pipelines[0].name", "cannot stand in a URL"),
    "no steps": ("pipelines:\n  - name: a\n    steps: []\n", 3, "pipelines[0].steps", "at least 1 item"),
    "no pipelines": ("pipelines: []\n", 1, "pipelines", "at least 1 item"),
    "no budget": ("budget: 0\n" + GOOD, 1, "budget", "greater than 0"),
    "ceiling of nothing": (GOOD + "    ceiling: 0\n", 4, "pipelines[0].ceiling", "never answers"),
    "address": ("listen: here\n" + GOOD, 1, "listen", "write it like 127.0.0.1:8080"),
    "size": ("max_body: much\n" + GOOD, 1, "max_body", "write it like 64MiB"),
    "interval": ("interval: 0\n" + GOOD, 1, "interval", "greater than 0"),
    "control": ("control: some\n" + GOOD, 1, "control", "'live' or 'none'"),
    "policy": ("policy: best\n" + GOOD, 1, "policy", "'best' is not known"),
    "queue": (GOOD + "    queue: 0\n", 4, "pipelines[0].queue", "greater than or equal to 1"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_is_named_with_its_line(models: Path, case: str) -> None:
    text, line, field, message = WRONG[case]
    path = models / f"wrong-{case.replace(' ', '-')}.yaml"
    path.write_text(text)
    headgate_register_commands(cli)
    ended = CliRunner().invoke(cli, ["serve", str(path)])
    assert ended.exit_code == 2, ended.output
    assert f"{path}:{line}: {field}: " in ended.stderr
    assert message in ended.stderr
    assert not ended.stdout


def read(text: str) -> EngineSettings:
    return validate(parse(text, "engine.yaml"), EngineSettings)


def test_the_defaults_are_safe() -> None:
    settings = read(GOOD)
    assert (settings.listen.host, settings.listen.port) == ("127.0.0.1", 8080)
    assert settings.budget == usable_cpus()
    assert (settings.control, settings.lend, settings.max_body) == ("live", True, 64 * 2**20)


@pytest.mark.parametrize(
    ("text", "size"), [("64MiB", 64 * 2**20), ("1Ki", 1024), ("2M", 2_000_000), (4096, 4096), ("10B", 10)]
)
def test_a_size_is_in_bytes(text: object, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("bad", ["", "0", 0, -1, "1 TB", "x", True, None, 1.5])
def test_what_is_not_a_size_is_an_error(bad: object) -> None:
    with pytest.raises(ValueError, match=r"not a size"):
        parse_size(bad)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("127.0.0.1:0", "127.0.0.1", 0), ("[::1]:80", "::1", 80), ("localhost:1", "localhost", 1)],
)
def test_an_address_has_a_host_and_a_port(text: str, host: str, port: int) -> None:
    found: Any = parse_address(text)
    assert (found.host, found.port) == (host, port)


@pytest.mark.parametrize("bad", ["8080", ":8080", "a:65536", "a:-1", "a:b", None, 80])
def test_what_is_not_an_address_is_an_error(bad: object) -> None:
    with pytest.raises(ValueError, match=r"not an address"):
        parse_address(bad)
