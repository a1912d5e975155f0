"""One process of a plug-in that does everything it must not. Time is asserted only as an order of events."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from headgate.controller.guard import Trouble
from headgate.controller.isolation import process
from headgate.controller.isolation.child import Task
from headgate.controller.isolation.process import Child, Terms
from headgate.controller.isolation.proxies import RemoteSource
from headgate.controller.isolation.wire import packed
from headgate.core.config import Document, SettingsError
from headgate.core.hookspecs import SourceError
from headgate.core.model import Sample
from headgate.core.observation import Nonsense

from .conftest import Installed

EVIL = """
import ctypes, os, pathlib, subprocess, sys, threading, time
import numpy as np
from headgate.core.config import Model
from headgate.core.hookspecs import SourceError, SourceKind, hookimpl
from headgate.core.model import Sample

class Settings(Model):
    does: str
    path: str = ""

class Source:
    def __init__(self, settings, pipelines):
        if settings.does == "no-open":
            raise ConnectionError("nobody there")
        self.does, self.path, self.name = settings.does, pathlib.Path(settings.path), pipelines[0]
        self.reads = 0

    def read(self, now):
        self.reads += 1
        yield Sample(self.name, now, 1, arrivals=np.float64(self.reads))
        if self.reads > 1:
            getattr(self, self.does)()

    def well(self): pass
    def lost(self): raise SourceError("no connection")
    def broken(self): raise KeyError("gone")
    def leaves(self): raise SystemExit(3)
    def gigabyte(self): bytearray(2**30)
    def hoard(self):
        self.kept = []
        while True:
            self.kept.append(bytearray(2**24))
    def segfault(self): ctypes.string_at(0)
    def die(self): os._exit(7)
    def chat(self): print("hello from the plug-in", flush=True)
    def wait(self):
        while not self.path.exists():
            time.sleep(0.01)
    def hang(self):
        nap = subprocess.Popen(["sleep", "600"])
        self.path.write_text(str(nap.pid))
        ctypes.CDLL(None).pause()  # does not even answer signals of the interpreter
    def close(self):
        self.path.write_text("closed") if self.does == "well" else None

@hookimpl
def headgate_metric_sources():
    return {"evil": SourceKind(Settings, Source)}
