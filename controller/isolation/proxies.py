"""A plug-in's estimator, policy and source as the loop uses them; their code runs in the plug-in's process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from headgate.controller.guard import Guard, HookFailed, Trouble
from headgate.controller.guarded import sensible
from headgate.controller.isolation.process import Child
from headgate.core.hookspecs import SourceError
from headgate.core.model import Demand, Demands, Sample, Unknown
from headgate.core.observation import Nonsense

Turn = tuple[Mapping[str, bytes], Mapping[str, Demand | Unknown], Sequence[tuple[str, str, str, str]]]


@dataclass(frozen=True, slots=True)
class RemoteEstimator:
    """An estimator, asked once a turn for all pipelines. Its states are bytes that only the plug-in reads.

    Where it fails, what was learned stays and the demand is unknown: nothing moves on its account.
    """

    plugin: str
    child: Child
    guard: Guard

    def update(self, state: bytes | None, sample: Sample) -> bytes | None:
        """See Estimator."""
        learned, _ = self.turn({} if state is None else {sample.pipeline: state}, {sample.pipeline: sample}, (), 0.0)
        return learned.get(sample.pipeline)

    def estimate(self, state: bytes | None, now: float) -> Demand | Unknown:
        """See Estimator."""
        _, demands = self.turn({} if state is None else {"": state}, {}, ("",), now)
        return demands[""]

    def turn(
        self, learned: Mapping[str, Any], samples: Mapping[str, Sample], names: Sequence[str], now: float
    ) -> tuple[Mapping[str, Any], Demands]:
        """See Together."""

        def ask(until: float) -> Any:
            return self.child.call("turn", learned, dict(samples), tuple(names), now, until=until)

        try:
            changed, demands, troubles = self.guard.call(self.plugin, "estimate", ask, partial(_turn, samples))
        except HookFailed as error:
            return learned, dict.fromkeys(names, Unknown(str(error)))
        known: dict[str, Demand | Unknown] = {}
        why: dict[str, str] = {}
        for hook, name, reason, text in troubles:
            why[name] = str(self.guard.failed(self.plugin, hook, reason, text))
        for name in names:
            try:
                known[name] = sensible(demands[name]) if name in demands else Unknown(why.get(name, "no answer"))
            except Nonsense as error:
                known[name] = Unknown(str(self.guard.failed(self.plugin, "estimate", "nonsense", str(error))))
        return {**learned, **changed}, known


@dataclass(frozen=True, slots=True)
class RemoteSource:
    """A source that is read in a process of its own, which is ended when a read takes longer than its patience."""

    child: Child

    def read(self, now: float) -> Iterator[Sample]:
        """See Source. Raises SourceError for what may pass, Trouble, and Nonsense."""
        answer = self.child.call("read", now, until=None)
        match answer:
            case (list(samples), None):
                yield from samples
            case (list(samples), (str(reason), str(text), bool(passing))):
                yield from samples
                raise SourceError(text) if passing else Trouble(reason, text)
            case _:
                raise Nonsense("answers with what are no samples")

    def close(self) -> None:
        """See Source."""
        self.child.close()


def remote_policy(child: Child, name: str) -> Callable[[Any, float], Any]:
    """Asks the policy called `name`: see GuardedPolicy."""

    def ask(problem: Any, until: float) -> Any:
        return _answer(child.call("divide", name, problem, until=until))

    return ask


def _answer(answer: Any) -> Any:
    if not isinstance(answer, tuple) or len(answer) != 4 or not isinstance(answer[3], tuple):
        raise Nonsense("answers with what is no division")
    return answer


def _turn(samples: Mapping[str, Sample], answer: Any) -> Turn:
    match answer:
        case (dict(changed), dict(demands), list(troubles)):
            states = all(name in samples and isinstance(state, bytes) for name, state in changed.items())
            if states and all(_is_trouble(trouble) for trouble in troubles):
                return changed, demands, troubles
    raise Nonsense("answers with what are no states and demands")


def _is_trouble(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 4 and all(isinstance(part, str) for part in value)
