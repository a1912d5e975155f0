"""One budget's decisions: what it is divided for, how, and what its host has refused."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from headgate.controller.run.memory import Standing
from headgate.core.budgets import CPUBudget
from headgate.core.decision import Config, Decision, State, decide
from headgate.core.demand import Estimator
from headgate.core.extensions import Extensions
from headgate.core.hosting import Inventory, Order, Refusal
from headgate.core.model import Budget, Infeasible, Observation, Pipeline, Sample

log = logging.getLogger("headgate.run")


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a budget is not divided as it should be: one CamelCase word of docs/refusals.md, and a sentence."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one budget's pipelines are to have; without an order everything stays as it is."""

    order: Order | None = None
    decision: Decision | None = None
    trouble: Trouble | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """What a host said no to: for this pipeline as it was, until then."""

    refusal: Refusal
    pipeline: Pipeline
    until: float


@dataclass(frozen=True, slots=True)
class Facts:
    """What a verdict is made from; of any pipelines, those of the inventory among them."""

    inventory: Inventory
    samples: Mapping[str, Sample]
    learned: Mapping[str, Any]
    now: float


class Judge:
    """Calls decide() for one budget. Whatever goes wrong in there is a Trouble, and the budget's CPUs stay."""

    def __init__(self, extensions: Extensions, estimator: Estimator, patience: float) -> None:
        """`patience`: seconds until a host is asked again for what it has refused."""
        self._extensions = extensions
        self._estimator = estimator
        self._patience = patience
        self._state = State()
        self._restored: Standing | None = None
        self._base: Config | None = None
        self._config: Config | None = None
        self._refused: dict[str, Refused] = {}
        self._last: Order | None = None
        self._trouble: str | None = None

    def restore(self, standing: Standing | None) -> None:
        """Go on from a division that an earlier process made."""
        self._restored = standing

    @property
    def state(self) -> State:
        """After the last decision."""
        return self._state

    @property
    def refused(self) -> Mapping[str, Refused]:
        """What the host will not do for now, by pipeline."""
        return self._refused

    @property
    def config(self) -> Config | None:
        """What the last decision followed."""
        return self._config

    def standing(self) -> Standing | None:
        """To be written down."""
        allocation, made_for = self._state.allocation, self._state.made_for
        if allocation is None or made_for is None:
            return self._restored
        return Standing(_digest(*made_for), self._state.quiet, allocation)

    def decide(self, budget: CPUBudget, facts: Facts) -> Verdict:
        """What the budget's pipelines are to have."""
        inventory = facts.inventory
        self._forgive(inventory.pipelines, facts.now)
        if not inventory.pipelines:
            self._last = None
            whole = inventory.refused.get(budget.key)
            if whole is not None:
                return Verdict(trouble=Trouble("NotObserved", whole.message))
            return Verdict(trouble=Trouble("NothingSelected", "its rules select no service that runs"))
        try:
            verdict = self._decide(budget, facts)
        except Infeasible as error:
            return self._failed("Infeasible", str(error))
        except ValueError as error:
            return self._failed("Invalid", str(error))
        except Exception as error:  # noqa: BLE001 - fail static, whatever a policy or a plug-in does wrong
            return self._failed("DecisionFailed", f"{type(error).__name__}: {error}", error)
        self._trouble = verdict.trouble.message if verdict.trouble else None
        self._last = verdict.order
        return verdict

    def refuse(self, refusals: Mapping[str, Refusal], inventory: Inventory, now: float) -> None:
        """The host said no: these pipelines keep what they have, or get no more than the host would do."""
        pipelines = {pipeline.name: pipeline for pipeline in inventory.pipelines}
        for name, refusal in refusals.items():
            if name in pipelines and not pipelines[name].pinned:
                until = now + self._patience
                if (before := self._refused.get(name)) is not None and before.refusal == refusal:
                    until = before.until
                self._refused[name] = Refused(refusal, pipelines[name], until)

    def _forgive(self, pipelines: tuple[Pipeline, ...], now: float) -> None:
        present = {pipeline.name: pipeline for pipeline in pipelines}
        self._refused = {
            name: refused
            for name, refused in self._refused.items()
            if now < refused.until and present.get(name) == refused.pipeline
        }

    def _decide(self, budget: CPUBudget, facts: Facts) -> Verdict:
        inventory = facts.inventory
        names = {pipeline.name for pipeline in inventory.pipelines}
        config = self._configured(budget, inventory)
        state = replace(self._state, learned={name: value for name, value in facts.learned.items() if name in names})
        if self._restored is not None:
            state = _resumed(state, self._restored, config)
        seen = {name: sample for name, sample in facts.samples.items() if name in names}
        observation = Observation(seen, _current(state, config, inventory))
        self._state, decision = decide(state, observation, config, facts.now)
        self._restored = None
        reviewed = self._extensions.review(decision, observation, config)
        if isinstance(reviewed, str):
            return Verdict(self._still(budget, inventory), decision, Trouble("Vetoed", reviewed))
        order = Order(
            budget,
            config.budget.total - config.budget.reserve,
            reviewed.allocation.grants,
            reviewed.allocation.replicas,
        )
        return Verdict(order, reviewed)

    def _configured(self, budget: CPUBudget, inventory: Inventory) -> Config:
        spec = budget.spec
        base = Config(
            pipelines=tuple(_within(p, self._refused.get(p.name)) for p in inventory.pipelines),
            budget=Budget(inventory.total, min(spec.reserve, inventory.total), spec.core_groups(), inventory.nodes),
            policy=spec.policy_name(inventory.pipelines),
            estimator=self._estimator,
            calm=spec.calm.value(),
        )
        if self._config is None or base != self._base:
            self._base, self._config = base, self._extensions.config(base)
        return self._config

    def _still(self, budget: CPUBudget, inventory: Inventory) -> Order | None:
        """The order before this one, as far as it still means the same."""
        names = {pipeline.name for pipeline in inventory.pipelines}
        if self._last is None or self._last.grants.keys() != names or self._last.budget.spec != budget.spec:
            return None
        return self._last

    def _failed(self, reason: str, message: str, error: Exception | None = None) -> Verdict:
        message = " ".join(message.split())[:1000]
        if message != self._trouble:
            log.warning("no decision could be made, everything stays: %s", message, exc_info=error)
        self._trouble = message
        self._last = None
        return Verdict(trouble=Trouble(reason, message))


