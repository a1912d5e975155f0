from __future__ import annotations

from headgate.core.nodes.model import GroupDemand
from headgate.core.nodes.recommend import Recommendation, recommend
from headgate.core.nodes.settings import GroupSettings
from headgate.core.nodes.state import GroupState

SETTINGS = GroupSettings("machine")


def follow(loads: list[int], budget: int = 4000, settings: GroupSettings = SETTINGS) -> list[Recommendation]:
    state, found = GroupState(), []
    for step, load in enumerate(loads):
        now = step * 10.0
        state, one = recommend(state, settings, budget, min(load, budget), GroupDemand(now, load), now)
        found.append(one)
    return found


def test_demand_beyond_the_machine_asks_for_cpus_for_the_target_utilisation_once_it_lasts() -> None:
    found = follow([6000] * 8)
    assert [r.cpus for r in found] == [4000] * 6 + [9000] * 2  # 6 / 0.7 = 8.6 CPUs
    assert found[-1].reason == "utilisation 1.50 (demand 6 of 4 CPUs), above 0.75 for 70 s"


def test_a_low_asks_for_fewer_by_the_windows_peak_and_never_for_none() -> None:
    assert follow([400] * 61)[-1].cpus == 1000
    assert follow([1300] * 61)[-1].cpus == 2000  # 1.3 / 0.7 = 1.9
    long = GroupSettings("machine", window=1200.0)
    assert follow([2800] + [400] * 61, settings=long)[-1].cpus == 4000  # the peak is in the window still
    assert follow([2400] * 61)[-1].cpus == 4000  # between the thresholds


def test_what_is_not_known_recommends_what_there_is() -> None:
    state = GroupState()
    for step in range(100):
        state, one = recommend(state, SETTINGS, 4000, None, None, step * 10.0)
    assert one == Recommendation(4000, "usage is not known; demand is not known")
