"""Whatever fails, whenever, and however often: the sum of what is taken never exceeds the budget."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .conftest import Bench, MemoryHome, budget
from .memory_host import MemoryHost, Service

STEPS = ["budgets", "paused", "load", "save", "report", "observe", "apply", "write"]


class Killed(BaseException):
    """kill -9."""


ERRORS = [ConnectionError("gone"), PermissionError("forbidden"), RuntimeError("a fault of ours"), Killed()]
events = st.one_of(
    st.tuples(st.just("fail"), st.sampled_from(STEPS), st.sampled_from(ERRORS)),
    st.tuples(st.just("lead"), st.booleans(), st.none()),
    st.tuples(st.just("pause"), st.booleans(), st.none()),
    st.tuples(st.just("load"), st.integers(0, 2), st.sampled_from([None, 0.0, 1.0, 10.0, 60.0])),
    st.tuples(st.just("lag"), st.sampled_from([0.0, 3.0, 30.0]), st.none()),
    st.tuples(st.just("refuse"), st.integers(0, 2), st.booleans()),
    st.tuples(st.just("vanish"), st.integers(0, 2), st.none()),
    st.tuples(st.just("restart"), st.none(), st.none()),
    st.tuples(st.just("stop"), st.none(), st.none()),
    st.tuples(st.just("quiet"), st.none(), st.none()),
)
NAMES = ["a/x", "a/y", "a/z"]


class Story:
    """Plays events, one before each turn. A failure hits once, at its step."""

    def __init__(self) -> None:
        self.host = MemoryHost({name: Service(1000, rate=5) for name in NAMES}, limit=4000)
        self.bench = Bench(self.host, MemoryHome([budget(total="4", pipelines=[{"selector": {}, "floor": "100m"}])]))
        self.armed: tuple[str, BaseException] | None = None
        self.host.fault = self.bench.home.fault = self._fault
        self.foreign = 0

    def _fault(self, step: str) -> None:
        if step == "write":
            # The lead and the switch, as they are at the moment of the write.
            self.foreign += not self.bench.home.lead
        if self.armed is not None and self.armed[0] == step:
            error, self.armed = self.armed[1], None
            raise error

    def play(self, kind: str, first: object, second: object) -> None:
        home, services = self.bench.home, self.host.services
        name = NAMES[first] if isinstance(first, int) and not isinstance(first, bool) else ""
        match kind, second:
            case "fail", BaseException() as error:
                self.armed = str(first), error
            case "lead", _:
                home.lead = bool(first)
            case "pause", _:
                home.held = "now" if first else None
            case "load", (None | float()) as rate if name in services:
                services[name].rate = rate
            case "lag", _ if isinstance(first, float):
                self.host.lag = first
            case "refuse", bool() as refuses if name in services:
                services[name].refuses = refuses
            case "vanish", _:
                services.pop(name, None)
            case "restart", _:
                self.bench.loop = self.bench.start()
            case "stop", _:
                with suppress(Killed):
                    self.bench.loop.finish(self._wait)
                self.bench.loop = self.bench.start()
        try:
            self.bench.turns(1)
        except Killed:
            self.bench.loop = self.bench.start()

    def _wait(self, seconds: float) -> None:
        self.bench.now += max(seconds, 0.1)

    def heal(self) -> None:
        """All is well again, and time passes."""
        self.armed, self.host.lag = None, 0.0
        self.bench.home.lead, self.bench.home.held = True, None
        for service in self.host.services.values():
            service.refuses, service.rate = False, 5.0
        self.bench.turns(45)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(events, max_size=15))
def test_the_sum_never_exceeds_the_budget_and_all_ends_well(story: list[tuple[str, object, object]]) -> None:
    played = Story()
    for event in story:
        played.play(*event)  # the host checks the sum at every write
    assert played.foreign == 0, "nothing was written without the lead"
    played.heal()
    assert played.host.highest <= 4000
    asked = played.bench.asked()
    assert sum(asked.values()) == (4000 if asked else 0)
    assert all(service.asked == service.actual for service in played.host.services.values())
    assert played.bench.loop.record.problem is None
