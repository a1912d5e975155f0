"""Alerts and dashboard ask for metrics that the controller exports, and the alerts fire when they should."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from .files import DEPLOY, ROOT, Object

ALERTS = DEPLOY / "prometheus" / "alerts.yaml"
DASHBOARD = DEPLOY / "grafana" / "headgate.json"
NAME = re.compile(r"\bheadgate_[a-z_]+")


def used_by_alerts() -> set[str]:
    return {name for rule in alerts() for name in NAME.findall(rule["expr"])}


def used_by_the_dashboard() -> set[str]:
    found = json.loads(DASHBOARD.read_text())
    texts = [target["expr"] for panel in found["panels"] for target in panel["targets"]]
    texts += [variable["query"]["query"] for variable in found["templating"]["list"] if variable["type"] == "query"]
    return {name for text in texts for name in NAME.findall(text)}


def alerts() -> list[Object]:
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def test_every_metric_is_documented_as_the_controllers() -> None:
    text = (ROOT / "docs" / "metrics.md").read_text()
    engine, controller = text.split("## The controller")
    shared = {n for n in NAME.findall(engine) if n.startswith(("headgate_plugin_", "headgate_source_"))}
    known = set(re.findall(r"^\| `(\w+)`", controller, re.MULTILINE)) | shared
    assert used_by_alerts() - known == set()
    assert used_by_the_dashboard() - known == set()


def test_every_alert_says_what_it_means() -> None:
    for rule in alerts():
        assert rule["annotations"].keys() == {"summary", "description"}
        assert rule["labels"]["severity"] in ("info", "warning", "critical")


def test_panels_do_not_overlap() -> None:
    places = [panel["gridPos"] for panel in json.loads(DASHBOARD.read_text())["panels"]]
    cells = [(x, y) for p in places for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


def promtool(*arguments: str, cwd: Path | None = None) -> None:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("there is no promtool on the PATH (Debian: apt-get install prometheus)")
    found = subprocess.run([program, *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr


def test_promtool_takes_the_rules() -> None:
    promtool("check", "rules", str(ALERTS))


BAD = {
    "HeadgateNoLeader": {"headgate_leader{INSTANCE}": "0x60"},
    "HeadgateTurnsFail": {
        "headgate_turns_total{INSTANCE}": "0+6x60",
        "headgate_turns_failed_total{INSTANCE}": "0+5x60",
    },
    "HeadgateStale": {"headgate_last_turn_timestamp_seconds{INSTANCE}": " ".join(["NaN"] * 60)},
    "HeadgateBudgetNotReady": {
        'headgate_budget_ready{INSTANCE,budget="a/b"}': "0x60",
        "headgate_leader{INSTANCE}": "1x60",
    },
    "HeadgateUnmet": {
        'headgate_cpu_unmet_cores{INSTANCE,budget="a/b",pipeline="a/x"}': "0.3x60",
        'headgate_cpu_unmet_cores{INSTANCE,budget="a/b",pipeline="a/y"}': "0.3x60",
        'headgate_budget_cores{INSTANCE,budget="a/b"}': "10x60",
        "headgate_leader{INSTANCE}": "1x60",
    },
    "HeadgateRefused": {
        'headgate_refused{INSTANCE,budget="a/b",reason="QosClass"}': "1x60",
        "headgate_leader{INSTANCE}": "1x60",
    },
    "HeadgatePending": {'headgate_pending_changes{INSTANCE,budget="a/b"}': "2x60", "headgate_leader{INSTANCE}": "1x60"},
    "HeadgateSourceSilent": {'headgate_source_age_seconds{INSTANCE,source="p"}': " ".join(["Inf"] * 60)},
}
GOOD = {
    "headgate_leader{INSTANCE}": "1x60",
    "headgate_turns_total{INSTANCE}": "0+6x60",
    "headgate_turns_failed_total{INSTANCE}": "0+1x60",
    "headgate_last_turn_timestamp_seconds{INSTANCE}": "0+60x60",
    'headgate_budget_ready{INSTANCE,budget="a/b"}': "1x60",
    'headgate_cpu_unmet_cores{INSTANCE,budget="a/b",pipeline="a/x"}': "0.4x60",
    'headgate_budget_cores{INSTANCE,budget="a/b"}': "10x60",
    'headgate_refused{INSTANCE,budget="a/b",reason="NoPods"}': "1x60",
    'headgate_pending_changes{INSTANCE,budget="a/b"}': " ".join(["1 0"] * 30),
    'headgate_source_age_seconds{INSTANCE,source="p"}': "15x60",
}


def _series(values: dict[str, str], instance: str = "one") -> list[Object]:
    labels = f'instance="{instance}",job="headgate",namespace="headgate"'
    return [{"series": name.replace("INSTANCE", labels), "values": value} for name, value in values.items()]


def test_each_alert_fires_on_what_it_is_for_and_on_nothing_else(tmp_path: Path) -> None:
    assert BAD.keys() == {rule["alert"] for rule in alerts()}
    shutil.copy(ALERTS, tmp_path / "alerts.yaml")
    tests = [
        {
            "interval": "1m",
            "input_series": _series(values),
            "promql_expr_test": [
                {
                    "expr": f'count(ALERTS{{alertname="{name}",alertstate="firing"}})',
                    "eval_time": "50m",
                    "exp_samples": [{"labels": "{}", "value": 1}],
                }
            ],
        }
        for name, values in BAD.items()
    ]
    # A leader and a standby that are well, but for what any cluster has.
    standby = {"headgate_leader{INSTANCE}": "0x60", 'headgate_budget_ready{INSTANCE,budget="a/b"}': "0x60"}
    tests.append(
        {
            "interval": "1m",
            "input_series": _series(GOOD) + _series(standby, "two"),
            "promql_expr_test": [
                {"expr": 'count(ALERTS{alertstate="firing"})', "eval_time": f"{minute}m"} for minute in (9, 50)
            ],
        }
    )
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump({"rule_files": ["alerts.yaml"], "tests": tests}))
    promtool("test", "rules", "tests.yaml", cwd=tmp_path)
