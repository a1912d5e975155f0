"""The estimator that decisions use: arrivals as a distribution, cost per request, and when neither is known."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from headgate.core.demand.arrivals import Counter, CounterState, known
from headgate.core.demand.bursts import Bursts, BurstsState
from headgate.core.demand.cost import Cost, CostState
from headgate.core.demand.forecast import Forecaster, Holt, Level
from headgate.core.demand.margin import Margin, Outlook
from headgate.core.demand.recent import Pool, Recent
from headgate.core.demand.seasonal import Seasonal
from headgate.core.demand.select import Best
from headgate.core.demand.usage import Usage, UsageState
from headgate.core.model import Demand, Sample, Unknown


class Estimator(Protocol):
    """Learns one pipeline's demand from its samples. Its state is a value, so that a decision can be replayed."""

    def update(self, state: Any, sample: Sample) -> Any:
        """The state after `sample`. `state` is None for the first one."""
        ...

    def estimate(self, state: Any, now: float) -> Demand | Unknown:
        """The demand over the coming horizon, or why it cannot be told."""
        ...


class LearnedState(NamedTuple):
    """What each part knows, and the last value of what is not learned."""

    counter: CounterState | None = None
    outlook: Any = None
    cost: CostState | None = None
    service_cv: float = 1.0
    bursts: BurstsState | None = None
    usage: UsageState | None = None
    """What the CPU in use says, as long as no requests are counted."""


@dataclass(frozen=True, slots=True)
class Learned:
    """Composes arrivals, their outlook, and the cost of a request; CPU in use where requests are not counted.

    Samples older than `stale` seconds say nothing any more: the demand is Unknown, and the pipeline keeps what it has.
    """

    outlook: Outlook
    counter: Counter
    cost: Cost = field(default_factory=Cost)
    bursts: Bursts = field(default_factory=Bursts)
    stale: float = 10.0
    queued: bool = True
    """Whether what waits now still waits when a decision takes effect; not so where moves take longer than queues."""

    def update(self, state: LearnedState | None, sample: Sample) -> LearnedState:
        """What each part makes of `sample`; one that is repeated, late or broken changes nothing."""
        state = state or LearnedState()
        counter, seen = self.counter.update(state.counter, sample)
        if seen is None:
            return state._replace(counter=counter)
        cv = known(sample.service_cv)
        counts = known(sample.arrivals) is not None or known(sample.completions) is not None
        return LearnedState(
            counter,
            self.outlook.update(state.outlook, seen),
            self.cost.update(state.cost, sample),
            state.service_cv if cv is None else cv,
            self.bursts.update(state.bursts, seen),
            None if counts else self._usage.update(state.usage, sample),
        )

    def estimate(self, state: LearnedState | None, now: float) -> Demand | Unknown:
        """Scenarios and cost as learned, or Unknown with the reason."""
        if state is None or state.counter is None or state.counter.time == -math.inf:
            return Unknown("no sample yet")
        counter = state.counter
        if now - counter.time > self.stale:
            return Unknown(f"last sample is {now - counter.time:.0f} s old")
        demand = self._by_requests(state, counter, now)
        if isinstance(demand, Unknown) and state.usage is not None and now - state.usage.time <= self.stale:
            return self._by_usage(state, state.usage, now) or demand
        return demand

    def _by_requests(self, state: LearnedState, counter: CounterState, now: float) -> Demand | Unknown:
        scenarios = self.outlook.scenarios(state.outlook, now)
        if counter.counted is None or not scenarios:
            return Unknown("the samples do not say how many requests arrive")
        if now - counter.counted > self.stale:
            return Unknown(f"for {now - counter.counted:.0f} s the samples have not said how many requests arrive")
        cost = self.cost.estimate(state.cost)
        if cost is None:
            if counter.rate == 0 and not counter.queue:
                # Counted, and none came: no load, whatever one will cost. Not to be confused with no metric.
                return Demand(arrival_rates=(0.0,), cpu_seconds_per_request=0.0)
            return Unknown(f"{_uncosted(state.cost)}, so the cost of one is not known")
        return Demand(
            arrival_rates=scenarios,
            cpu_seconds_per_request=cost.per_request,
            service_cv=state.service_cv,
            queue=(counter.queue or 0.0) if self.queued else 0.0,
            cpu_seconds_per_request_sd=cost.deviation,
            arrival_cv=self.bursts.variation(state.bursts),
        )

    def _by_usage(self, state: LearnedState, usage: UsageState, now: float) -> Demand | None:
        """The CPU in use as requests of the cost that was learned before they stopped being counted, else by itself."""
        scenarios = self._usage.scenarios(usage, now)
        if not scenarios:
            return None
        cost = self.cost.estimate(state.cost)
        if cost is None or cost.per_request <= 0:
            quantum = self._usage.quantum
            return Demand(tuple([cpus / quantum for cpus in scenarios]), quantum, basis="cpu")
        rates = tuple([max(0.0, cpus - cost.base) / cost.per_request for cpus in scenarios])
        return Demand(
            rates, cost.per_request, state.service_cv, cpu_seconds_per_request_sd=cost.deviation, basis="cost"
        )

    @property
    def _usage(self) -> Usage:
        return Usage(self.outlook, self.counter)


