"""`headgate allocate` as a user runs it: snapshots whose answers are worked out by hand, and mistakes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from headgate.controller.cli import cli

EXAMPLE = Path(__file__).parents[2] / "examples" / "snapshot.yaml"


def run(snapshot: object, *options: str) -> Result:
    text = snapshot if isinstance(snapshot, str) else yaml.safe_dump(snapshot)
    return CliRunner().invoke(cli, ["allocate", "-", *options], input=text)


def answer(snapshot: object, *options: str) -> Any:
    result = run(snapshot, "-o", "json", *options)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def mistake(snapshot: object, *options: str) -> str:
    result = run(snapshot, *options)
    assert result.exit_code == 2, result.output
    assert not result.stdout
    return result.stderr


def pipeline(name: str, load: float, **more: object) -> dict[str, object]:
    """One with an offered load of `load` CPUs."""
    return {"name": name, "arrival_rate": load * 100, "cpu_seconds_per_request": 0.01, **more}


def test_equal_weights_run_at_equal_utilisation() -> None:
    # 8 CPUs over loads of 1, 2 and 1: theta = 2.
    found = answer({"budget": "8", "pipelines": [pipeline("a", 1), pipeline("b", 2), pipeline("c", 1)]})
    assert found["allocations"] == {"a": 2000, "b": 4000, "c": 2000}
    assert found["unmet"] == {"a": 0, "b": 0, "c": 0}
    assert set(found) >= {"allocations", "replicas", "unmet", "reasons", "objective"}


def test_weights_floors_and_ceilings_share_one_theta() -> None:
    # a is held by its ceiling (1), d by its floor (0.5); 4.5 CPUs are left for b (2 x 1) and c (1): theta = 1.5.
    pipelines = [
        pipeline("a", 2, ceiling="1"),
        pipeline("b", 1, weight=2),
        pipeline("c", 1),
        pipeline("d", 0.1, floor="500m"),
    ]
    assert answer({"budget": "6", "pipelines": pipelines})["allocations"] == {"a": 1000, "b": 3000, "c": 1500, "d": 500}


def test_no_load_anywhere_shares_by_weight() -> None:
    pipelines = [pipeline("a", 0, weight=3), pipeline("b", 0)]
    assert answer({"budget": "2", "pipelines": pipelines})["allocations"] == {"a": 1500, "b": 500}


def test_what_no_ceiling_takes_stays_unspent() -> None:
    pipelines = [pipeline("a", 3, ceiling="1"), pipeline("b", 1, ceiling="500m")]
    found = answer({"budget": "4", "pipelines": pipelines})
    assert found["allocations"] == {"a": 1000, "b": 500}
    assert found["unmet"] == {"a": 2000, "b": 500}


def test_whole_cpus_never_exceed_the_budget() -> None:
    # Shares of 7/3 CPUs each: two whole ones, and the seventh to one of them.
    found = answer({"budget": "7", "pipelines": [pipeline(name, 1, step="1") for name in "abc"]})
    assert sorted(found["allocations"].values()) == [2000, 2000, 3000]


def test_groups_inside_groups_and_nodes_hold_at_once() -> None:
    snapshot = {
        "budget": "10",
        "pipelines": [
            pipeline("a", 4, group="inner", replicas=[{"name": "a-0", "node": "n1"}, {"name": "a-1", "node": "n2"}]),
            pipeline("b", 4, group="outer"),
            pipeline("c", 4, replicas=[{"name": "c-0", "node": "n1"}]),
        ],
        "groups": [{"name": "outer", "budget": "5"}, {"name": "inner", "budget": "1500m", "parent": "outer"}],
        "nodes": [{"name": "n1", "free": "3"}, {"name": "n2", "free": "1"}],
    }
    found = answer(snapshot)
    grants, replicas = found["allocations"], found["replicas"]
    # inner holds a at 1.5, so that b has the other 3.5 of outer; n1 and n2 hold 4 for a and c together.
    assert grants == {"a": 1500, "b": 3500, "c": 2500}
    assert replicas["a-0"] + replicas["a-1"] == 1500
    assert replicas["c-0"] == 2500
    assert replicas["a-0"] + replicas["c-0"] <= 3000
    assert replicas["a-1"] <= 1000


def test_a_higher_class_is_served_first() -> None:
    pipelines = [pipeline("low", 3), pipeline("high", 2, priority=1)]
    found = answer({"budget": "3", "pipelines": pipelines})["allocations"]
    assert found == {"low": 1000, "high": 2000}


def test_slo_is_the_policy_of_pipelines_with_an_slo() -> None:
    slo = {"latency": "50ms", "percentile": 95}
    pipelines = [pipeline("calm", 0.5, slo=slo), pipeline("flood", 20, slo=slo)]
    snapshot = {"budget": "4", "pipelines": pipelines}
    # In proportion calm would have 4 x 0.5 / 20.5 CPUs, a fifth of its load; nothing can save the flood.
    assert answer(snapshot)["allocations"]["calm"] > 800
    assert answer(snapshot, "--policy", "proportional")["allocations"]["calm"] == pytest.approx(98, abs=1)
    for policy in ("equal", "slo", "slo-fair", "slo-fairsum"):
        assert sum(answer(snapshot, "--policy", policy)["allocations"].values()) == 4000


def test_a_demand_that_is_not_known_keeps_what_it_has() -> None:
    pipelines = [{**pipeline("dark", 1), "arrival_rate": None, "current": "1500m"}, pipeline("a", 1)]
    assert answer({"budget": "4", "pipelines": pipelines})["allocations"] == {"dark": 1500, "a": 2500}


def test_every_format_says_the_same(tmp_path: Path) -> None:
    file = tmp_path / "snapshot.json"
    file.write_text(json.dumps({"budget": 2, "pipelines": [pipeline("a", 1), pipeline("b", 1)]}))
    outputs = {o: CliRunner().invoke(cli, ["allocate", str(file), "-o", o]).stdout for o in ("json", "yaml", "table")}
    assert yaml.safe_load(outputs["yaml"]) == json.loads(outputs["json"])
    assert json.loads(outputs["json"])["allocations"] == {"a": 1000, "b": 1000}
    assert "a" in outputs["table"]


def test_the_example_runs() -> None:
    result = CliRunner().invoke(cli, ["allocate", str(EXAMPLE)])
    assert result.exit_code == 0, result.output


def test_no_pipeline_and_a_million_cpus_are_answered() -> None:
    assert answer({"budget": "8", "pipelines": []})["allocations"] == {}
    assert answer({"budget": "1000000", "pipelines": [pipeline("a", 1)]})["allocations"] == {"a": 10**9}


@pytest.mark.parametrize("number", [".nan", ".inf", "-1", "lots"])
@pytest.mark.parametrize("key", ["arrival_rate", "cpu_seconds_per_request"])
def test_a_rate_or_cost_that_is_none_is_named(key: str, number: str) -> None:
    entry = {"arrival_rate": "1", "cpu_seconds_per_request": "1", key: number}
    text = "budget: 1\npipelines:\n- name: a\n" + "".join(f"  {k}: {v}\n" for k, v in entry.items())
    assert f"pipelines[0].{key}" in mistake(text)


@pytest.mark.parametrize(
    ("snapshot", "words"),
    [
        ({"budget": "1", "pipelines": [pipeline("a", 1), pipeline("a", 1)]}, ["'a' is the name of pipelines[0]"]),
        ({"budget": "1", "pipelines": [pipeline("a", 1, floor="2", ceiling="1")]}, ["pipeline a", "floor 2", "1"]),
        ({"budget": "1", "pipelines": [pipeline("a", 1, group="x")]}, ["pipelines[0].group", "'x' is not defined"]),
        ({"budget": "1", "pipelines": [pipeline("a", 1)], "policy": "best"}, ["policy", "'best' is not known"]),
        ({"budget": "-1", "pipelines": []}, ["budget", "negative"]),
        ({"budget": "1", "pipelines": [pipeline("a", 1, weight=0)]}, ["pipelines[0].weight"]),
        ({"budget": "1", "pipelines": [pipeline("a", 1, weight=1e308)]}, ["pipelines[0].weight"]),
        ({"budget": "1", "pipelines": [pipeline("a", 1, weight=True)]}, ["pipelines[0].weight", "true"]),
        ({"budget": "1", "pipelines": [pipeline("a", 1, priority=10**30)]}, ["pipelines[0].priority"]),
        ({"budget": "1", "pipelines": [pipeline("a", 1e14, queue=1e15)]}, ["pipelines[0].queue"]),
        ({"budget": "1", "pipelines": [pipeline("a", 1, step="0")]}, ["pipelines[0].step"]),
        ({"pipelines": []}, ["budget: required"]),
        (
            {"budget": "1", "pipelines": [pipeline("a", 1, floor="600m"), pipeline("b", 1, floor="500m")]},
            ["the budget, 1,", "a has floor 600m", "b has floor 500m"],
        ),
        (
            {
                "budget": "9",
                "pipelines": [pipeline("a", 1, floor="2", group="g"), pipeline("b", 1, floor="2")],
                "groups": [{"name": "g", "budget": "1"}],
            },
            ["group g", "a has floor 2"],
        ),
        (
            {"budget": "1", "pipelines": [], "groups": [{"name": "g", "budget": "1", "parent": "g"}]},
            ["g"],
        ),
    ],
)
def test_mistakes_are_named_and_end_with_2(snapshot: dict[str, object], words: list[str]) -> None:
    said = mistake(snapshot)
    assert all(word in said for word in words), said


def test_only_the_limits_that_contradict_are_blamed() -> None:
    snapshot = {
        "budget": "9",
        "pipelines": [pipeline("a", 1, floor="2", group="g"), pipeline("innocent", 1, floor="2")],
        "groups": [{"name": "g", "budget": "1"}],
    }
    assert "innocent" not in mistake(snapshot)
