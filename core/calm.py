"""Calm: CPUs move when that is worth it, not with every flicker of the load.

Two tests look at each pipeline's load, and one of them has to fire before anything moves. The load of the moment
against its mean since the last move: a step is seen at once, and noise is not, as it is measured against the forecast's
own spread and the Poisson noise of one sample. And that mean against what the grants were made for: a drift too slow
for the first test.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from headgate.core.model import Demand, Demands
from headgate.core.units import MILLI


@dataclass(frozen=True, slots=True)
class Calm:
    """When CPUs move. The defaults are for live CPU, whose moves take effect at once and cost nothing."""

    move_cost: float = 0.0
    """Seconds that a moved CPU serves nobody: 0 live, the cold start where it means a new replica."""
    horizon: float = 120.0
    """Seconds over which a move has to pay. The `slo` policies count a CPU that moves by 1 - move_cost / horizon."""
    price: float = 0.0
    """What a CPU must bring above all that where it moves to; of the `slo` policies too.

    1: as much as CPUs bring in the mean, a utility of 1 for each pipeline with load over the whole budget.
    """
    band: float = 0.1
    """Changes of load by less than this share of it never move anything; 0 with `noise` 0: every change does."""
    noise: float = 5.0
    """Nor do changes by less than so many standard deviations of the load in one sample."""
    stabilisation: float | None = None
    """Seconds that a load must have fallen before CPUs are taken away; None: `move_cost`."""
    most_moved: int | None = None
    """Millicores that change hands in one decision at the most; None: any number."""

    def __post_init__(self) -> None:
        for name in ("move_cost", "horizon", "price", "band", "noise", "stabilisation", "most_moved"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"calm: {name} {value} is not a finite number of 0 or more")

    @classmethod
    def of_delay(cls, delay: float) -> Calm:
        """For moves that take effect after `delay` seconds: the defaults where that is at once.

        Otherwise the price of each move decides, at every decision, and no gate before it. Price and horizon were
        chosen on days 2, 5 and 8 of the traces of benchmarks/faro.py with 32 and 36 CPUs, for Poisson arrivals and for
        rougher ones (docs/benchmarks-faro.md): prices of 0.2 to 0.4 and horizons of 1.5 to 3 delays do much alike
        there; a fifth of the price costs 5 % more violations of the rougher arrivals and twice the moves.
        """
        if not delay:
            return cls()
        return cls(move_cost=delay, horizon=2 * delay, price=0.3, band=0.0, noise=0.0, stabilisation=0.0)

    @property
    def arriving(self) -> float:
        """Share of the horizon that a moved CPU serves."""
        return max(0.0, 1 - self.move_cost / self.horizon) if self.move_cost else 1.0

    @property
    def window(self) -> float:
        """Seconds over which the highest load counts."""
        return self.move_cost if self.stabilisation is None else self.stabilisation


RESTLESS = Calm(band=0.0, noise=0.0)
"""Every decision divides anew."""

_LONGEST = 12
"""Decisions after which the mean since the last move forgets."""


@dataclass(frozen=True, slots=True)
class Trend:
    """A pipeline's load in CPUs, as the grants in force know it."""

    used: float
    """What they were made for."""
    mean: float
    """Since then."""
    spread: float
    """Standard deviation of the load in one sample, smoothed."""
    count: int = 1
    judged: bool = True
    """Whether a latency could be told of it: it was known by more than the CPU in use."""


@dataclass(frozen=True, slots=True)
class Recent:
    """The demands of the stabilisation window that may still be the highest: each higher than all after it."""

    demands: tuple[tuple[float, Demand], ...] = ()

    def with_(self, demand: Demand, now: float, window: float) -> Recent:
        """After `demand`; older than `window` is forgotten, and what was inferred once requests are counted again."""
        counted = demand.basis == "requests"
        kept = [
            (time, seen)
            for time, seen in self.demands
            if time > now - window
            and seen.offered_load > demand.offered_load
            and not (counted and seen.basis != "requests")
        ]
        return Recent((*kept, (now, demand)))

    @property
    def highest(self) -> Demand:
        """The one with the most load."""
        return self.demands[0][1]


