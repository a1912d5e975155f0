"""Metrics read from a Prometheus: one query per field for all pipelines together."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from string import Template
from typing import Annotated, Any, Literal

import requests
from prometheus_api_client import PrometheusConnect
from prometheus_api_client.exceptions import PrometheusApiClientException
from pydantic import Field

from headgate.controller.sources.http import HttpSettings, Url, explain
from headgate.controller.sources.recipe import Recipe
from headgate.controller.sources.recipes import RECIPES
from headgate.core.config import Model, Seconds
from headgate.core.hookspecs import SourceError
from headgate.core.model import Sample
from headgate.core.observation import AMOUNTS

Values = dict[str, float]
_MOST_NAMES = 4000
"""Characters of the names in one query."""

LabelName = Annotated[str, Field(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$")]


class Queries(Model):
    """PromQL by field. Rates are per second; queue and age are plain numbers; latency is in seconds."""

    age: str | None = Field(default=None, description="Seconds since the newest sample was scraped")
    arrivals: str | None = None
    completions: str | None = None
    dropped: str | None = None
    cpu_seconds: str | None = None
    queue: str | None = None
    service_cv: str | None = None
    latency: str | None = Field(default=None, description="Asked once for each percentile, $share in the place of it")

    def given(self) -> Mapping[str, str | None]:
        """What the settings really say; None switches a query of the recipe off."""
        return {name: getattr(self, name) for name in self.model_fields_set}


class PrometheusPipeline(Model):
    """What is special about one pipeline."""

    name: str | None = Field(default=None, description="Its name at the host; by default the pipeline's own")
    queries: Queries = Queries()


class PrometheusSettings(HttpSettings):
    """Which Prometheus, and what to ask it."""

    url: Url
    recipe: Literal[
        "engine",
        "kserve",
        "kserve-knative",
        "kserve-triton",
        "kserve-mlserver",
        "seldon",
        "seldon-v1",
        "bentoml",
        "none",
    ] = "engine"
    window: Annotated[Seconds, Field(ge=1)] = Field(default=60.0, description="Range of the rates: 4 scrapes or more")
    match: Mapping[LabelName, str] = Field(default_factory=dict, description="Further labels: {namespace: prod}")
    queries: Queries = Field(default=Queries(), description="In the place of the recipe's, for all pipelines")
    label: str | None = Field(default=None, description="Label of the results that names the pipeline")
    pipelines: Mapping[str, PrometheusPipeline] = Field(default_factory=dict)
    percentiles: tuple[Annotated[float, Field(gt=0, lt=100)], ...] = (50, 95, 99)

    def asked(self) -> Recipe:
        """The recipe with the settings' own queries in it."""
        recipe = RECIPES[self.recipe]
        merged = {**recipe.queries, **self.queries.given()}
        return Recipe(self.label or recipe.label, {name: text for name, text in merged.items() if text})


