from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint, distributions
from pathlib import Path

import pytest
from click.testing import CliRunner

from headgate.controller import cli as command_line
from headgate.controller import commands
from headgate.controller.plugins import Plugins, built_in

from .conftest import Install

GOOD = """
from headgate.core.hookspecs import hookimpl

@hookimpl
def headgate_decision_applied(decision):
    pass

@hookimpl
def headgate_review_decision(decision):
    return None
"""


@pytest.fixture(autouse=True)
def _forget_modules() -> Iterator[None]:
    before = set(sys.modules)
    path = list(sys.path)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def points(folder: Path) -> list[EntryPoint]:
    sys.path.insert(0, str(folder))
    return [point for dist in distributions(path=[str(folder)]) for point in dist.entry_points]


def test_what_is_installed_is_found_with_origin_and_version(install: Install) -> None:
    found = Plugins(points(install("some-plugin", GOOD, version="2.3")))
    (plugin,) = found
    assert (plugin.name, plugin.package, plugin.version) == ("some-plugin", "some-plugin", "2.3")
    assert plugin.hooks == ("headgate_decision_applied", "headgate_review_decision")
    assert plugin.enabled
    assert [hook.plugin for hook in found.hooks("headgate_review_decision")] == ["some-plugin"]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import package_that_nobody_has", "ModuleNotFoundError: No module named 'package_that_nobody_has'"),
        ("1 / 0", "ZeroDivisionError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("def broken(:", "SyntaxError"),
        (
            "from headgate.core.hookspecs import hookimpl\n@hookimpl\ndef headgate_no_such_hook(): pass",
            "there is no hook headgate_no_such_hook",
        ),
        (
            "from headgate.core.hookspecs import hookimpl\n@hookimpl\ndef headgate_review_decision(mistake): pass",
            "mistake",
        ),
        (
            "from headgate.core.hookspecs import hookimpl\n"
            "@hookimpl(wrapper=True)\ndef headgate_review_decision(): return (yield)",
            "wrappers of hooks are not supported",
        ),
    ],
)
def test_one_that_cannot_be_loaded_is_named_and_the_rest_goes_on(
    install: Install, caplog: pytest.LogCaptureFixture, code: str, message: str
) -> None:
    install("a-broken", code)
    with caplog.at_level(logging.WARNING):
        found = Plugins(points(install("b-good", GOOD)))
    broken, good = found
    assert broken.error is not None
    assert message in broken.error
    assert not broken.enabled
    assert good.enabled
    assert "plug-in a-broken of a-broken 1.0 takes no part" in caplog.text
    assert [hook.plugin for hook in found.hooks("headgate_review_decision")] == ["b-good"]


def test_of_two_with_one_name_the_second_is_named_as_the_trouble(install: Install) -> None:
    install("first", GOOD, point="same")
    found = list(Plugins(points(install("second", GOOD, point="same"))))
    assert [plugin.enabled for plugin in found] == [True, False]
    assert found[1].error is not None
    assert "the name of another plug-in" in found[1].error


def test_a_disabled_one_is_not_called_and_stays_listed(install: Install) -> None:
    found = Plugins(points(install("some-plugin", GOOD))).without(["some-plugin"])
    assert [plugin.enabled for plugin in found] == [False]
    assert found.hooks("headgate_review_decision") == []
    with pytest.raises(LookupError, match="there is no plug-in 'other'; installed: some-plugin"):
        found.without(["other"])


def test_a_name_that_is_taken_stays_with_whoever_had_it(install: Install, caplog: pytest.LogCaptureFixture) -> None:
    code = """
    from headgate.core.hookspecs import hookimpl
    @hookimpl
    def headgate_allocation_policies():
        return {"mine": WHOSE, "proportional": WHOSE}
    """
    install("a-first", code.replace("WHOSE", "'first'"))
    found = Plugins([*points(install("b-second", code.replace("WHOSE", "'second'")))])
    with caplog.at_level(logging.WARNING):
        offers = found.named("headgate_allocation_policies")
    assert offers["mine"][1]["mine"] == "first"
    assert "plug-in b-second, headgate_allocation_policies: 'mine' is a-first's already" in caplog.text


@pytest.mark.parametrize("code", ["raise ValueError('no')", "return None", "return 3"])
def test_offers_that_cannot_be_listed_are_left_out(install: Install, code: str) -> None:
    broken = f"from headgate.core.hookspecs import hookimpl\n@hookimpl\ndef headgate_metric_sources():\n    {code}\n"
    assert Plugins(points(install("broken", broken))).named("headgate_metric_sources") == {}


def test_the_built_in_features_come_through_the_same_entry_points() -> None:
    found = {plugin.name: plugin for plugin in built_in() if plugin.package == "headgate"}
    assert {"builtin", "commands", "engine", "sources"} <= set(found)
    assert all(plugin.error is None for plugin in found.values())


