"""One machine, no cluster: how many CPUs it would take, by a node group's thresholds and timers. Changes nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass

from headgate.core.nodes.model import GroupDemand
from headgate.core.nodes.settings import GroupSettings
from headgate.core.nodes.signals import Signals, peak, sustain
from headgate.core.nodes.state import GroupState
from headgate.core.units import MILLI, format_cpu, format_duration


@dataclass(frozen=True, slots=True)
class Recommendation:
    """CPUs that the machine would want, in millicores (whole CPUs unless it is what there is), and why."""

    cpus: int
    reason: str


def recommend(
    state: GroupState,
    settings: GroupSettings,
    budget: int,
    usage: int | None,
    demand: GroupDemand | None,
    now: float,
    stale: float = 30.0,
) -> tuple[GroupState, Recommendation]:
    """The next state and the recommendation for a machine with a CPU `budget` in millicores.

    `usage`: millicores in use, None: not known. `demand`: the allocator's, before its budget cuts it. Above the upper
    threshold for `up_after`, or below the lower one for `down_after`: CPUs for the target utilisation, the latter by
    the window's peak. Otherwise, and without fresh data, what there is.
    """
    fresh = demand is not None and now - demand.time <= stale
    loads = {"usage": usage, "demand": demand.demand if demand is not None and fresh else None}
    unknown = tuple(f"{name} is not known" for name, load in loads.items() if load is None)
    short = demand.unmet if demand is not None and fresh else 0
    signals = Signals(budget, loads, unknown, short)
    state = sustain(state, settings, signals, now)
    what = signals.describe()
    if state.above_since is not None and signals.load is not None:
        lasted = now - state.above_since
        if lasted >= settings.up_after:
            cpus = max(budget, _whole(signals.load / settings.target))
            return state, Recommendation(cpus, f"{what}, above {settings.upper:g} for {lasted:.0f} s")
        return state, Recommendation(budget, f"{what} for {lasted:.0f} s, counts after {settings.up_after:g} s")
    if unknown:
        return state, Recommendation(budget, "; ".join(unknown))
    if state.below_since is not None and now - state.below_since >= settings.down_after:
        highest = peak(state, now, settings.window)
        cpus = min(budget, max(_whole(highest / settings.target), MILLI))
        window = format_duration(settings.window)
        reason = f"{what}, below {settings.lower:g}; the highest of {window} was {format_cpu(highest)}"
        return state, Recommendation(cpus, reason)
    return state, Recommendation(budget, what)


def _whole(millicores: float) -> int:
    return math.ceil(millicores / MILLI - 1e-9) * MILLI
