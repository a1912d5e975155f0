from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import Field

from headgate.controller import settings
from headgate.core.config import FieldError, Model, PipelineSettings, SettingsError, check_floors, check_names, validate
from headgate.core.model import Pipeline


class Fleet(Model):
    budget: str
    pipelines: list[PipelineSettings]


def problems(text: str) -> list[str]:
    with pytest.raises(SettingsError) as error:
        validate(settings.parse(text, "fleet.yaml"), Fleet)
    return str(error.value).splitlines()


GOOD = """\
budget: "2"
pipelines:
  - name: us
    floor: 250m
    ceiling: 1.5
    slo: {latency: 50ms, percentile: 99}
  - name: eu
"""


def test_quantities_and_durations_become_millicores_and_seconds() -> None:
    us, eu = validate(settings.parse(GOOD, "fleet.yaml"), Fleet).pipelines
    assert (us.floor, us.ceiling) == (250, 1500)
    assert us.slo is not None
    assert (us.slo.latency, us.slo.percentile) == (0.05, 99)
    assert eu.value() == Pipeline("eu")


def test_an_unknown_key_is_named_with_its_line_and_the_known_ones() -> None:
    (problem,) = problems(GOOD.replace("floor:", "flor:"))
    assert problem.startswith("fleet.yaml:4: pipelines[0].flor: unknown setting; known here: ceiling, floor")


def test_every_mistake_is_reported_at_once_each_on_its_line() -> None:
    found = problems("pipelines:\n  - floor: lots\n  - name: eu\n    weight: -1\n")
    assert found == [
        "fleet.yaml:1: budget: required",
        "fleet.yaml:2: pipelines[0].name: required",
        "fleet.yaml:2: pipelines[0].floor: 'lots' is not a CPU quantity: write it like 250m, 2 or 1.5",
        "fleet.yaml:4: pipelines[1].weight: input should be greater than 0, found -1",
    ]


def test_a_list_whose_one_entry_is_wrong_is_not_called_empty_as_well() -> None:
    class Filled(Model):
        pipelines: tuple[PipelineSettings, ...] = Field(min_length=1)

    def said(text: str) -> list[str]:
        with pytest.raises(SettingsError) as error:
            validate(settings.parse(text, "fleet.yaml"), Filled)
        return str(error.value).splitlines()

    (wrong,) = said("pipelines:\n  - {name: us, weight: -1}\n")
    assert wrong.startswith("fleet.yaml:2: pipelines[0].weight: ")
    (empty,) = said("pipelines: []\n")
    assert "at least 1 item" in empty


def test_a_floor_above_its_ceiling_names_the_pipeline() -> None:
    (problem,) = problems(GOOD.replace("250m", "1750m"))
    assert problem == "fleet.yaml:4: pipelines[0].floor: pipeline us: floor 1750m is above its ceiling 1500m"


# Ten lines whose aliases stand for ten thousand million values.
BOMB = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 11))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1\n", "fleet.yaml:2: is not valid YAML"),
        ("a: 1\na: 2\n", "fleet.yaml:2: is not valid YAML: 'a' is given twice: keep one"),
        ('{"a": 1,\n"a": 2}', "fleet.yaml:2: is not valid YAML: 'a' is given twice: keep one"),
        ('{"a": 1,\n"b" 2}', "fleet.yaml:2: is not valid YAML"),
        ("[" * 100_000, "fleet.yaml:1: is nested too deeply"),
        ("", "fleet.yaml:1: expected a mapping of settings, found nothing"),
        ("- 1\n", "fleet.yaml:1: expected a mapping of settings, found a list"),
        ("budget: !!python/object/apply:os.system [ls]\n", "fleet.yaml:1: is not valid YAML"),
        ("a: &a [*a]\n", "fleet.yaml:1: is not valid YAML: the value contains itself"),
        ("{}: 1\n? [x]\n: 2\n", "fleet.yaml"),
        ("budget: \x00\n", "fleet.yaml: is not valid YAML"),
        (f"a: 1\nbudget: {'9' * 5000}\n", "fleet.yaml:2: is not valid YAML: a number has too many digits"),
        (BOMB, "fleet.yaml:1: is not valid YAML: its aliases repeat one another"),
    ],
)
def test_what_is_not_a_settings_file_is_an_error_that_says_where(text: str, message: str) -> None:
    assert problems(text)[0].startswith(message)


def test_json_is_read_as_well() -> None:
    assert validate(settings.parse('{"budget": "2", "pipelines": []}', "fleet.json"), Fleet).pipelines == []


def test_a_file_that_is_missing_or_not_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"missing\.yaml: cannot be read: No such file"):
        settings.read(str(tmp_path / "missing.yaml"))
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match=r"binary\.yaml: is not UTF-8 text"):
        settings.read(str(tmp_path / "binary.yaml"))


def test_two_pipelines_of_one_name_are_an_error_at_the_second() -> None:
    with pytest.raises(FieldError, match=r"'a' is the name of pipelines\[0\] already") as error:
        check_names(["a", "b", "a"])
    assert error.value.path == ("pipelines", 2, "name")


def test_floors_above_the_budget_are_named() -> None:
    with pytest.raises(FieldError, match=r"the floors need 2500m CPUs \(us 1500m, eu 1\), the budget is 2:"):
        check_floors([Pipeline("us", floor=1500), Pipeline("eu", floor=1000), Pipeline("asia")], 2000)
