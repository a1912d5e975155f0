"""What runs in a plug-in's process: it loads the plug-in and answers one call after the other until told to end.

What the plug-in prints goes to standard error, and it sees an empty standard input.
"""

from __future__ import annotations

import ctypes
import logging
import os
import pickle
import resource
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import EntryPoint
from itertools import islice
from typing import Any

from headgate.controller.guard import brief
from headgate.controller.guarded import Answer, answered, sensible
from headgate.controller.isolation.wire import MOST, Channel, packed
from headgate.controller.kinds import KINDS, estimator_of, source_of
from headgate.controller.plugins import GROUP, Plugins
from headgate.core.config import Document, SettingsError
from headgate.core.decision import Config, Decision
from headgate.core.demand import Estimator
from headgate.core.extensions import ExtensionSettings
from headgate.core.hookspecs import Adjustment, Source, SourceError, Veto
from headgate.core.model import Demand, Observation, Sample, Unknown
from headgate.core.observation import Nonsense
from headgate.core.problem import Problem

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Task:
    """What a process is started for."""

    name: str
    """Of the entry point."""
    value: str
    """Of the entry point: the module."""
    memory: int | None
    """Bytes of data; what allocates more gets a MemoryError."""
    setups: tuple[tuple[str, tuple[Any, ...]], ...] = ()
    """Calls to begin with, each time it starts."""


class Served:
    """The calls that a plug-in's process answers; arguments come from headgate, results are checked there."""

    def __init__(self, task: Task) -> None:
        self._plugins = Plugins([EntryPoint(task.name, task.value, GROUP)])
        self._task = task
        self._estimator: Estimator | None = None
        self._learned: dict[str, tuple[bytes, Any]] = {}
        self._open: Callable[[], Source] | None = None
        self._source: Source | None = None
        self._most = 0

    def begin(self) -> Mapping[str, Any]:
        """Load, and say what there is: hooks, names offered by hook, and why it cannot take part."""
        (plugin,) = self._plugins
        for method, arguments in self._task.setups:
            getattr(self, method)(*arguments)
        offers = {hook: tuple(self._plugins.named(hook)) for hook in plugin.hooks if hook in KINDS or hook in NAMED}
        return {"hooks": plugin.hooks, "offers": offers, "error": plugin.error}

    def schemas(self, hook: str) -> Mapping[str, Any]:
        """JSON schemas of the settings that belong to what a hook offers by name."""
        offers = self._plugins.named(hook)
        chosen = {name: mapping[name] for name, (_, mapping) in offers.items()}
        whole = hook == "headgate_settings"
        models = {name: kind if whole else kind.settings for name, kind in chosen.items()}
        return {name: model.model_json_schema() for name, model in models.items()}

    def estimator(self, document: Document, settings: ExtensionSettings, inner: Estimator) -> None:
        """Make the estimator that the settings choose, around `inner`."""
        chosen = estimator_of(self._plugins, document, settings)
        assert chosen is not None
        self._estimator = chosen[1](inner)

    def turn(
        self, states: Mapping[str, bytes], samples: Mapping[str, Sample], names: Sequence[str], now: float
    ) -> tuple[Mapping[str, bytes], Mapping[str, Demand | Unknown], Sequence[tuple[str, str, str, str]]]:
        """Changed states and demands by pipeline, and what failed: hook, pipeline, reason, text.

        States cross as bytes, so that they outlive this process and headgate need not know what they are.
        """
        assert self._estimator is not None
        changed: dict[str, bytes] = {}
        demands: dict[str, Demand | Unknown] = {}
        troubles = []
        for name, sample in samples.items():
            try:
                state = self._estimator.update(self._state(name, states), sample)
                changed[name] = data = pickle.dumps(state, protocol=5)
                self._learned[name] = data, state
            except BaseException as error:  # noqa: BLE001 - SystemExit and MemoryError too
                troubles.append(("update", name, "raised", brief(error)))
        for name in names:
            try:
                demands[name] = sensible(self._estimator.estimate(self._state(name, {**states, **changed}), now))
            except Nonsense as error:
                troubles.append(("estimate", name, "nonsense", str(error)))
            except BaseException as error:  # noqa: BLE001
                troubles.append(("estimate", name, "raised", brief(error)))
        return changed, demands, troubles

    def _state(self, name: str, states: Mapping[str, bytes]) -> Any:
        """Most often it is what this process has just sent, and need not be read again."""
        if (data := states.get(name)) is None:
            return None
        if name not in self._learned or self._learned[name][0] != data:
            self._learned[name] = data, pickle.loads(data)
        return self._learned[name][1]

    def divide(self, name: str, problem: Problem) -> Answer:
        """What the policy called `name` makes of a problem."""
        _, mapping = self._plugins.named("headgate_allocation_policies")[name]
        return answered(mapping[name], problem)

    def review(self, decision: Decision, observation: Observation, config: Config) -> Veto | Adjustment | None:
        """The verdict on a decision."""
        (hook,) = self._plugins.hooks("headgate_review_decision")
        verdict: Veto | Adjustment | None = hook.call(decision=decision, observation=observation, config=config)
        return verdict

    def applied(self, decision: Decision) -> None:
        """Hear of a decision."""
        (hook,) = self._plugins.hooks("headgate_decision_applied")
        hook.call(decision=decision)

    def source(self, document: Document, index: int, name: str, pipelines: Sequence[str], most: int) -> None:
        """Read this entry of `sources` from now on, `most` samples at a time."""
        self._open = partial(source_of(self._plugins, document, index, name), pipelines)
        self._most = most

    def read(self, now: float) -> tuple[Sequence[Sample], tuple[str, str, bool] | None]:
        """The source's samples, those before a failure too, and the failure."""
        samples: list[Sample] = []
        try:
            if self._source is None:
                assert self._open is not None
                self._source = self._open()
            for item in islice(self._source.read(now), self._most):
                if type(item) is not Sample:
                    raise Nonsense(f"returned {type(item).__name__} where a Sample belongs")
                samples.append(item)
        except BaseException as error:  # noqa: BLE001
            return samples, _trouble(error)
        return samples, None

    def close(self) -> None:
        """Give up the source's connection."""
        if self._source is not None:
            self._source.close()


