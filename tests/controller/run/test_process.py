"""`headgate run` as a user runs it: a process of its own, a host that keeps its services in a file."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
import yaml

from ..conftest import install_into

HOST = Path(__file__).with_name("memory_host.py")
SERVICES = {"a/busy": {"asked": 2000, "rate": 27}, "a/idle": {"asked": 2000, "rate": 3}}
# Proportional, 4 CPUs for loads of 2.7 and 0.3.
WANTED = {"a/busy": 3600, "a/idle": 400}


BATCH = """
import json, sys
from click.testing import CliRunner
from headgate.controller import cli
from headgate.controller.installed import plugins
for hook in plugins().hooks("headgate_register_commands"):
    hook.call(cli=cli.cli)
results = [CliRunner().invoke(cli.cli, command) for command in json.loads(sys.argv[1])]
print(json.dumps([[r.exit_code, r.stdout, r.stderr] for r in results]))
"""


class Place:
    """A folder with settings, the host's file, and the processes started there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[subprocess.Popen[str]] = []
        site = folder / "site"
        site.mkdir()
        install_into(site, "memory-host", HOST.read_text())
        self.environment = {**os.environ, "PYTHONPATH": f"{os.environ.get('PYTHONPATH', '')}:{site}"}
        self.services(SERVICES)
        self.settings()

    def settings(self, lag: float = 0.0, budget: dict[str, Any] | None = None, **more: Any) -> None:
        own = {"name": "main", "namespace": "a", "total": "4", "mode": "Apply", "pipelines": [{"selector": {}}]}
        data = {
            "interval": "100ms",
            "host": {"kind": "memory", "path": "host.json", "lag": lag},
            "listen": "127.0.0.1:0",
            "budgets": [own | (budget or {})],
            **more,
        }
        # As an editor does it: nobody ever reads half a file.
        fresh = self.folder / "run.new"
        fresh.write_text(yaml.safe_dump(data))
        fresh.replace(self.folder / "run.yaml")

    def services(self, services: dict[str, Any]) -> None:
        (self.folder / "host.json").write_text(json.dumps(services))

    def asked(self) -> dict[str, int]:
        found = json.loads((self.folder / "host.json").read_text())
        return {name: service["asked"] for name, service in found.items()}

    def sums(self) -> list[int]:
        """What was taken after each call that could write."""
        return [json.loads(line)[1] for line in (self.folder / "host.log").read_text().splitlines()]

    def command(self, name: str, *options: str) -> list[str]:
        return [sys.executable, "-m", "headgate", name, "run.yaml", *options]

    def run(self, *options: str, name: str = "run") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(name, *options),
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def batch(self, *commands: list[str]) -> list[tuple[int, str, str]]:
        """Exit code, output and errors of several commands in one process, which is most of what each would cost."""
        found = subprocess.run(
            [sys.executable, "-c", BATCH, json.dumps(commands)],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return [tuple(each) for each in json.loads(found.stdout)]

    def start(self, *options: str) -> Controller:
        process = subprocess.Popen(
            self.command("run", *options),
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return Controller(process)


class Controller:
    """A process that runs, and its address."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("listening on "), process.stderr and process.stderr.read()
        self.url = line.split()[-1]

    def get(self, path: str) -> str:
        with urlopen(self.url + path) as answer:
            return str(answer.read().decode())

    def ready(self) -> bool:
        try:
            return self.get("/readyz") == "ok\n"
        except HTTPError as error:
            if error.code != 503:  # before its first turn
                raise
            return False

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.get("/status"))
        return found

    def condition(self, kind: str) -> str:
        budget = self.status()["budgets"].get("a/main", {"conditions": []})
        return next((c["reason"] for c in budget["conditions"] if c["type"] == kind), "")

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Exit code and log."""
        self.process.send_signal(number)
        _, log = self.process.communicate(timeout=60)
        return self.process.returncode, log


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    for process in made.started:
        if process.poll() is None:
            process.kill()
            process.communicate()


def until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "never happened"
        time.sleep(0.02)


def test_a_dry_run_shows_everything_and_writes_nothing(place: Place) -> None:
    before = {path: path.read_bytes() for path in place.folder.iterdir() if path.is_file()}
    found = place.run("--dry-run")
    assert found.returncode == 0, found.stderr
    assert found.stderr == ""
    lines = found.stdout.splitlines()
    assert lines[0] == "budget a/main: Recommend"
    cells = [re.split(r"\s{2,}", line.strip())[:6] for line in lines[1:5]]
    assert cells == [
        ["pipeline", "used", "load", "now", "wanted", "unmet"],
        ["a/busy", "2700m", "2700m", "2", "3600m", "0"],
        ["a/idle", "300m", "300m", "2", "400m", "0"],
        ["4 budget", "4", "4", "0"],
    ]
    assert lines[5:] == [
        "Applied=False: Recommending: the controller runs without apply: nothing is changed",
        "what would change, in this order:",
        "# a/idle: 2 -> 400m: its share of the budget",
        "kubectl patch pods idle-0 -n a --subresource=resize --type=strategic -p "
        """'{"spec":{"containers":[{"name":"main","resources":{"requests":{"cpu":"400m"}}}]}}'""",
        "# a/busy: 2 -> 3600m: its share of the budget",
        "kubectl patch pods busy-0 -n a --subresource=resize --type=strategic -p "
        """'{"spec":{"containers":[{"name":"main","resources":{"requests":{"cpu":"3600m"}}}]}}'""",
        "",
    ]
    assert {path: path.read_bytes() for path in place.folder.iterdir() if path.is_file()} == before


def test_a_dry_run_for_programs(place: Place) -> None:
    command = ["run", "run.yaml", "--dry-run", "-o"]
    (_, as_json, _), (_, as_yaml, _) = place.batch([*command, "json"], [*command, "yaml"])
    data = json.loads(as_json)
    first, second = data["a/main"]["changes"]
    assert (first["pipeline"], first["before"], first["after"]) == ("a/idle", "2", "400m")
    assert (second["pipeline"], second["before"], second["after"]) == ("a/busy", "2", "3600m")
    assert first["path"] == "/api/v1/namespaces/a/pods/idle-0/resize"
    assert first["contentType"] == "application/strategic-merge-patch+json"
    assert first["command"].startswith("kubectl patch pods idle-0 -n a")
    assert yaml.safe_load(as_yaml)["a/main"]["changes"] == data["a/main"]["changes"]


def test_once_moves_and_ends(place: Place) -> None:
    found = place.run("--once", "--apply")
    assert found.returncode == 0, found.stderr
    assert place.asked() == WANTED
    assert "budget a/main: Apply" in found.stdout
    assert max(place.sums()) <= 4000


def test_once_without_apply_recommends(place: Place) -> None:
    found = place.run("--once")
    assert found.returncode == 0, found.stderr
    assert place.asked() == {"a/busy": 2000, "a/idle": 2000}
    assert not (place.folder / "host.log").exists()


def test_once_says_by_its_exit_code_that_a_budget_is_not_as_it_should_be(place: Place) -> None:
    place.settings(budget={"pipelines": [{"selector": {}, "floor": "3"}]})
    found = place.run("--once", "--apply")
    assert found.returncode == 1
    assert "Ready=False: Infeasible:" in found.stdout


def test_it_runs_is_paused_resumed_edited_and_ends(place: Place) -> None:
    controller = place.start("--apply")
    until(lambda: place.asked() == WANTED)
    until(lambda: controller.condition("Applied") == "InForce")
    assert controller.get("/healthz") == controller.get("/readyz") == "ok\n"
    metrics = controller.get("/metrics")
    assert 'headgate_cpu_granted_cores{budget="a/main",pipeline="a/busy"} 3.6' in metrics
    assert "headgate_leader 1.0" in metrics
    counted = {name: float(value) for name, value in re.findall(r"^(headgate_turn\S*) (\S+)$", metrics, re.MULTILINE)}
    turns = counted['headgate_turn_duration_seconds_bucket{le="+Inf"}']
    assert turns == counted["headgate_turn_duration_seconds_count"] == counted["headgate_turns_total"] > 0
    assert counted['headgate_turn_duration_seconds_bucket{le="60.0"}'] == turns
    assert counted["headgate_turn_duration_seconds_sum"] == counted["headgate_turn_seconds_total"]

    assert place.run("--reason", "a test", name="pause").returncode == 0
    until(lambda: controller.condition("Paused") == "Paused")
    place.settings(budget={"total": "2"})
    until(lambda: controller.status()["budgets"]["a/main"]["total"] == "2")
    assert place.asked() == WANTED, "nothing moves while it is paused"
    assert place.run(name="resume").returncode == 0
    until(lambda: sum(place.asked().values()) == 2000)

    place.settings(budget={"total": "2", "paused": True})
    until(lambda: controller.condition("Paused") == "Paused")
    code, log = controller.end()
    assert code == 0, log
    assert "CPUsMoved" in log


def test_changed_settings_that_are_wrong_change_nothing(place: Place) -> None:
    controller = place.start("--apply")
    until(lambda: place.asked() == WANTED)
    place.settings(budget={"total": "lots"})
    turns = controller.status()["turns"]
    until(lambda: controller.status()["turns"] > turns + 3)
    assert controller.condition("Ready") == "Decided"
    code, log = controller.end()
    assert code == 0
    assert re.search(r"those before stay: run\.yaml:\d+: budgets\[0\]\.total: 'lots' is not a CPU quantity", log)


def test_a_second_controller_waits_and_takes_over(place: Place) -> None:
    first = place.start("--apply")
    until(lambda: first.status()["leads"])
    second = place.start("--apply")
    until(second.ready)
    assert not second.status()["leads"]
    first.process.kill()
    until(lambda: second.status()["leads"])
    assert second.end()[0] == 0


def test_a_stop_half_way_takes_back_what_waits_within_the_grace_period(place: Place) -> None:
    place.settings(lag=1000.0, grace="2s")
    controller = place.start("--apply")
    until(lambda: controller.condition("Applied") == "Pending")
    code, log = controller.end()
    assert code == 0
    assert "what waits is taken back" in log
    assert max(place.sums()) <= 4000


def test_a_restart_goes_on_with_the_same_division(place: Place) -> None:
    first = place.start("--apply")
    until(lambda: place.asked() == WANTED)
    until(lambda: first.status()["turns"] > 20)
    first.end()
    # The load has no samples any more: only who remembers knows the division.
    place.services({name: {"asked": 1, "rate": None} | {"asked": asked} for name, asked in WANTED.items()})
    second = place.start("--apply")
    until(lambda: second.status()["turns"] > 5)
    assert place.asked() == WANTED
    assert second.end()[0] == 0


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"interval": "soon"}, r"\.yaml:\d+: interval: 'soon' is not a duration"),
    ({"budget": {"total": "-1"}}, r"\.yaml:\d+: budgets\[0\]\.total: '-1' is negative"),
    ({"budget": {"pipelines": [{"selector": {}, "flor": 1}]}}, r"budgets\[0\]\.pipelines\[0\]\.flor: unknown"),
    ({"host": {"kind": "nowhere"}}, r"\.yaml:\d+: host\.kind: 'nowhere' is not known here; known: .*memory"),
    ({"host": {"kind": "memory", "path": "host.json", "lagg": 1}}, r"\.yaml:\d+: host\.lagg: unknown setting"),
    ({"home": {"kind": "nowhere"}}, r"\.yaml:\d+: home\.kind: 'nowhere' is not known here; known: .*file"),
    ({"home": {"kind": "file", "pth": "x"}}, r"\.yaml:\d+: home\.pth: unknown setting; known here: path"),
    ({"budgets": None}, r"budgets: required where the home is a file"),
    ({"budget": {"host": "kserve"}}, r"budgets\[0\]\.host: 'kserve' is not the host of this file, 'memory'"),
    ({"listen": "here"}, r"\.yaml:\d+: listen: 'here' is not an address"),
    ({"estimator": "nobody"}, r"'nobody' is not known here"),
]


def test_wrong_settings_end_with_code_2_and_the_place(place: Place) -> None:
    commands = []
    for index, (settings, _) in enumerate(WRONG):
        place.settings(**settings)
        (place.folder / "run.yaml").rename(place.folder / f"{index}.yaml")
        commands.append(["run", f"{index}.yaml", "--dry-run"])
    for (code, out, err), (_, what) in zip(place.batch(*commands), WRONG, strict=True):
        assert (code, out) == (2, ""), err
        assert re.search(what, err), err
