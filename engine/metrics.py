"""Prometheus metrics, read from the tallies when they are asked for: a request pays nothing for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from headgate.core.extensions import families
from headgate.core.units import MILLI
from headgate.engine.control import Control
from headgate.engine.engine import Engine
from headgate.engine.tally import BUCKETS


class Metrics(Collector):
    """Everything about one engine, in the Prometheus text format."""

    def __init__(self, engine: Engine, control: Control) -> None:
        self._engine = engine
        self._control = control
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def text(self) -> bytes:
        """What `GET /metrics` answers."""
        return generate_latest(self._registry)

    def collect(self) -> Iterable[Metric]:
        """See prometheus_client.registry.Collector."""
        yield from self._requests()
        yield from self._cpus()
        yield from self._plugins()

    def _requests(self) -> Iterator[Metric]:
        label = ["pipeline"]
        requests = CounterMetricFamily(
            "headgate_requests", "Inference requests by HTTP status.", labels=[*label, "code"]
        )
        duration = HistogramMetricFamily(
            "headgate_request_duration_seconds", "From the complete request to its answer.", labels=label
        )
        cpu = CounterMetricFamily("headgate_cpu_seconds", "CPU time of the workers.", labels=label)
        misses = CounterMetricFamily("headgate_slo_misses", "Requests that missed the SLO's latency.", labels=label)
        for name, tally in self._engine.tallies.items():
            totals = tally.totals()
            for code, count in sorted(totals.codes.items()):
                requests.add_metric([name, str(code)], count)
            duration.add_metric([name], _cumulative(totals.buckets), totals.latency_seconds)
            cpu.add_metric([name], totals.cpu_seconds)
            misses.add_metric([name], totals.slo_misses)
        yield from (requests, duration, cpu, misses)

    def _cpus(self) -> Iterator[Metric]:
        label = ["pipeline"]
        queue = GaugeMetricFamily("headgate_queue_length", "Requests that wait.", labels=label)
        running = GaugeMetricFamily("headgate_running", "Requests that run.", labels=label)
        granted = GaugeMetricFamily("headgate_cpu_granted_cores", "CPUs granted.", labels=label)
        standing = self._engine.standing
        for name, grant in standing.allocation.grants.items():
            waiting, active = self._engine.load(name)
            queue.add_metric([name], waiting)
            running.add_metric([name], active)
            granted.add_metric([name], grant / MILLI)
        yield from (queue, running, granted)
        yield GaugeMetricFamily("headgate_budget_cores", "CPUs to divide.", standing.budget / MILLI)
        recommended = GaugeMetricFamily("headgate_recommended_cores", "CPUs that the machine should have.")
        if standing.recommended is not None:
            recommended.add_metric([], standing.recommended.cpus / MILLI)
        yield recommended
        yield CounterMetricFamily("headgate_decisions", "Decisions put in force.", standing.decisions)
        durations = self._control.durations
        yield CounterMetricFamily("headgate_decisions_failed", "Decisions that could not be made.", durations.failed)
        decision = HistogramMetricFamily("headgate_decision_seconds", "How long a decision took.")
        decision.add_metric([], _cumulative(durations.buckets), durations.seconds)
        yield decision

    def _plugins(self) -> Iterator[Metric]:
        for family in families(self._control.extensions.report()):
            kind = CounterMetricFamily if family.counts else GaugeMetricFamily
            metric = kind(family.name, family.text, labels=family.labels)
            for labels, value in family.values:
                metric.add_metric(labels, value)
            yield metric


def _cumulative(counts: Sequence[int]) -> list[tuple[str, float]]:
    bounds = [*(repr(bound) for bound in BUCKETS), "+Inf"]
    return list(zip(bounds, map(float, accumulate(counts)), strict=True))
