import io
import json

import numpy as np
import pytest
from rich.console import Console

from headgate.engine.demo.findings import as_json, conclude
from headgate.engine.demo.machine import Layout, describe
from headgate.engine.demo.report import render, write_json
from headgate.engine.demo.session import Options
from headgate.engine.demo.summary import print_summary

HERE = Layout(2000, frozenset({0, 1}), frozenset({0, 1}))


@pytest.fixture
def findings(plan, costs, make_run):
    latency = np.random.default_rng(0).exponential(0.04, 140)
    runs = [
        make_run(name, latency * factor, np.full(140, 200))
        for name, factor in (("none", 3), ("static", 2), ("headgate", 1))
    ]
    return conclude(describe(), HERE, Options(), costs, plan, runs)


def test_the_page_needs_nothing_else(findings):
    page = render(findings)
    assert page.count("<svg") == 1
    for outside in ('src="', 'href="http', "@import", "url(http"):
        assert outside not in page
    for run in findings.runs:
        assert run.control.title in page


def test_the_page_shows_the_figures(findings):
    page = render(findings)
    live = findings.outcomes["headgate"].sustainable
    assert f"{live.miss_rate:.1%}  ({live.misses:,} of {live.requests:,})" in page
    assert all(verdict.measured in page for verdict in findings.verdicts)


def test_the_json_is_plain_and_complete(findings, tmp_path):
    write_json(findings, tmp_path / "results.json")
    got = json.loads((tmp_path / "results.json").read_text(), parse_constant=pytest.fail)
    assert set(got["runs"]) == {"none", "static", "headgate"}
    assert got["complete"] is True
    assert got["runs"]["headgate"]["figures"]["total"]["requests"] == 140
    assert as_json(findings)["pipelines"]["a"]["slo"] == 0.1


def test_an_interrupted_demo_says_so(plan, costs, make_run):
    run = make_run("none", np.full(140, 0.05), np.full(140, 200))
    partial = conclude(describe(), HERE, Options(), costs, plan, [run])
    assert not partial.complete
    assert "interrupted" in render(partial)
    text = io.StringIO()
    print_summary(partial, Console(file=text, width=120))
    assert "Interrupted" in text.getvalue()


def test_a_disturbed_machine_is_named(findings, plan, costs, make_run):
    quiet = conclude(describe(), HERE, Options(), costs, plan, findings.runs)
    assert not quiet.doubts
    run = findings.runs[2]
    noisy = type(run)(run.control, run.records, run.looks, type(run.disturbance)(0.7, 0.4), 1.0)
    doubts = conclude(describe(), HERE, Options(), costs, plan, [*findings.runs[:2], noisy]).doubts
    assert doubts == [
        "headgate: other processes used 0.70 CPUs",
        "headgate: the hypervisor gave 0.40 CPUs to other machines",
    ]
