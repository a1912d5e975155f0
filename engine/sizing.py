"""How many CPUs the machine should have, by the thresholds that a node group would follow. Reported, never acted on."""

from __future__ import annotations

from collections.abc import Sequence

from headgate.core.model import Demand, Pipeline
from headgate.core.nodes.model import GroupDemand
from headgate.core.nodes.needs import needs
from headgate.core.nodes.recommend import Recommendation, recommend
from headgate.core.nodes.settings import GroupSettings
from headgate.core.nodes.state import GroupState
from headgate.engine.engine import Standing

EVERY = 5.0
"""Seconds between two looks: the thresholds are sustained for much longer, and an SLO's CPUs take a search."""


class Sizing:
    """Follows the load from one look to the next. Not thread-safe."""

    def __init__(self, settings: GroupSettings, pipelines: Sequence[Pipeline]) -> None:
        self._settings = settings
        self._pipelines = pipelines
        self._state = GroupState()
        self._looked: float | None = None
        self._latest: Recommendation | None = None

    def look(self, standing: Standing, now: float) -> Recommendation | None:
        """The recommendation at `now` (seconds of any clock that does not jump); None: nothing was looked at yet."""
        if self._looked is None or now - self._looked >= EVERY:
            self._looked = now
            usage = sum(standing.used.values()) if standing.used else None
            self._state, self._latest = recommend(
                self._state, self._settings, standing.budget, usage, self._demand(standing, now), now
            )
        return self._latest

    def _demand(self, standing: Standing, now: float) -> GroupDemand | None:
        """What the pipelines need, before the budget cuts it. One that is not asked for anything needs its floor."""
        grants = standing.allocation.grants
        asked = [p for p in self._pipelines if not self._idle(standing, p)]
        idle = sum(p.floor for p in self._pipelines if self._idle(standing, p))
        found = needs(asked, standing.demands, grants)
        known = {name: need for name, need in found.items() if need is not None}
        if len(known) < len(found):
            return None
        unmet = sum(max(0, need - grants.get(name, 0)) for name, need in known.items())
        return GroupDemand(now, idle + sum(known.values()), unmet)

    @staticmethod
    def _idle(standing: Standing, pipeline: Pipeline) -> bool:
        demand = standing.demands.get(pipeline.name)
        return not isinstance(demand, Demand) and standing.arrival_rates.get(pipeline.name) == 0.0
