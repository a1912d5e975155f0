from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from headgate.controller.backtest.grid import Trace
from headgate.controller.cli import Host
from headgate.controller.nodes.command import nodes
from headgate.controller.nodes.fluid import Queues
from headgate.controller.nodes.rivals import RULES, rival
from headgate.controller.nodes.simulate import Setting, headgate
from headgate.core.config import SettingsError
from headgate.core.nodes.settings import GroupSettings, NodeSettings
from headgate.core.providers import NodeTemplate


def setting(cpus: list[float], start: int, **group: object) -> Setting:
    """One pipeline that offers `cpus` CPUs of work in each minute."""
    cost = 0.1
    requests = np.array([[load * 60 / cost] for load in cpus])
    own = GroupSettings("pool", **({"minimum": 1, "maximum": 20, "template": NodeTemplate(4000)} | group))  # type: ignore[arg-type]
    return Setting(Trace(("us",), requests), cost, NodeSettings((own,)), start)


def test_a_queue_in_balance_makes_nothing_wait_and_an_overload_is_late_and_dropped() -> None:
    calm = Queues(slo=1.0, bound=10.0, backlog=np.zeros(1))
    assert calm.step(np.array([2.0]), np.array([2.0]), 10.0)[0] == 20.0
    assert (calm.violations, calm.dropped) == (0, 0)
    over = Queues(slo=1.0, bound=4.0, backlog=np.zeros(1))
    # 3 CPUs of work on 2: the wait grows from 0 to 10 / 2 = 5 s, of which 4 s' worth, 8 CPU seconds, are kept.
    over.step(np.array([3.0]), np.array([2.0]), 10.0)
    assert over.backlog[0] == pytest.approx(8.0)
    assert over.dropped == pytest.approx(2 / 30)
    assert over.violations == pytest.approx((5 - 1) / 5)


def test_the_same_load_gives_the_same_figures_and_steady_load_no_change() -> None:
    steady = setting([2.4] * 40, start=1)  # 0.6 of a node: between the thresholds
    first, record = headgate(steady)
    assert (first.additions, first.removals, first.violations) == (0, 0, 0)
    assert first.node_hours == pytest.approx(40 / 60)
    assert headgate(steady) == (first, record)


def test_a_rise_brings_as_many_nodes_as_it_needs_and_a_fall_takes_them_away() -> None:
    load = [2.0] * 10 + [12.0] * 40 + [2.0] * 60
    figures, record = headgate(setting(load, start=1))
    # 12 CPUs at a utilisation of 0.7 need 17.1 CPUs: five nodes of 4, and one for what has been waiting.
    assert 5 <= figures.most_nodes <= 6
    assert record.machines[-1] == 1
    assert figures.additions == figures.removals == figures.most_nodes - 1
    # The rise is seen for a minute, machines take two: three minutes of 110 are short of CPUs, and their backlog after.
    assert 0 < figures.violations < 10 / 110


@pytest.mark.parametrize("name", RULES)
def test_the_others_follow_their_rules(name: str) -> None:
    figures, record = rival(name, setting([2.0] * 10 + [12.0] * 40 + [1.0] * 60, start=1))
    # 12 CPUs at the HPA's 70 % are 18 replicas of 1 CPU: five nodes of 4 at the least.
    assert figures.most_nodes >= 5
    assert record.machines[-1] < figures.most_nodes


def test_replicas_that_fit_on_a_present_node_bring_no_other() -> None:
    # 1 CPU and then 2 at the HPA's 70 %: two and then three replicas, for which a node of 4 CPUs has room.
    figures, _ = rival("cluster-autoscaler", setting([1.0] * 10 + [2.0] * 20, start=1))
    assert (figures.most_nodes, figures.additions) == (1, 0)


def command(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(nodes, ["simulate", *arguments], obj=Host())
    if isinstance(result.exception, SettingsError):
        return 2, str(result.exception)
    assert result.exception is None, result.output
    return result.exit_code, result.output


def test_the_command_prints_a_table_or_json_and_writes_a_page(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("minute,pipeline,requests\n" + "".join(f"{m},us,{600 + 60 * m}\n" for m in range(12)))
    code, text = command("--trace", str(trace), "--report", str(tmp_path / "page.html"))
    assert code == 0
    assert all(name in text for name in ("headgate", "cluster-autoscaler", "escalator", "node hours"))
    page = (tmp_path / "page.html").read_text()
    assert page.count("<svg") == 2
    code, text = command("--trace", str(trace), "-o", "json")
    assert [r["policy"] for r in json.loads(text)["results"]] == ["headgate", "cluster-autoscaler", "escalator"]


def test_a_settings_file_sets_thresholds_and_mistakes_are_named(tmp_path: Path) -> None:
    trace, file = tmp_path / "trace.csv", tmp_path / "nodes.yaml"
    trace.write_text("minute,pipeline,requests\n0,us,60\n1,us,60\n")
    file.write_text(
        "groups:\n  - name: a\n    upper: 0.9\n    budgets: [{nodes: 20%, schedule: '0 8 * * *', duration: 9h}]\n"
    )
    assert command("--trace", str(trace), "--settings", str(file))[0] == 0
    file.write_text("groups:\n  - name: a\n    upper: 0.5\n")
    code, text = command("--trace", str(trace), "--settings", str(file))
    assert code == 2
    assert "nodes.yaml:2: groups[0]: group a: lower (0.5) must be above 0 and below upper - margin (0.45)" in text
    assert command("--trace", str(trace), "--columns", "job")[1].startswith("--columns: write it like pipeline=job")
    assert command("--trace", str(trace), "--cost", "fast")[1].startswith("--cost: 'fast' is not a duration")
    assert command("--trace", str(tmp_path / "none.csv"))[1].endswith(
        "none.csv: cannot be read: No such file or directory"
    )


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--unit", "8"), "--unit: a replica of 8 CPUs fits on no node of 4"),
        (("--cost", "0s"), "--cost: must be more than 0"),
    ],
)
def test_what_makes_no_comparison_is_refused(tmp_path: Path, option: tuple[str, str], message: str) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("minute,pipeline,requests\n0,us,60\n")
    code, text = command("--trace", str(trace), *option)
    assert code == 2
    assert text.startswith(message)
