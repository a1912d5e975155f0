"""What the KServe adapter works out without a cluster: graphs, shared services, SLOs of stages, shares of pods."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.adapters.kserve.attribution import figures, graph_loads
from headgate.adapters.kserve.graphs import Graph, read_graph
from headgate.adapters.kserve.members import Claim, Member, rules_for
from headgate.adapters.kserve.services import read_service
from headgate.adapters.kserve.slos import Known, learned, slos
from headgate.adapters.kserve.targets import raised
from headgate.core.budgets import BudgetSpec, CPUBudget
from headgate.core.model import Demand

Object = dict[str, Any]


def graph(name: str, **nodes: tuple[str, list[Object]]) -> Graph:
    made = {node: {"routerType": kind, "steps": steps} for node, (kind, steps) in nodes.items()}
    return read_graph({"metadata": {"name": name, "namespace": "m"}, "spec": {"nodes": made}})


def budget(*rules: Object) -> CPUBudget:
    return CPUBudget("b", "m", BudgetSpec.model_validate({"total": "4", "pipelines": list(rules)}))


def service(name: str, **spec: Object) -> Any:
    return read_service({"metadata": {"name": name, "namespace": "m"}, "spec": {"predictor": {"model": {}}, **spec}})


SPLIT = graph(
    "g",
    root=("Sequence", [{"serviceName": "pre"}, {"nodeName": "choice"}]),
    choice=("Splitter", [{"serviceName": "x", "weight": 80}, {"serviceName": "y", "weight": 20}]),
)


def test_a_splitter_sends_its_weights_and_a_sequence_everything() -> None:
    assert SPLIT.services == {"m/pre", "m/x", "m/y"}
    assert SPLIT.visits() == {"m/pre": 1.0, "m/x": pytest.approx(0.8), "m/y": pytest.approx(0.2)}


def test_stages_in_sequence_share_a_latency_and_alternatives_have_it_each() -> None:
    # pre takes 10 ms, the longer of x and y 30 ms: a quarter of the time for pre.
    parts = SPLIT.parts(0.4, {"m/pre": 0.01, "m/x": 0.03, "m/y": 0.02})
    assert parts == {"m/pre": pytest.approx(0.1), "m/x": pytest.approx(0.3), "m/y": pytest.approx(0.3)}
    assert SPLIT.parts(0.4, {"m/pre": 0.01}) == dict.fromkeys(SPLIT.services, pytest.approx(0.2)), "not all are known"


def test_a_node_that_leads_back_to_itself_ends() -> None:
    steps: list[Object] = [{"serviceName": "a"}, {"nodeName": "root"}, {"nodeName": "root"}]
    loop = graph("g", root=("Sequence", steps))
    assert loop.visits() == {"m/a": 1.0}
    assert loop.parts(1.0, {}) == {"m/a": 1.0}


def test_a_service_of_two_graphs_is_weighted_by_the_load_that_each_brings() -> None:
    graphs = {"m/g": SPLIT, "m/h": graph("h", root=("Sequence", [{"serviceName": "x"}]))}
    shared = budget({"graphs": ["g"], "weight": 4}, {"graphs": ["h"], "weight": 1})
    rules, of = rules_for(shared, service("x"), graphs, {"m/g": 50.0, "m/h": 60.0})
    assert [weight for _, weight in rules] == [pytest.approx(50 * 0.8), pytest.approx(60)]
    assert of == ("m/g", "m/h")
    rules, _ = rules_for(shared, service("x"), graphs, {"m/g": 50.0})
    assert [weight for _, weight in rules] == [pytest.approx(0.8), 1.0], "a load that is not known counts alike"


def test_the_first_rule_that_matches_holds() -> None:
    rules, _ = rules_for(
        budget({"services": ["x"], "weight": 2}, {"graphs": ["g"], "weight": 4}), service("x"), {"m/g": SPLIT}, {}
    )
    assert [rule.weight for rule, _ in rules] == [2]


def test_the_slo_of_a_service_is_divided_by_the_service_times_of_its_stages() -> None:
    both = service("a", transformer={"containers": []})
    rule = budget({"services": ["a"], "slo": {"latency": "100ms"}})
    rules, _ = rules_for(rule, both, {}, {})
    names = ("m/a", "m/a/transformer")
    members = tuple(
        Member(name, rules, service=both, component=c)
        for name, c in zip(names, ("predictor", "transformer"), strict=True)
    )
    claim = Claim(rule, members)
    known = learned(Known(), {"m/a": Demand((1.0,), 0.03), "m/a/transformer": Demand((1.0,), 0.01)})
    found = slos(claim, {}, known.times)
    assert {name: slo.latency for name, slo in found.items()} == {
        "m/a": pytest.approx(0.075),
        "m/a/transformer": pytest.approx(0.025),
    }


def test_what_was_learned_follows_changes_of_a_fifth_only() -> None:
    def seen(rate: float) -> dict[str, Demand]:
        return {"m/g/router": Demand((rate,), 0.01)}

    known = learned(Known(), seen(100.0))
    assert known == Known({"m/g/router": 100.0}, {"m/g/router": 0.01})
    assert learned(known, seen(119.0)) == known
    assert learned(known, seen(121.0)).rates == {"m/g/router": 121.0}
    by_cpu = {"m/x": Demand((50.0,), 0.02, basis="cpu")}
    assert learned(known, by_cpu) == known, "CPU in use tells neither a rate nor a cost"


ONE = graph("one", root=("Sequence", [{"serviceName": "own"}, {"serviceName": "both"}]))
TWO = graph(
    "two",
    root=("Splitter", [{"serviceName": "both", "weight": 50}, {"serviceName": "other", "weight": 50}]),
)
GRAPHS = {"m/one": ONE, "m/two": TWO}


def test_a_graph_is_as_busy_as_its_router_or_a_service_of_its_own() -> None:
    assert graph_loads(GRAPHS, {}) == {}
    assert graph_loads(GRAPHS, {"m/both": 99.0}) == {}, "who of the two asks it, nobody knows"
    # Half of the requests of `two` come to `other`.
    assert graph_loads(GRAPHS, {"m/own": 30.0, "m/other": 10.0}) == {"m/one": 30.0, "m/two": 20.0}
    assert graph_loads(GRAPHS, {"m/own": 30.0, "m/one/router": 25.0}) == {"m/one": 25.0}, "5 come past the graph"
    alone = {"m/g": SPLIT}
    assert graph_loads(alone, {"m/pre": 12.0, "m/x": 8.0, "m/y": 5.0}) == {"m/g": 10.0}, "the least of 12, 10 and 25"


def shares(rates: dict[str, float]) -> dict[str, tuple[float | None, dict[str, float]]]:
    rule = budget({"graphs": ["one", "two"]})
    members = tuple(
        Member(f"m/{name}", found[0], service=service(name), graphs=found[1])
        for name in ("own", "both", "other")
        if (found := rules_for(rule, service(name), GRAPHS, {}))
    )
    router = Member("m/one/router", members[0].rules, component="router", graphs=("m/one",))
    found_loads = figures(Claim(rule, (*members, router)), GRAPHS, rates)
    return {load.name: (load.rate, {name: part.share for name, part in load.parts.items()}) for load in found_loads}


def test_a_service_of_two_graphs_is_attributed_by_their_loads() -> None:
    # 30 requests of `one`, and half of the 20 of `two`: 40 in all.
    found = shares({"m/own": 30.0, "m/other": 10.0})
    assert found["m/one"] == (30.0, {"m/own": 1.0, "m/both": 0.75, "m/one/router": 1.0})
    assert found["m/two"] == (20.0, {"m/both": 0.25, "m/other": 1.0})
    # 80 requests come to it: half of them by no graph.
    assert shares({"m/own": 30.0, "m/other": 10.0, "m/both": 80.0})["m/one"][1]["m/both"] == 0.375


def test_graphs_of_unknown_load_share_by_visits() -> None:
    found = shares({"m/own": 30.0})
    assert found["m/two"][0] is None
    assert found["m/one"][1]["m/both"] == pytest.approx(1 / 1.5)
    assert found["m/two"][1]["m/both"] == pytest.approx(0.5 / 1.5)


@given(st.dictionaries(st.text(min_size=1, max_size=3), st.integers(0, 500), min_size=1, max_size=8))
def test_no_pod_gets_less_than_the_least_and_the_sum_stays(wanted: dict[str, int]) -> None:
    result = raised(wanted, 10)
    assert all(amount >= 10 for amount in result.values())
    assert sum(result.values()) == max(sum(wanted.values()), 10 * len(wanted))
