"""The engine's loop: sample, decide, apply. The only place of the engine where decisions are asked for."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from headgate.core.allocation import Allocation, allocate
from headgate.core.decision import Config, Decision, State, decide
from headgate.core.extensions import Extensions, NoExtensions
from headgate.core.model import Budget, Demand, Observation, Sample
from headgate.core.units import format_cpu
from headgate.engine.cpus import usable_cpus
from headgate.engine.engine import Engine, Standing, millicores
from headgate.engine.sizing import Sizing
from headgate.engine.tally import Durations

log = logging.getLogger("headgate.engine")

EARLIEST = 0.1
"""A decision for a pipeline that wakes up follows the one before by no less than so many seconds."""


class Control:
    """Calls `decide()` every interval in a thread of its own and puts the result in force.

    A pipeline that wakes up while others use all CPUs does not wait for the interval.

    A budget that the settings leave to the machine follows it: a container's CPU quota may change while it runs.
    Fails static: when a decision cannot be made, or the floors do not fit any more, the last one stays in force.
    """

    def __init__(
        self, engine: Engine, extensions: Extensions | None = None, *, usable: Callable[[], int] = usable_cpus
    ) -> None:
        """Puts a first division in force. Raises Infeasible, or ValueError for a policy that does not exist.

        `usable`: the millicores that this process may use now.
        """
        settings = engine.settings
        self._usable = usable if settings.follows_machine else lambda: settings.budget
        self.extensions = extensions or NoExtensions()
        self.durations = Durations()
        self._engine = engine
        config = Config(engine.pipelines, Budget(self._usable()), settings.policy, calm=settings.calm.value())
        self._config = self.extensions.config(config)
        self._sizing = Sizing(settings.machine.value(), engine.pipelines)
        self._state = State()
        self._last = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="headgate-control", daemon=True)
        engine.adopt(replace(engine.standing, allocation=self._first()))

    def start(self) -> None:
        """Begin to decide."""
        self._thread.start()

    def stop(self) -> None:
        """Decide no more; what is in force stays."""
        self._stop.set()
        self._engine.exhausted.set()
        if self._thread.is_alive():
            self._thread.join()

    def step(self) -> None:
        """One turn: sample, decide, apply."""
        now = time.monotonic()
        window, self._last = now - self._last, now
        samples = {
            name: tally.sample(now, window, self._engine.load(name)[0]) for name, tally in self._engine.tallies.items()
        }
        standing = replace(
            self._engine.standing,
            used={name: millicores(sample.cpu_seconds or 0.0, window) for name, sample in samples.items()},
            arrival_rates={name: (sample.arrivals or 0.0) / window for name, sample in samples.items()},
        )
        if self._engine.managed:
            self._decide(standing, samples, now)
        else:
            self._engine.adopt(standing)
        self._recommend(now)

    def _decide(self, standing: Standing, samples: dict[str, Sample], now: float) -> None:
        try:
            config = replace(self._config, budget=Budget(self._usable()))
            observation = Observation(self.extensions.observe(samples, now), standing.allocation.grants)
            state, decision = decide(self._state, observation, config, now)
            reviewed = self.extensions.review(decision, observation, config)
            if isinstance(reviewed, Decision):
                self._engine.adopt(_standing(standing, reviewed, config.budget.total))
                self.extensions.applied(reviewed)
            else:
                self._engine.adopt(replace(standing, demands=decision.demands, problem=reviewed))
        except Exception as error:  # fail static, whatever a policy or a plug-in does wrong
            problem = f"{type(error).__name__}: {error}"
            if problem != self._engine.standing.problem:
                log.exception("no decision could be made; the last grants stay in force")
            self.durations.failed += 1
            self._engine.adopt(replace(standing, problem=problem))
            return
        self._state = state
        self.durations.add(time.monotonic() - now)

    def _recommend(self, now: float) -> None:
        standing = self._engine.standing
        recommended = self._sizing.look(standing, now)
        if recommended != standing.recommended:
            self._engine.adopt(replace(standing, recommended=recommended))

    def _first(self) -> Allocation:
        """Before anything is known: as if all pipelines had the same load."""
        names = [pipeline.name for pipeline in self._engine.pipelines]
        alike = dict.fromkeys(names, Demand(arrival_rates=(1.0,), cpu_seconds_per_request=1.0))
        config = self._config
        try:
            allocation = allocate(config.pipelines, alike, config.budget, current={}, policy=config.policy)
        except ValueError:
            raise
        except Exception:  # a plug-in's policy; every turn of the loop will try it again
            log.exception("policy %s cannot divide: starting with shares by weight", self._engine.settings.policy)
            allocation = allocate(config.pipelines, alike, config.budget, current={})
        reason = "start: no request seen yet" if self._engine.managed else "no control: nothing is divided"
        return Allocation(allocation.grants, dict.fromkeys(names, reason), dict.fromkeys(names, 0))

    def _loop(self) -> None:
        interval, exhausted = self._engine.settings.interval, self._engine.exhausted
        due = time.monotonic() + interval
        while not self._stop.is_set():
            # A pipeline that woke up is worth one decision before its time. Too short a window says nothing of a load.
            if exhausted.wait(max(0.0, due - time.monotonic())):
                self._stop.wait(max(0.0, min(due, self._last + EARLIEST) - time.monotonic()))
                self._turn()
                self._stop.wait(max(0.0, due - time.monotonic()))
            due = max(due + interval, time.monotonic())
            self._turn()

    def _turn(self) -> None:
        self._engine.exhausted.clear()
        if not self._stop.is_set():
            self.step()


def _standing(before: Standing, decision: Decision, budget: int) -> Standing:
    if budget != before.budget:
        log.info("the budget is %s CPUs now, it was %s", format_cpu(budget), format_cpu(before.budget))
    return replace(
        before,
        budget=budget,
        allocation=decision.allocation,
        demands=decision.demands,
        decisions=before.decisions + 1,
        problem=None,
    )
