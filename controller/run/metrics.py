"""The controller's Prometheus metrics, read from what the loop publishes when they are asked for."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from headgate.controller.run.nodes_metrics import node_metrics
from headgate.controller.run.opening import Running
from headgate.controller.run.parts import DURATIONS
from headgate.core.extensions import families
from headgate.core.hosting import Counted
from headgate.core.units import MILLI


class Metrics(Collector):
    """Everything about one controller, in the Prometheus text format."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def text(self) -> bytes:
        """What `GET /metrics` answers."""
        return generate_latest(self._registry)

    def collect(self) -> Iterable[Metric]:
        """See prometheus_client.registry.Collector."""
        yield from self._pipelines()
        yield from self._budgets()
        if self._running.nodes is not None:
            yield from node_metrics(self._running.nodes)
        yield from self._loop()
        yield from self._requests()
        yield from self._plugins()

    def _pipelines(self) -> Iterator[Metric]:
        labels = ["budget", "pipeline"]
        granted = GaugeMetricFamily("headgate_cpu_granted_cores", "CPUs taken.", labels=labels)
        wanted = GaugeMetricFamily("headgate_cpu_wanted_cores", "CPUs that it is to have.", labels=labels)
        used = GaugeMetricFamily("headgate_cpu_used_cores", "CPUs used lately.", labels=labels)
        load = GaugeMetricFamily("headgate_cpu_load_cores", "CPUs that the load keeps busy.", labels=labels)
        unmet = GaugeMetricFamily("headgate_cpu_unmet_cores", "CPUs of load beyond what is wanted.", labels=labels)
        for key, view in self._running.loop.views.items():
            for name, millicores in view.granted.items():
                granted.add_metric([key, name], millicores / MILLI)
            for name, millicores in view.wanted.items():
                wanted.add_metric([key, name], millicores / MILLI)
                for family, known in ((used, view.used(name)), (load, view.load(name))):
                    if known is not None:
                        family.add_metric([key, name], known / MILLI)
            for name, millicores in view.unmet().items():
                unmet.add_metric([key, name], millicores / MILLI)
        yield from (granted, wanted, used, load, unmet)

    def _budgets(self) -> Iterator[Metric]:
        total = GaugeMetricFamily("headgate_budget_cores", "CPUs to divide.", labels=["budget"])
        pending = GaugeMetricFamily(
            "headgate_pending_changes", "Pipelines whose change is not in force.", labels=["budget"]
        )
        drift = GaugeMetricFamily(
            "headgate_drifted_pipelines", "Pipelines that differ from what is wanted.", labels=["budget"]
        )
        refused = GaugeMetricFamily("headgate_refused", "What is left alone.", labels=["budget", "reason"])
        ready = GaugeMetricFamily("headgate_budget_ready", "1: divided as it should be.", labels=["budget"])
        applying = GaugeMetricFamily("headgate_budget_applying", "1: decisions are put in force.", labels=["budget"])
        for key in self._running.loop.rejected:
            ready.add_metric([key], 0)
        for key, view in self._running.loop.views.items():
            if view.inventory is not None:
                total.add_metric([key], view.inventory.total / MILLI)
            pending.add_metric([key], len(view.pending))
            drift.add_metric([key], len(view.drift))
            for reason, count in sorted(Counter(r.reason for r in view.refusals.values()).items()):
                refused.add_metric([key, reason], count)
            ready.add_metric([key], int(view.verdict.trouble is None))
            applying.add_metric([key], int(view.applying))
        yield from (total, pending, drift, refused, ready, applying)

    def _loop(self) -> Iterator[Metric]:
        record = self._running.loop.record
        yield GaugeMetricFamily("headgate_leader", "1: this process may write.", int(record.leads))
        yield CounterMetricFamily("headgate_turns", "Turns of the loop.", record.turns)
        yield CounterMetricFamily("headgate_turns_failed", "Turns that ended with an error.", record.failed)
        yield CounterMetricFamily("headgate_turn_seconds", "Time that all turns took.", record.seconds)
        yield HistogramMetricFamily(
            "headgate_turn_duration_seconds", "How long turns took.", list(_cumulated(record.durations)), record.seconds
        )
        yield CounterMetricFamily("headgate_moves", "Changes written to the hosts.", record.moves)
        yield CounterMetricFamily("headgate_reports_failed", "Statuses not written.", self._running.reporter.failed)
        last = math.nan if record.turned is None else record.turned
        yield GaugeMetricFamily("headgate_last_turn_timestamp_seconds", "When a turn last succeeded.", last)

    def _requests(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "headgate_api_requests", "Requests to the API server.", labels=["part", "verb", "code"]
        )
        running = self._running
        provider = running.nodes.provider if running.nodes is not None else None
        parts: dict[str, object] = {"host": running.host, "home": running.home, "nodes": provider}
        for name, part in parts.items():
            if isinstance(part, Counted):
                for (verb, code), count in sorted(part.requests().items()):
                    requests.add_metric([name, verb, code], count)
        yield requests

    def _plugins(self) -> Iterator[Metric]:
        for family in families(self._running.extensions.report()):
            kind = CounterMetricFamily if family.counts else GaugeMetricFamily
            metric = kind(family.name, family.text, labels=family.labels)
            for labels, value in family.values:
                metric.add_metric(labels, value)
            yield metric


def _cumulated(durations: Mapping[float, int]) -> Iterator[tuple[str, int]]:
    """Upper bound and number of turns up to it, as a histogram has them."""
    count = 0
    for bound in DURATIONS:
        count += durations.get(bound, 0)
        yield "+Inf" if bound == math.inf else str(bound), count
