"""One division to make: the limits and what is wanted within them, as columns; and the proof when it is impossible."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from headgate.core.filling import Space
from headgate.core.laminar import Bools, Floats, Ints
from headgate.core.limits import Limits
from headgate.core.model import Basis, Demand, Demands, Infeasible, Unknown
from headgate.core.units import MILLI, format_cpu

NO_LOAD = 1e-9
"""CPUs of offered load below which a pipeline is idle."""

MOST = 1e15
"""What every number of a demand has to be below."""


@dataclass(frozen=True, slots=True, eq=False)
class Wants:
    """What n pipelines are expected to need; s equally likely scenarios of the arrivals."""

    arrivals: Floats
    """Requests per second, n x s."""
    service_time: Floats
    """CPU seconds per request, n."""
    service_cv: Floats
    queue: Floats
    """Requests waiting already."""
    known: Bools
    """Whether there is data at all; where not, the other columns are 0."""
    arrival_cv: Floats | float = 1.0
    basis: Sequence[Basis] = ()
    """What each is known by; empty: all by requests that were counted."""

    @property
    def load(self) -> Floats:
        """The offered load in CPUs, n."""
        return np.asarray(np.add.reduce(self.arrivals, axis=1) / self.arrivals.shape[1] * self.service_time)

    @classmethod
    def of(cls, names: Sequence[str], demands: Demands) -> Wants:
        """The demands as columns. Raises ValueError naming the pipeline whose demand is no number of 0 or more."""
        found = [demands.get(name) for name in names]
        most = max([len(d.arrival_rates) for d in found if isinstance(d, Demand)], default=1)
        nothing = (0.0,) * most
        rates, others, known = [], [], []
        for name, demand in zip(names, found, strict=True):
            if isinstance(demand, Demand):
                given = demand.arrival_rates
                rates.append(given if given and len(given) == most else _resample(name, given, most))
                others.append((demand.cpu_seconds_per_request, demand.service_cv, demand.queue, demand.arrival_cv))
            else:
                rates.append(nothing)
                others.append((0.0, 1.0, 0.0, 1.0))
            known.append(isinstance(demand, Demand))
        basis = tuple([d.basis if isinstance(d, Demand) else "requests" for d in found])
        service_time, service_cv, queue, arrival_cv = np.array(others, dtype=np.float64).reshape(-1, 4).T.copy()
        wants = cls(
            arrivals=np.array(rates, dtype=np.float64).reshape(-1, most),
            service_time=service_time,
            service_cv=service_cv,
            queue=queue,
            known=np.array(known, dtype=np.bool_),
            arrival_cv=arrival_cv,
            basis=basis if set(basis) - {"requests"} else (),
        )
        wants.check(names)
        return wants

    @property
    def by_cpu(self) -> Bools:
        """Those that are known by the CPU in use alone, of which no latency can be told, n."""
        if not self.basis:
            return np.zeros(len(self.known), dtype=np.bool_)
        return np.array([basis == "cpu" for basis in self.basis], dtype=np.bool_)

    def check(self, names: Sequence[str]) -> None:
        """Raises ValueError naming the first pipeline with a NaN, an infinity or a negative number."""
        parts = {
            "arrival rate": self.arrivals,
            "CPU seconds per request": self.service_time,
            "service_cv": self.service_cv,
            "queue": self.queue,
            "arrival_cv": np.asarray(self.arrival_cv),
            "offered load": self.load,
        }
        for what, values in parts.items():
            # A NaN is neither.
            if not values.size or (values.min() >= 0 and values.max() < MOST):
                continue
            rows = values.reshape(len(names), -1)
            wrong = ~(np.isfinite(rows) & (rows >= 0) & (rows < MOST))
            row = int(np.flatnonzero(wrong.any(axis=1))[0])
            value = float(rows[row][wrong[row]][0])
            raise ValueError(f"pipeline {names[row]}: {what} {value} is not a number from 0 to below 1e15")


def _resample(name: str, rates: Sequence[float], size: int) -> Sequence[float]:
    """`rates` as `size` equally likely ones: quantiles of the same distribution."""
    if not rates:
        raise ValueError(f"pipeline {name}: its demand has no arrival rate; say Unknown when there is no data")
    if len(set(rates)) == 1:
        return [rates[0]] * size
    ranks = (np.arange(size) + 0.5) / size
    middles = (np.arange(len(rates)) + 0.5) / len(rates)
    quantiles: list[float] = np.interp(ranks, middles, np.sort(np.array(rates, dtype=np.float64))).tolist()
    return quantiles


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """What a policy divides: each pipeline gets low <= grant <= high within the `space`."""

    limits: Limits
    """As they bind in this decision: floor equals ceiling for a pipeline that keeps what it has, and one that is known
    by its CPU alone has no SLO."""
    wants: Wants
    load: Floats
    """Offered load in CPUs; for a pipeline of unknown demand 0, or what it holds where that has to be shared anew."""
    space: Space
    current: Ints
    """Millicores now, -1: none."""
    held: Bools
    """Pipelines that keep what they have: pinned, or of unknown demand."""
    arriving: float = 1.0
    """Share of the horizon that a CPU serves which has to move to its pipeline first; 1: moves cost nothing."""
    price: float = 0.0
    """Utility, 0 to 1, that each CPU must bring above all that where it moves to."""
    most_moved: int | None = None
    """Millicores that may change hands; None: any number."""

    @property
    def calm(self) -> bool:
        """Whether moves cost something."""
        return self.arriving < 1 or self.price > 0


def pose(limits: Limits, wants: Wants, current: Ints, arriving: float = 1.0) -> Problem:
    """The division to make, with pinned pipelines and those of unknown demand held at what they have.

    When what the unknown ones hold does not fit any more, they share like the others, as if what they hold were
    their load, and never get more than that. Raises Infeasible when no division keeps every limit.
    """
    pinned = np.zeros(len(limits), dtype=np.bool_)
    pinned[limits.pinned] = True
    for index in limits.pinned.tolist():
        _check_pinned(limits, index, int(current[index]))
    kept = np.maximum(current, limits.floor)
    unknown = ~wants.known & ~pinned & (current >= 0)
    # Down to a ceiling that is set; the budget is no such: who holds more than it has to share.
    lowered = [i for i in np.flatnonzero(unknown & (kept > limits.ceiling)).tolist() if i in limits.capped]
    kept[lowered] = limits.ceiling[lowered]
    kept[pinned] = current[pinned]
    load = wants.load
    load[unknown | (load < NO_LOAD)] = 0.0
    space = Space(limits.tree, limits.placement.obvious_cuts() if limits.placement else ())
    for held in (pinned | unknown, pinned):
        floor = np.where(held, kept, limits.floor)
        contradiction = contradictory(limits, floor, space)
        if contradiction is None:
            break
    else:
        assert contradiction is not None
        raise Infeasible(contradiction)
    judged = _judged(limits, wants)
    if not held.any() and not unknown.any():
        return Problem(judged, wants, load, space, current, held, arriving)
    ceiling = np.where(held, kept, limits.ceiling)
    sharing = unknown & ~held
    ceiling[sharing] = np.minimum(kept, limits.ceiling)[sharing]
    # What they really hold, also where that is more than the budget: else a larger budget would mean more load.
    load[sharing] = np.maximum(current, limits.floor)[sharing] / MILLI
    return Problem(replace(judged, floor=floor, ceiling=ceiling), wants, load, space, current, held, arriving)


def _judged(limits: Limits, wants: Wants) -> Limits:
    """`limits` without the SLOs of pipelines that are known by their CPU alone."""
    if not wants.basis:
        return limits
    by_cpu = wants.by_cpu
    return replace(
        limits,
        latency=np.where(by_cpu, np.nan, limits.latency),
        percentile=np.where(by_cpu, np.nan, limits.percentile),
    )


def _check_pinned(limits: Limits, index: int, current: int) -> None:
    name = limits.names[index]
    if current < 0:
        raise Infeasible(f"pipeline {name} is pinned but has no current grant to keep: give its `current` or unpin it")
    low, high = int(limits.floor[index]), int(limits.ceiling[index])
    if current < low:
        raise Infeasible(f"pipeline {name} is pinned at {format_cpu(current)}, below its floor {format_cpu(low)}")
    if current > high and index in limits.capped:
        raise Infeasible(f"pipeline {name} is pinned at {format_cpu(current)}, above its ceiling {format_cpu(high)}")


def contradictory(limits: Limits, floor: Ints, space: Space) -> str | None:
    """The smallest set of limits that no division can keep, as a message; None when `floor` fits everywhere."""
    found: list[tuple[int, str]] = []
    for level in space.tree:
        for group in np.flatnonzero(level.slack(floor) < 0).tolist():
            where = f"the budget of group {level.names[group]}" if level.names[group] else "the budget"
            found.append(_blame(limits, floor, np.flatnonzero(level.member == group), int(level.budget[group]), where))
    for cut in [*space.cuts, *(limits.placement.spread(floor).cuts if limits.placement else ())]:
        if floor[cut.members].sum() > cut.room:
            where = f"the free CPUs of node{'s' * (len(cut.nodes) > 1)} {', '.join(cut.nodes)}"
            found.append(_blame(limits, floor, cut.members, cut.room, where))
    return min(found)[1] if found else None


def _blame(limits: Limits, floor: Ints, members: Ints, room: int, where: str) -> tuple[int, str]:
    """How many pipelines it takes to exceed `room`, and the message that names them: the largest floors."""
    order = members[np.lexsort((limits.rank[members], -floor[members]))]
    count = int(np.searchsorted(np.cumsum(floor[order]), room, side="right")) + 1
    pinned = set(limits.pinned.tolist())
    guilty = sorted(order[:count].tolist(), key=lambda i: int(limits.rank[i]))
    listed = ", ".join(
        f"{limits.names[i]} {'is pinned at' if i in pinned else 'has floor'} {format_cpu(int(floor[i]))}"
        for i in guilty[:20]
    )
    if len(guilty) > 20:
        listed += f", and {len(guilty) - 20} more"
    need = format_cpu(int(floor[order[:count]].sum()))
    return (
        count,
        f"{where}, {format_cpu(room)}, cannot hold {listed}, together {need}: lower a floor or raise the budget",
    )


def columns_of(names: Sequence[str], amounts: Mapping[str, int]) -> Ints:
    """Millicores by name as a column, -1 where there are none. Raises ValueError on a negative amount."""
    column = np.array([amounts.get(name, -1) for name in names], dtype=np.int64)
    for index in np.flatnonzero(column < 0).tolist():
        if names[index] in amounts:
            raise ValueError(f"pipeline {names[index]}: its current {amounts[names[index]]}m is negative")
    return column


def unknown_reason(demands: Demands, name: str) -> str:
    """Why nothing is known of a pipeline's demand."""
    found = demands.get(name)
    return found.reason if isinstance(found, Unknown) else "no demand given"