NAMED = ("headgate_allocation_policies", "headgate_settings")
"""Hooks that offer things by name, besides KINDS."""


def _trouble(error: BaseException) -> tuple[str, str, bool]:
    """Reason, text, and whether it may pass by itself."""
    if isinstance(error, Nonsense):
        return "nonsense", str(error), False
    text = str(error) if isinstance(error, SourceError) else brief(error)
    return "raised", text, isinstance(error, (SourceError, OSError))


def _answer(call: Callable[[], Any]) -> bytes:
    try:
        value = call()
    except SettingsError as error:
        return packed(("settings", str(error)))
    except BaseException as error:  # noqa: BLE001
        return packed(_trouble(error))
    try:
        data = packed(("ok", value))
    except Exception as error:  # noqa: BLE001 - whatever a plug-in's object does when it is pickled
        return packed(("nonsense", f"returned what is no plain value: {brief(error)}", False))
    return data if len(data) <= MOST else packed(("nonsense", f"answers with {len(data) >> 20} MiB", False))


def _prepare(memory: int | None, parent: int) -> None:
    """End with headgate, be the first to go when memory runs out, and hold no more of it than allowed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it ended before it could be said
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory is not None:
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        memory = memory if most == resource.RLIM_INFINITY else min(memory, most)
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))


def main(descriptor: int, parent: int) -> None:
    """Answer calls on a socket; standard input is the task."""
    task: Task = pickle.load(sys.stdin.buffer)
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    _prepare(task.memory, parent)
    logging.basicConfig(level=logging.WARNING, format=f"plug-in {task.name}: %(name)s: %(message)s")
    log = logging.getLogger("headgate.plugins")
    channel = Channel(socket.socket(fileno=descriptor))
    served: list[Served] = []

    def begin() -> Mapping[str, Any]:
        log.disabled = True  # whoever started this process says why the plug-in takes no part
        served.append(Served(task))
        log.disabled = False
        return served[0].begin()

    with suppress(EOFError, OSError):
        channel.send(_answer(begin))
        while True:
            method, arguments = pickle.loads(channel.receive())
            channel.send(_answer(partial(getattr(served[0], method), *arguments)))
    if served:
        served[0].close()
