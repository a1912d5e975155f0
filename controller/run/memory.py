"""What survives a restart: what was learned of each pipeline, and each budget's division in force.

The division is small and written before it is put in force. What was learned is large (about 20 kB a pipeline) and
changes all the time, so it is written now and then, in pieces that are each of use without the others.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from zlib import crc32

from headgate.controller.run.settings import StateSettings
from headgate.core.allocation import Allocation
from headgate.core.calm import Quiet, Recent, Trend
from headgate.core.codec import Broken, Codec, Unstorable
from headgate.core.decision import State
from headgate.core.demand import arrivals, cost, forecast, learned, margin, recent, seasonal, usage
from headgate.core.model import Demand

log = logging.getLogger("headgate.run")

CODEC = Codec(
    (
        *(arrivals.CounterState, learned.LearnedState, cost.CostState, usage.UsageState),
        *(forecast.LevelState, forecast.HoltState, forecast.PeakState, seasonal.SeasonalState),
        *(margin.MarginState, margin.Record, recent.RecentState),
        *(Quiet, Trend, Recent, Demand, Allocation),
    )
)

STANDING = "standing"
LEARNED = "learned-"
PIECE = 48
"""Pipelines in a piece of what was learned, about: less than half of what an object may hold."""
KEPT = 2 * 86400.0
"""Seconds for which a pipeline that vanished is remembered: it may be scaled to zero over a weekend's night."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A budget's division in force, and what it was made for."""

    made_for: str
    """Digest of pipelines, budget and policy."""
    quiet: Quiet
    allocation: Allocation

    def value(self) -> tuple[str, Quiet, Allocation]:
        """For the codec; reasons are written out here."""
        return self.made_for, self.quiet, replace(self.allocation, reasons=dict(self.allocation.reasons))


@dataclass(slots=True)
class Memory:
    """What is kept of all budgets, and when it was last written."""

    settings: StateSettings
    estimator: str
    """Which estimator learned; what another one learned is of no use."""
    learned: dict[str, Any] = field(default_factory=dict)
    standing: dict[str, Standing] = field(default_factory=dict)
    _seen: dict[str, float] = field(default_factory=dict)
    _written: dict[str, float] = field(default_factory=dict)
    _pieces: set[str] = field(default_factory=set)
    _orders: dict[str, Mapping[str, int]] = field(default_factory=dict)
    _unstorable: set[str] = field(default_factory=set)

    def recall(self, kept: Mapping[str, Any], now: float) -> None:
        """Take up what a home has kept. What is damaged or of another version is dropped, and logged."""
        self.learned.clear()
        self.standing.clear()
        self._pieces = {key for key in kept if key.startswith(LEARNED)}
        for key in sorted(self._pieces):
            for name, value in self._piece(key, kept[key]).items():
                if (state := _unpacked(f"what was learned of {name}", value)) is not None:
                    self.learned[name] = state
                    self._seen[name] = now
        for key, value in _mapping(STANDING, kept.get(STANDING, {})).items():
            found = _unpacked(f"the division of budget {key}", value)
            match found:
                case (str(made_for), Quiet() as quiet, Allocation() as allocation):
                    self.standing[key] = Standing(made_for, quiet, allocation)
                case None:
                    pass
                case _:
                    log.warning("dropped from the state: the division of budget %s: is damaged", key)
        self._written = {STANDING: now, LEARNED: now}

    def _piece(self, key: str, value: Any) -> Mapping[str, Any]:
        piece = _mapping(key, value)
        if piece.get("estimator") == self.estimator:
            return _mapping(key, piece.get("pipelines", {}))
        log.warning("dropped from the state: %s: another estimator has learned it", key)
        return {}

    def learn(self, state: State, now: float) -> None:
        """After a decision: what it learned; forgets who has been gone for long."""
        self.learned.update(state.learned)
        self._seen.update(dict.fromkeys(state.learned, now))
        for name in [name for name, seen in self._seen.items() if now - seen > KEPT]:
            del self._seen[name]
            self.learned.pop(name, None)

    def before(self, orders: Mapping[str, Mapping[str, int]], now: float, *, final: bool = False) -> Mapping[str, Any]:
        """What to write before grants by budget are put in force; empty where the same was written a moment ago."""
        due = final or now - self._written.get(STANDING, -1e18) >= self.settings.standing
        if orders == self._orders and not due:
            return {}
        return {STANDING: {key: CODEC.pack(standing.value()) for key, standing in self.standing.items()}}

    def after(self, now: float, *, final: bool = False) -> Mapping[str, Any]:
        """What to write when there is time for it."""
        if not final and now - self._written.get(LEARNED, -1e18) < self.settings.learned:
            return {}
        packed: dict[str, Any] = {}
        for name, state in self.learned.items():
            try:
                packed[name] = CODEC.pack(state)
            except Unstorable as error:
                if str(error) not in self._unstorable:
                    self._unstorable.add(str(error))
                    log.warning("what was learned of %s will not survive a restart: %s", name, error)
        count = 1
        while count * PIECE < len(packed):
            count *= 2
        pieces: dict[str, dict[str, Any]] = {f"{LEARNED}{count}-{index}": {} for index in range(count)}
        for name, value in packed.items():
            pieces[f"{LEARNED}{count}-{crc32(name.encode()) % count}"][name] = value
        written = {key: {"estimator": self.estimator, "pipelines": piece} for key, piece in pieces.items()}
        return {**dict.fromkeys(self._pieces - written.keys()), **written}

    def wrote(self, state: Mapping[str, Any], orders: Mapping[str, Mapping[str, int]], now: float) -> None:
        """`state` is kept now."""
        if STANDING in state:
            self._written[STANDING] = now
            self._orders = {key: dict(grants) for key, grants in orders.items()}
        if any(key.startswith(LEARNED) for key in state):
            self._written[LEARNED] = now
            self._pieces = {key for key, value in state.items() if value is not None and key.startswith(LEARNED)}


def _mapping(what: str, value: Any) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    log.warning("dropped from the state: %s: is damaged", what)
    return {}


def _unpacked(what: str, value: Any) -> Any:
    try:
        return CODEC.unpack(value)
    except Broken as error:
        log.warning("dropped from the state: %s %s", what, error)
        return None