def invoke(*arguments: str) -> tuple[int, str, str]:
    cli = command_line.cli
    for hook in built_in().hooks("headgate_register_commands"):
        hook.call(cli=cli)
    result = CliRunner().invoke(cli, list(arguments))
    return result.exit_code, result.stdout, result.stderr


def test_the_command_lists_them(tmp_path: Path) -> None:
    code, out, _ = invoke("plugins")
    assert code == 0
    assert "metric_sources" in out
    settings = tmp_path / "s.yaml"
    settings.write_text("plugins: {disable: [sources]}\npipelines: []\n")
    code, out, _ = invoke("plugins", "--format", "json", "--settings", str(settings))
    listed = {plugin["name"]: plugin for plugin in json.loads(out)}
    assert not listed["sources"]["enabled"]
    assert listed["engine"]["enabled"]
    settings.write_text("plugins:\n  disable: [nobody]\n")
    code, _, err = invoke("plugins", "--settings", str(settings))
    assert code == 2
    assert f"{settings}:2: plugins.disable: there is no plug-in 'nobody'" in err


def test_sources_can_be_tried_out(tmp_path: Path) -> None:
    (tmp_path / "samples.csv").write_text("pipeline,window,arrivals,queue\nus-east,10,50,3\n")
    settings = tmp_path / "s.yaml"
    settings.write_text(
        "pipelines: [{name: us-east}]\nsources:\n- {kind: file, path: samples.csv, every: 100ms, stale: 1m}\n"
        "- {kind: file, name: gone, path: gone.csv, every: 100ms}\n"
    )
    code, out, _ = invoke("observe", str(settings), "--format", "json", "--for", "1")
    found = json.loads(out)
    assert found["pipelines"]["us-east"]["sample"]["arrivals"] == 50
    assert found["pipelines"]["us-east"]["origins"]["queue"]["source"] == "file"
    assert "gone.csv: cannot be read" in found["sources"]["gone"]["problem"]
    assert code == 1
    code, out, err = invoke("observe", str(settings), "--for", "1")
    assert "5 /s" in out
    assert "source gone: " in err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "sources:\n- {kind: nothing}",
            ":2: sources[0].kind: 'nothing' is not known here; known: bentoml, engine, file",
        ),
        ("sources:\n- {kind: file}", ":2: sources[0].path: required"),
        ("sources:\n- kind: file\n  pth: x\n  path: y", ":3: sources[0].pth: unknown setting; known here: path"),
        ("sources:\n- {kind: file, path: x}\n- {kind: file, path: y}", ":3: sources[1].name: 'file' is taken"),
        ("estimator: other", ":1: estimator: 'other' is not known here"),
    ],
)
def test_wrong_settings_of_sources_end_with_exit_code_2(tmp_path: Path, text: str, message: str) -> None:
    settings = tmp_path / "s.yaml"
    settings.write_text(f"{text}\npipelines: [{{name: a}}]\n")
    code, _, err = invoke("observe", str(settings))
    assert code == 2
    assert f"{settings}{message}" in err


def test_the_schema_names_every_kind() -> None:
    code, out, _ = invoke("schema")
    assert code == 0
    schema = json.loads(out)
    assert {"headgate serve", "sources: kind prometheus", "sources: kind file"} <= set(schema)
    assert commands.schema.name == "schema"


OFFERS = """
from headgate.core.config import Model
from headgate.core.hookspecs import (
    EngineKind, EstimatorKind, HomeKind, HostKind, ProviderKind, SourceKind, StepKind, hookimpl
)

class Settings(Model):
    size: int = 1

@hookimpl
def headgate_metric_sources():
    return {"mine": SourceKind(Settings, lambda settings, pipelines: None)}

@hookimpl
def headgate_demand_estimators():
    return {"mine": EstimatorKind(Settings, lambda settings, inner: inner)}

@hookimpl
def headgate_engine_steps():
    return {"mine": StepKind(Settings, lambda settings: None)}

@hookimpl
def headgate_engines():
    return {"mine": EngineKind(Settings, lambda settings, document, command_line: None)}

@hookimpl
def headgate_host_adapters():
    return {"mine": HostKind(Settings, lambda settings: None)}

@hookimpl
def headgate_homes():
    return {"mine": HomeKind(Settings, lambda settings: None)}

@hookimpl
def headgate_node_providers():
    return {"mine": ProviderKind(Settings, lambda settings: None)}

@hookimpl
def headgate_settings():
    return {"mine": Settings}
"""


def test_all_that_is_offered_by_name_is_found_and_has_settings(install: Install) -> None:
    found = Plugins(points(install("offers", OFFERS)))
    (plugin,) = found
    assert len(plugin.hooks) == 8
    for hook in plugin.hooks:
        whose, mapping = found.named(hook)["mine"]
        assert whose == "offers"
        settings = mapping["mine"] if hook == "headgate_settings" else mapping["mine"].settings
        assert settings().size == 1