class PrometheusSource:
    """Reads all pipelines with one instant query for each field, and asks again for those with queries of their own.

    A sample is as old as the newest series behind it, by Prometheus' own clock, so that a difference between the
    clocks does no harm; a pipeline whose age Prometheus does not tell has no sample.
    """

    def __init__(self, settings: PrometheusSettings, pipelines: Sequence[str]) -> None:
        self._settings = settings
        self._pipelines = tuple(pipelines)
        self._recipe = settings.asked()
        hosts = {name: special.name for name, special in settings.pipelines.items() if special.name}
        self._named = {hosts.get(name, name): name for name in pipelines}
        self._api = PrometheusConnect(
            url=settings.url,
            session=(session := settings.session()),
            retry=settings.retry(),
            timeout=settings.timeout,
        )
        self._session = session

    def read(self, now: float) -> Iterator[Sample]:
        """What Prometheus knows now. Yields what could be read, then raises SourceError for what could not."""
        failed: list[str] = []
        ages = self._field("age", failed)
        known: dict[str, dict[str, Any]] = {name: {} for name in ages}
        for field in (*AMOUNTS, "queue", "service_cv") if ages else ():
            for name, value in self._field(field, failed).items():
                if name in known:
                    known[name][field] = value * self._settings.window if field in AMOUNTS else value
        for percentile in self._settings.percentiles if ages else ():
            for name, value in self._field("latency", failed, percentile).items():
                if name in known:
                    known[name].setdefault("latency", {})[percentile] = value
        for name, values in known.items():
            if values:
                yield Sample(name, now - max(0.0, ages[name]), self._settings.window, **values)
        if failed:
            raise SourceError(f"{self._settings.url}: {'; '.join(dict.fromkeys(failed))}")

    def close(self) -> None:
        """Give the connections back."""
        self._session.close()

    def _field(self, field: str, failed: list[str], percentile: float = 0) -> Values:
        """One field of all pipelines: the common query, then those of single pipelines over it."""
        values: Values = {}
        own = {name: s.queries.given() for name, s in self._settings.pipelines.items() if name in self._pipelines}
        try:
            if (query := self._recipe.queries.get(field)) is not None:
                values = self._by_pipeline(field, self._ask(field, query, list(self._named), percentile))
            for name, queries in own.items():
                if field in queries:
                    values.pop(name, None)
                    if (query := queries[field]) is not None:
                        hosts = [host for host, pipeline in self._named.items() if pipeline == name]
                        rows = self._ask(field, query, hosts, percentile)
                        if len(rows) > 1:
                            raise _BadQuery(f"{field}: the query of {name} yields {len(rows)} series: aggregate them")
                        values.update({name: rows[0][1]} if rows and math.isfinite(rows[0][1]) else {})
        except _BadQuery as error:
            failed.append(str(error))
        return values

    def _by_pipeline(self, field: str, rows: list[tuple[Mapping[str, str], float]]) -> Values:
        values: Values = {}
        for labels, value in rows:
            shown = labels.get(self._recipe.label, "")
            # "service" is short for "namespace/service", as long as one namespace has it.
            name = self._named.get(shown) or self._named.get(shown.partition("/")[2])
            if name in values:
                raise _BadQuery(f"{field}: several series of {name}: aggregate with sum by ({self._recipe.label})")
            if name is not None and math.isfinite(value):
                values[name] = value
        return values

    def _ask(
        self, field: str, query: str, hosts: Sequence[str], percentile: float
    ) -> list[tuple[Mapping[str, str], float]]:
        services = sorted({host.split("/")[1] if "/" in host else host for host in hosts})
        filled = Template(query).safe_substitute(
            names=_alternatives(hosts),
            services=_alternatives(services),
            window=f"{round(self._settings.window * 1000)}ms",
            match="".join(f',{label}="{_quoted(value)}"' for label, value in self._settings.match.items()),
            share=percentile / 100,
        )
        try:
            result: Any = self._api.custom_query(filled)
        except PrometheusApiClientException as error:
            raise self._refusal(field, str(error)) from None
        except requests.JSONDecodeError:
            raise SourceError(f"{self._settings.url}: this is no Prometheus: the answer is not JSON") from None
        except requests.RequestException as error:
            raise SourceError(f"{self._settings.url}: {explain(error, self._settings)}") from None
        except (KeyError, TypeError):
            raise SourceError(f"{self._settings.url}: this is no Prometheus: the answer has no result") from None
        return list(_rows(result, field))

    def _refusal(self, field: str, text: str) -> Exception:
        """Prometheus puts its reason into JSON; the client quotes the whole answer as bytes."""
        status, body = re.search(r"HTTP Status Code (\d+)", text), re.search(r"\((b['\"].*)\)$", text, re.DOTALL)
        try:
            said = json.loads(ast.literal_eval(body[1]))["error"] if body else ""
        except (ValueError, SyntaxError, LookupError, TypeError):
            said = ""  # a gateway's page, not Prometheus' own words
        message = self._settings.redact(f"HTTP {status[1] if status else '?'} {said}".strip())
        if status and status[1] in ("400", "422"):
            return _BadQuery(f"{field}: {message}")
        return SourceError(f"{self._settings.url}: {message}")


class _BadQuery(Exception):  # noqa: N818 - one query's trouble; the others go on
    pass


def _alternatives(names: Sequence[str]) -> str:
    """A regular expression of all `names`, in a string; of any where they are too many: the rest is skipped later."""
    text = "|".join(_quoted(re.sub(r"([.+*?()|\[\]{}^$\\])", r"\\\1", name)) for name in names)
    return text if len(text) <= _MOST_NAMES else ".+"


def _quoted(text: str) -> str:
    """`text` within a PromQL string in double quotes."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _rows(result: Any, field: str) -> Iterator[tuple[Mapping[str, str], float]]:
    """Labels and value of each series of an instant vector, or of a scalar."""
    try:
        if result and not isinstance(result[0], dict):
            yield {}, float(result[1])
            return
        for row in result:
            yield row["metric"], float(row["value"][1])
    except (LookupError, TypeError, ValueError):
        raise _BadQuery(f"{field}: the query yields no numbers at one instant (a range?)") from None