def _uncosted(cost: CostState | None) -> str:
    """Why nothing is known of what a request costs."""
    if cost is None:
        return "the samples do not say both the CPU in use and the requests completed"
    if cost.carried_completions:
        return "no CPU has been counted yet for the requests that were served"
    return "no request has been served yet"


MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0

RECENT_HORIZONS, RECENT_RATES = 4, 10
"""How many horizons back the recent rates reach, and how many of them are scenarios."""

QUEUES_LAST = 10.0
"""Seconds of delay beyond which a queue of now says nothing about then: it was served or dropped meanwhile."""

LEAST_BURSTS = 1.75
"""Variation of the arrivals that is planned for where moves take time, whatever the counts say.

What comes in a burst of seconds meets the CPUs that are there, and counts over longer intervals do not show it. Chosen
with the price of moves (`Calm.of_delay`), as told there.
"""

JUDGED_EVERY = 5
"""Intervals between the judgements of a forecaster: judging takes ten times as long as learning."""


def default_estimator(interval: float = 1.0, delay: float = 0.0) -> Learned:
    """The estimator for decisions every `interval` seconds whose moves take effect after `delay` seconds.

    Forecasts the mean rate over the horizon of a decision, delay + interval. Follows, of two levels, a damped trend
    and the seasons of a quarter of an hour, an hour, a day and a week, whichever erred least on the pipeline so far.
    Where moves take time the rates of the last four horizons are scenarios too: it does not pay to take CPUs from a
    pipeline that was busy a moment ago when getting them back takes as long. Arrivals then are planned for as rougher
    than Poisson.
    """
    horizon = delay + interval
    level = Level()
    forecasters: tuple[Forecaster, ...] = (
        level,
        Level(drift=1e-4),
        Holt(level_half_life=2 * interval, slope_half_life=6 * interval, damping=30 * interval),
        Seasonal(level, 15 * MINUTE),
        Seasonal(level, HOUR, phases=60),
        Seasonal(level, DAY, phases=96),
        Seasonal(level, 7 * DAY, phases=168),
    )
    outlook: Outlook = Best(tuple([Margin(f, span=horizon, every=JUDGED_EVERY * interval) for f in forecasters]))
    if delay > 0:
        recent = Recent(window=RECENT_HORIZONS * horizon, every=RECENT_HORIZONS * horizon / RECENT_RATES)
        outlook = Pool((outlook, recent))
    return Learned(
        outlook=outlook,
        counter=Counter(span=horizon),
        bursts=Bursts(least=LEAST_BURSTS if delay > 0 else 1.0),
        stale=max(10.0, 5 * interval),
        queued=delay <= QUEUES_LAST,
    )