def _within(pipeline: Pipeline, refused: Refused | None) -> Pipeline:
    """What the host will do of a pipeline: up to what it says, else nothing."""
    if refused is None:
        return pipeline
    most = refused.refusal.most
    if pipeline.pinned or most is None or most < pipeline.floor:
        return replace(pipeline, pinned=True)
    return replace(pipeline, ceiling=most if pipeline.ceiling is None else min(most, pipeline.ceiling))


def _resumed(state: State, standing: Standing, config: Config) -> State:
    """With the division of an earlier process, where it was made for the same."""
    made_for = (config.pipelines, config.budget, config.policy)
    if standing.made_for != _digest(*made_for):
        return state
    return replace(state, quiet=standing.quiet, allocation=standing.allocation, made_for=made_for)


def _current(state: State, config: Config, inventory: Inventory) -> Mapping[str, int]:
    """What each pipeline has: what it was given last, where that still means the same, else what is observed.

    A grant may be half-way: a pipeline of which nothing is known any more keeps what it was to have, and not what it
    happened to have in the middle of a move, with the rest of the budget idle.
    """
    present = {pipeline.name: pipeline for pipeline in config.pipelines}
    current = {name: granted for name, granted in inventory.granted.items() if name in present}
    if state.allocation is None or state.made_for is None or state.made_for[1].total != config.budget.total:
        return current
    same = {p.name for p in state.made_for[0] if not p.pinned and present.get(p.name) == p}
    given = {name: grant for name, grant in state.allocation.grants.items() if name in same}
    together = {**current, **given}
    return together if sum(together.values()) <= config.budget.total else current


def _digest(pipelines: tuple[Pipeline, ...], budget: Budget, policy: Any) -> str:
    name = policy if isinstance(policy, str) else policy.name
    return hashlib.sha256(repr((pipelines, budget, name)).encode()).hexdigest()[:32]