@dataclass(frozen=True, slots=True)
class Quiet:
    """What calm remembers from one decision to the next."""

    trends: Mapping[str, Trend | None] = field(default_factory=dict)
    """None: the demand was unknown."""
    recent: Mapping[str, Recent] = field(default_factory=dict)


def stabilised(quiet: Quiet, demands: Demands, calm: Calm, now: float) -> tuple[Demands, Mapping[str, Recent]]:
    """The demands, each at its highest of the stabilisation window, and what to remember of them."""
    if not calm.window:
        return demands, {}
    recent = {
        name: quiet.recent.get(name, Recent()).with_(demand, now, calm.window)
        for name, demand in demands.items()
        if isinstance(demand, Demand)
    }
    return {name: recent[name].highest if name in recent else demand for name, demand in demands.items()}, recent


def changed(quiet: Quiet, demands: Demands, calm: Calm, grants: Mapping[str, int]) -> str | None:
    """The pipeline for whose load CPUs should move; None when all is quiet.

    Besides a step and a drift that is one with clearly less than its load while there is enough for all: what the
    division then knew of the loads was wrong.
    """
    if demands.keys() != quiet.trends.keys():
        return next(iter(demands), "")
    if not (calm.band or calm.noise):
        return next(
            (name for name, d in demands.items() if isinstance(d, Demand) or quiet.trends[name] is not None), None
        )
    known = {name: demand.offered_load for name, demand in demands.items() if isinstance(demand, Demand)}
    enough = sum(known.values()) * MILLI <= sum(grants[name] for name in known)
    for name, demand in demands.items():
        trend = quiet.trends[name]
        if trend is None or not isinstance(demand, Demand):
            if (trend is None) is isinstance(demand, Demand):
                return name
            continue
        if trend.judged != (demand.basis != "cpu"):
            return name
        load = known[name]
        step = max(calm.band * trend.mean, calm.noise * trend.spread * math.sqrt(1 + 1 / trend.count))
        drift = max(calm.band * trend.used, calm.noise * trend.spread * math.sqrt(1 / trend.count))
        after = _mean(trend, load)
        if abs(load - trend.mean) > step or abs(after - trend.used) > drift:
            return name
        starved = after - trend.spread / math.sqrt(trend.count) > grants[name] / MILLI
        if enough and starved:
            return name
    return None


def settled(demands: Demands, windows: Mapping[str, float]) -> Mapping[str, Trend | None]:
    """Right after a division for these demands. `windows`: seconds that a pipeline's samples span, 1 where not said."""
    return {
        name: Trend(
            load := demand.offered_load,
            load,
            _spread(demand, windows.get(name, 1.0)),
            judged=demand.basis != "cpu",
        )
        if isinstance(demand, Demand)
        else None
        for name, demand in demands.items()
    }


def followed(quiet: Quiet, demands: Demands, windows: Mapping[str, float]) -> Mapping[str, Trend | None]:
    """After a decision that moved nothing."""
    result: dict[str, Trend | None] = {}
    for name, demand in demands.items():
        trend = quiet.trends[name]
        if trend is not None and isinstance(demand, Demand):
            count = min(trend.count + 1, _LONGEST)
            spread = trend.spread + (_spread(demand, windows.get(name, 1.0)) - trend.spread) / count
            trend = replace(trend, mean=_mean(trend, demand.offered_load), spread=spread, count=count)
        result[name] = trend
    return result


def _mean(trend: Trend, load: float) -> float:
    return trend.mean + (load - trend.mean) / min(trend.count + 1, _LONGEST)


def _spread(demand: Demand, window: float) -> float:
    """Standard deviation of the load in CPUs that a sample of `window` seconds shows: the forecast's and Poisson's."""
    rates, rate = demand.arrival_rates, demand.arrival_rate
    variance = sum([(r - rate) ** 2 for r in rates]) / len(rates) + rate / max(window, 1e-3)
    return demand.cpu_seconds_per_request * math.sqrt(variance) + demand.cpu_seconds_per_request_sd * rate
