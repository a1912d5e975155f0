"""The node scaler's Prometheus metrics."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from headgate.controller.run.nodes import Nodes
from headgate.core.units import MILLI


def node_metrics(nodes: Nodes) -> Iterator[Metric]:
    """headgate_nodes_..."""
    yield GaugeMetricFamily("headgate_nodes_applying", "1: plans are carried out.", int(nodes.applies))
    record = nodes.record
    yield CounterMetricFamily("headgate_nodes_turns", "Turns of the node scaler.", record.turns)
    yield CounterMetricFamily("headgate_nodes_turns_failed", "Turns without a plan.", record.turns_failed)
    for name, text, counted in (
        ("headgate_nodes_steps", "Steps that were taken.", record.taken),
        ("headgate_nodes_steps_failed", "Steps that failed.", record.failed),
    ):
        steps = CounterMetricFamily(name, text, labels=["group", "step"])
        for key, count in sorted(counted.copy().items()):
            steps.add_metric(key, count)
        yield steps
    verdicts = nodes.view.plan.verdicts if nodes.view is not None else {}
    for name, text, field in (
        ("headgate_nodes_target", "Machines asked for.", "target"),
        ("headgate_nodes_wanted", "Machines that the plan leads to.", "wanted"),
        ("headgate_nodes_ready", "Ready nodes.", "ready"),
        ("headgate_nodes_upcoming", "Machines that are yet to join.", "upcoming"),
        ("headgate_nodes_unready", "Nodes that are not Ready any more.", "unready"),
        ("headgate_nodes_removing", "Nodes on their way out.", "removing"),
    ):
        gauge = GaugeMetricFamily(name, text, labels=["group"])
        for group, verdict in verdicts.items():
            gauge.add_metric([group], getattr(verdict, field))
        yield gauge
    capacity = GaugeMetricFamily("headgate_nodes_capacity_cores", "CPUs of the Ready nodes.", labels=["group"])
    load = GaugeMetricFamily("headgate_nodes_load_cores", "CPUs of load.", labels=["group", "signal"])
    used = GaugeMetricFamily("headgate_nodes_utilisation", "Highest load over the capacity.", labels=["group"])
    for group, verdict in verdicts.items():
        capacity.add_metric([group], verdict.capacity / MILLI)
        if verdict.utilisation is not None:
            used.add_metric([group], verdict.utilisation)
        for signal, millicores in verdict.loads.items():
            if millicores is not None:
                load.add_metric([group, signal], millicores / MILLI)
    yield from (capacity, load, used)