"""


def document(does: str, path: Path | str = "") -> Document:
    return Document("s.yaml", {"sources": [{"kind": "evil", "does": does, "path": str(path)}]}, {("sources", 0): 3})


Make = Callable[..., Child]


@pytest.fixture
def make(installed: Installed, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    installed("evil", EVIL)
    monkeypatch.setattr(process, "PAUSE", 0.0)
    made: list[Child] = []

    def make(does: str, path: Path | str = "", *, patience: float = 30.0, memory: int | None = 2**28) -> Child:
        setup = "source", (document(does, path), 0, "evil", ("a",), 11)
        made.append(Child(Task("evil", "evil", memory, (setup,)), Terms(load=60, patience=patience)))
        made[-1].ready()
        return made[-1]

    yield make
    for child in made:
        child.close()


def arrivals(child: Child) -> list[float | None]:
    return [sample.arrivals for sample in RemoteSource(child).read(5.0)]


def test_what_it_reads_arrives_and_it_closes_when_told(make: Make, tmp_path: Path) -> None:
    child = make("well", tmp_path / "note")
    assert [arrivals(child), arrivals(child)] == [[1.0], [2.0]]
    child.close(time.monotonic() + 60)
    assert (tmp_path / "note").read_text() == "closed"
    with pytest.raises(Trouble, match="started anew"):
        arrivals(child)


@pytest.mark.parametrize(
    ("does", "error", "text"),
    [
        ("lost", SourceError, "^no connection$"),
        ("broken", Trouble, "^KeyError: 'gone'$"),
        ("leaves", Trouble, "^SystemExit: 3$"),
        ("gigabyte", Trouble, "^MemoryError"),
        ("hoard", Trouble, "^MemoryError"),
    ],
)
def test_what_it_raises_is_told_and_what_it_read_before_counts(
    make: Make, does: str, error: type[Exception], text: str
) -> None:
    child = make(does)
    assert arrivals(child) == [1.0]
    reading = RemoteSource(child).read(5.0)
    sample = next(reading)
    assert isinstance(sample, Sample)
    assert sample.arrivals == 2.0
    with pytest.raises(error, match=text):
        next(reading)
    assert child.starts == 1, "the process is as good as before"


@pytest.mark.parametrize(("does", "how"), [("segfault", "Segmentation fault"), ("die", "exit code 7")])
def test_one_that_ends_is_named_and_started_anew(make: Make, does: str, how: str) -> None:
    child = make(does)
    assert arrivals(child) == [1.0]
    with pytest.raises(Trouble, match=f"its process ended: {how}") as caught:
        arrivals(child)
    assert caught.value.reason == "crashed"
    assert until_it_answers(child) == [1.0]
    assert child.starts == 2


def until_it_answers(child: Child, meanwhile: str = "restarting") -> Any:
    while True:
        try:
            return arrivals(child)
        except Trouble as trouble:
            if trouble.reason != meanwhile:
                raise
            time.sleep(0.01)


def test_pauses_between_starts_grow() -> None:
    assert [process.pause(strikes) for strikes in range(1, 9)] == [1, 2, 4, 8, 16, 32, 60, 60]


def test_a_late_answer_is_left_behind_and_then_all_is_well(make: Make, tmp_path: Path) -> None:
    release = tmp_path / "release"
    child = make("wait", release)
    arrivals(child)
    with pytest.raises(Trouble) as caught:
        child.call("read", 5.0, until=time.monotonic())
    assert caught.value.reason == "late"
    with pytest.raises(Trouble) as caught:
        child.call("read", 5.0, until=time.monotonic() + 30)
    assert caught.value.reason == "busy"
    release.touch()
    assert until_it_answers(child, meanwhile="busy") == [3.0]
    assert child.starts == 1


def test_one_that_hangs_is_ended_with_all_that_it_started(make: Make, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    child = make("hang", note, patience=3.0)
    arrivals(child)
    with pytest.raises(Trouble, match="no answer within 3 s; its process was ended") as caught:
        arrivals(child)
    assert caught.value.reason == "late"
    gone(int(note.read_text()))
    assert until_it_answers(child) == [1.0]


def gone(pid: int) -> None:
    end = time.monotonic() + 30
    while Path(f"/proc/{pid}/stat").exists() and Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z":
        assert time.monotonic() < end
        time.sleep(0.01)


def test_what_it_prints_is_no_answer(make: Make, capfd: pytest.CaptureFixture[str]) -> None:
    child = make("chat")
    assert [arrivals(child), arrivals(child)] == [[1.0], [2.0]]
    out, err = capfd.readouterr()
    assert "hello from the plug-in" not in out
    assert "hello from the plug-in" in err


def test_a_source_that_cannot_be_opened_may_be_there_later(make: Make) -> None:
    with pytest.raises(SourceError, match="ConnectionError: nobody there"):
        arrivals(make("no-open"))


def test_wrong_settings_are_named_with_their_line(make: Make) -> None:
    wrong = Document("s.yaml", {"sources": [{"kind": "evil", "doe": "well"}]}, {("sources", 0): 3})
    with pytest.raises(SettingsError, match=r"s.yaml:3: sources\[0\].doe: unknown setting; known here: does, path"):
        make("well").call("source", wrong, 0, "evil", ("a",), 11, until=None)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("import threading; threading.Event().wait()", "it did not load within 2 s"),
        ("import os; os._exit(9)", "its process ended: exit code 9"),
        ("import ctypes; ctypes.string_at(0)", "its process ended: Segmentation fault"),
    ],
)
def test_an_import_that_does_not_end_well_is_left_behind(installed: Installed, code: str, text: str) -> None:
    installed("stuck", code)
    child = Child(Task("stuck", "stuck", None), Terms(load=2.0 if "2 s" in text else 60.0, patience=60))
    with pytest.raises(Trouble, match=text):
        child.ready()
    with pytest.raises(Trouble, match="started anew"):
        child.tend()


OWNER = """
import os, pathlib, signal, time
from headgate.controller.isolation.child import Task
from headgate.controller.isolation.process import Child, Terms
from tests.controller.isolation.test_process import document

note = pathlib.Path({note!r})
child = Child(Task("evil", "evil", None, (("source", (document("hang", note), 0, "evil", ("a",), 11)),)), Terms(60, 60))
child.ready()
child.call("read", 5.0, until=None)
child.tell("read", 5.0, until=time.monotonic() + 60)
while not note.exists() or not note.read_text():
    time.sleep(0.01)
print(child._process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_it_does_not_outlive_headgate(installed: Installed, tmp_path: Path) -> None:
    installed("evil", EVIL)
    script = OWNER.format(note=str(tmp_path / "pid"))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parents[3])])}
    command = [sys.executable, "-c", script]
    owner = subprocess.run(command, check=False, env=environment, stdout=subprocess.PIPE, text=True)
    assert owner.returncode == -signal.SIGKILL
    gone(int(owner.stdout))
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)  # what it started has nobody to end it


def test_an_answer_that_is_none_is_nonsense() -> None:
    with pytest.raises(Nonsense, match="what is no answer"):
        process._outcome(packed("well"))
    with pytest.raises(Nonsense, match="mean nothing"):
        process._outcome(b"")
