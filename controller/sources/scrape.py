"""Metrics read straight from `/metrics`, without a Prometheus: counters become amounts, histograms percentiles."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_prometheus
from pydantic import Field, field_validator

from headgate.controller.sources.http import HttpSettings, Url, get
from headgate.core.config import Model
from headgate.core.hookspecs import SourceError
from headgate.core.model import Sample
from headgate.core.observation import AMOUNTS

_ACCEPT = "application/openmetrics-text;version=1.0.0;q=0.9,text/plain;version=0.0.4;q=0.5"

Labels = tuple[tuple[str, str], ...]


class Selector(Model):
    """Which series of a metric are added up to a field of the sample."""

    metric: str = Field(min_length=1, description="Name as exposed, suffix included: http_requests_total")
    where: Mapping[str, str] = Field(default_factory=dict, description="Label to a regular expression for all of it")

    @field_validator("where")
    @classmethod
    def _regular(cls, where: Mapping[str, str]) -> Mapping[str, str]:
        for label, pattern in where.items():
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{label}: {pattern!r} is not a regular expression: {error}") from None
        return where

    def takes(self, labels: Mapping[str, str]) -> bool:
        """Whether a series with `labels` is meant; a label that it lacks counts as empty."""
        return all(re.fullmatch(pattern, labels.get(label, "")) for label, pattern in self.where.items())


class ScrapeSettings(HttpSettings):
    """What is scraped, and what each field of a sample is made of. Recipes for known servers fill in the latter."""

    urls: tuple[Url, ...] = Field(min_length=1, description="One for each replica; their amounts are added up")
    label: str = Field(default="pipeline", description="Label that names the pipeline")
    names: Mapping[str, str] = Field(default_factory=dict, description="Pipeline to its name in that label")
    arrivals: Selector | None = None
    completions: Selector | None = None
    dropped: Selector | None = None
    cpu_seconds: Selector | None = None
    queue: Selector | None = Field(default=None, description="A gauge")
    latency: Selector | None = Field(default=None, description="A histogram in seconds, without the suffix _bucket")
    percentiles: tuple[float, ...] = (50, 95, 99)

    @field_validator("percentiles")
    @classmethod
    def _between_0_and_100(cls, percentiles: tuple[float, ...]) -> tuple[float, ...]:
        if not all(0 < percentile < 100 for percentile in percentiles):
            raise ValueError("percentiles lie between 0 and 100")
        return percentiles


@dataclass(frozen=True, slots=True)
class Scraped:
    """One look at all targets: (name, pipeline) to the value of each series of that name."""

    time: float
    series: Mapping[tuple[str, str], Mapping[Labels, float]]


class Scrape:
    """Takes amounts from the differences between two scrapes. The first one therefore yields gauges alone.

    Fails as a whole when one target fails: the amounts of the others would look like less load.
    """

    def __init__(self, settings: ScrapeSettings, pipelines: Sequence[str]) -> None:
        self._settings = settings
        self._session = settings.session()
        self._named = {settings.names.get(name, name): name for name in pipelines}
        self._selectors = {name: s for name in (*AMOUNTS, "queue", "latency") if (s := getattr(settings, name))}
        self._wanted = {_series_name(field, selector) for field, selector in self._selectors.items()}
        self._before: Scraped | None = None

    def read(self, now: float) -> Iterator[Sample]:
        """What happened between the previous scrape and this one. Raises SourceError."""
        before, after = self._before, self._scrape(now)
        self._before = after
        for pipeline in sorted({pipeline for _, pipeline in after.series}):
            values = self._values(before, after, pipeline)
            if values:
                window = after.time - before.time if before else 0.0
                yield Sample(pipeline, after.time, window, **values)

    def close(self) -> None:
        """Give the connections back."""
        self._session.close()

    def _scrape(self, now: float) -> Scraped:
        series: dict[tuple[str, str], dict[Labels, float]] = defaultdict(dict)
        for url in self._settings.urls:
            body, kind = get(self._session, url, self._settings, _ACCEPT)
            for name, labels, value in _parsed(body, kind, url):
                pipeline = self._named.get(labels.get(self._settings.label, ""))
                if pipeline is None or not math.isfinite(value):
                    continue
                if name in self._wanted:
                    series[name, pipeline][("", url), *sorted(labels.items())] = value
        return Scraped(now, series)

    def _values(self, before: Scraped | None, after: Scraped, pipeline: str) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for field, selector in self._selectors.items():
            key = (_series_name(field, selector), pipeline)
            # A series that appears within a metric that was there before began at 0 in between, as a new status code
            # does. A metric that appears as a whole has a past of which nothing is known.
            then = before.series.get(key) if before else None
            now = {labels: value for labels, value in after.series.get(key, {}).items() if selector.takes(dict(labels))}
            if now and field == "queue":
                values[field] = sum(now.values())
            elif now and then is not None and before is not None and after.time > before.time:
                grown = increases(then, now)
                values[field] = self._percentiles(grown) if field == "latency" else sum(grown.values())
        return {field: value for field, value in values.items() if value is not None}

    def _percentiles(self, grown: Mapping[Labels, float]) -> dict[float, float] | None:
        buckets: dict[float, float] = defaultdict(float)
        for labels, count in grown.items():
            buckets[float(dict(labels)["le"])] += count
        found = {p: value for p in self._settings.percentiles if (value := quantile(p / 100, buckets)) is not None}
        return found or None


def _series_name(field: str, selector: Selector) -> str:
    return f"{selector.metric}_bucket" if field == "latency" else selector.metric


def increases(then: Mapping[Labels, float], now: Mapping[Labels, float]) -> dict[Labels, float]:
    """By how much each counter grew. One that fell was reset and counts from 0, as a new one does."""
    return {
        labels: value - before if value >= (before := then.get(labels, 0.0)) else value for labels, value in now.items()
    }


def quantile(share: float, buckets: Mapping[float, float]) -> float | None:
    """The value below which `share` of the observations lie, None when there are none.

    `buckets` holds cumulative counts by upper bound, as a Prometheus histogram does; within a bucket the observations
    are taken to be evenly spread, and beyond the last finite bound nothing more is known than that bound, which is
    how Prometheus' histogram_quantile() reads them too.
    """
    bounds = sorted(buckets.items())
    if not bounds or bounds[-1][0] != math.inf or bounds[-1][1] <= 0:
        return None
    rank = share * bounds[-1][1]
    for (low, below), (high, upto) in pairwise([(0.0, 0.0), *bounds]):
        if upto >= rank:
            if high == math.inf:
                return low
            return low + (high - low) * (rank - below) / (upto - below) if upto > below else high
    return bounds[-2][0] if len(bounds) > 1 else None


def _parsed(body: bytes, kind: str, url: str) -> Iterable[tuple[str, Mapping[str, str], float]]:
    parse = parse_openmetrics if kind.startswith("application/openmetrics-text") else parse_prometheus
    try:
        text = body.decode()
        return [(s.name, s.labels, float(s.value)) for family in parse(text) for s in family.samples]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise SourceError(f"{url}: these are no metrics in the Prometheus or OpenMetrics format: {error}") from None
