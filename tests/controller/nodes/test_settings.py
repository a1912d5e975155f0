from __future__ import annotations

from datetime import UTC, datetime

import pytest

from headgate.controller.nodes.settings import NodesFile
from headgate.controller.settings import parse
from headgate.core.config import SettingsError, validate
from headgate.core.nodes.settings import GroupSettings, NodeSettings

MONDAY = datetime(2026, 11, 23, tzinfo=UTC).timestamp()
HOUR = 3600.0


def read(text: str) -> NodeSettings:
    return validate(parse(text, "nodes.yaml"), NodesFile).value(MONDAY)


def problem(text: str) -> str:
    with pytest.raises(SettingsError) as error:
        read(text)
    return str(error.value)


def test_what_is_not_said_is_the_default_of_core() -> None:
    (group,) = read("groups: [{name: default}]").groups
    assert group == GroupSettings("default")


def test_a_schedule_becomes_windows() -> None:
    (group,) = read(
        "groups: [{name: a, budgets: [{nodes: 0, schedule: '0 8 * * mon-fri', duration: 9h}, {nodes: 25%}]}]"
    ).groups
    closed, always = group.budgets
    assert (closed.nodes, always.share, always.windows) == (0, 0.25, None)
    assert closed.windows is not None
    assert closed.windows[0] == (MONDAY + 8 * HOUR, MONDAY + 17 * HOUR)
    assert len(closed.windows) == 6  # five days of this week and Monday of the next, within eight days
    assert [closed.active(MONDAY + hours * HOUR) for hours in (7.9, 8, 16.9, 17, 5 * 24 + 9)] == [
        False,
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("groups: []", "groups"),
        ("groups: [{name: a}, {name: a}]", "'a' is the name of groups[0] already"),
        ("groups: [{name: a, minimum: 5, maximum: 2}]", "group a: minimum 5 is above maximum 2"),
        ("groups: [{name: a, upper: 0.6, lower: 0.58}]", "otherwise a removal calls for the next addition"),
        ("groups: [{name: a, signals: [load]}]", "signals are one or more of usage, requests, demand"),
        ("groups: [{name: a, budgets: [{nodes: 120%}]}]", "neither a number of nodes nor a share"),
        ("groups: [{name: a, budgets: [{schedule: 'at noon', duration: 1h}]}]", "is not a cron schedule"),
        ("groups: [{name: a, budgets: [{schedule: '0 8 * * *'}]}]", "schedule and duration belong together"),
        ("groups: [{name: a, up_after: soon}]", "is not a duration"),
    ],
)
def test_a_mistake_is_named(text: str, expected: str) -> None:
    assert expected in problem(text)
    assert problem(text).startswith("nodes.yaml:1: ")
