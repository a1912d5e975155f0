from __future__ import annotations

import math
import shutil
import ssl
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as OPENMETRICS
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from headgate.controller.sources.recipes import BentoSettings, EngineSettings
from headgate.controller.sources.scrape import Scrape, ScrapeSettings, increases, quantile
from headgate.core.config import Document, SettingsError, validate
from headgate.core.hookspecs import SourceError
from headgate.core.model import Sample

from .conftest import Answer, Web


def scrape(web: Web, model: type[ScrapeSettings] = EngineSettings, **settings: Any) -> Scrape:
    given = {"urls": [f"{web.url}/metrics"], "retries": 0, **settings}
    return Scrape(validate(Document("s.yaml", given), model), ("us-east", "eu-west"))


class Exporter:
    """A server's own metrics, as prometheus_client writes them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("headgate_requests", "x", ["pipeline", "code"], registry=self.registry)
        self.cpu = Counter("headgate_cpu_seconds", "x", ["pipeline"], registry=self.registry)
        self.queue = Gauge("headgate_queue_length", "x", ["pipeline"], registry=self.registry)
        self.latency = Histogram(
            "headgate_request_duration_seconds", "x", ["pipeline"], buckets=(0.1, 0.2, 0.4), registry=self.registry
        )

    def serve(self, web: Web) -> None:
        web.says(generate_latest(self.registry))


def test_the_first_scrape_yields_gauges_the_second_amounts(web: Web) -> None:
    exporter, source = Exporter(), scrape(web)
    exporter.requests.labels("us-east", "200").inc(1000)
    exporter.queue.labels("us-east").set(3)
    exporter.serve(web)
    assert list(source.read(100.0)) == [Sample("us-east", 100, 0, queue=3)]
    exporter.requests.labels("us-east", "200").inc(40)
    exporter.requests.labels("us-east", "503").inc(2)
    exporter.serve(web)
    (sample,) = source.read(110.0)
    assert sample == Sample("us-east", 110, 10, arrivals=42, completions=40, dropped=2, queue=3)


def test_a_counter_that_fell_was_reset_and_counts_from_zero(web: Web) -> None:
    exporter, source = Exporter(), scrape(web)
    exporter.requests.labels("us-east", "200").inc(1000)
    exporter.serve(web)
    list(source.read(100.0))
    exporter = Exporter()
    exporter.requests.labels("us-east", "200").inc(7)
    exporter.serve(web)
    (sample,) = source.read(110.0)
    assert sample.arrivals == 7


def test_a_metric_that_is_gone_is_unknown_not_zero(web: Web) -> None:
    exporter, source = Exporter(), scrape(web)
    exporter.requests.labels("us-east", "200").inc(5)
    exporter.cpu.labels("us-east").inc(1)
    exporter.serve(web)
    list(source.read(100.0))
    exporter.cpu.labels("us-east").inc(1)
    web.says(generate_latest(exporter.registry).replace(b"headgate_requests", b"renamed_requests"))
    (sample,) = source.read(110.0)
    assert sample.arrivals is None
    assert sample.cpu_seconds == 1
    web.says("")
    assert list(source.read(120.0)) == []


def test_replicas_are_added_up_and_one_that_fails_fails_all(web: Web) -> None:
    exporter = Exporter()
    exporter.requests.labels("us-east", "200").inc(5)
    exporter.serve(web)
    source = scrape(web, urls=[f"{web.url}/a", f"{web.url}/b"])
    list(source.read(100.0))
    exporter.requests.labels("us-east", "200").inc(4)
    exporter.serve(web)
    (sample,) = source.read(110.0)
    assert sample.arrivals == 2 * 4
    page = generate_latest(exporter.registry)
    web.answer = lambda asked: Answer(page) if asked.path == "/a" else Answer("down", 500)
    with pytest.raises(SourceError, match="HTTP 500 down"):
        list(source.read(120.0))


def test_percentiles_are_those_of_what_happened_in_between(web: Web) -> None:
    exporter, source = Exporter(), scrape(web, percentiles=[25, 50, 75, 99])
    for _ in range(100):
        exporter.latency.labels("us-east").observe(5.0)  # before: must not count
    exporter.serve(web)
    list(source.read(100.0))
    for value, count in ((0.05, 50), (0.15, 50)):
        for _ in range(count):
            exporter.latency.labels("us-east").observe(value)
    exporter.serve(web)
    (sample,) = source.read(110.0)
    # 50 observations are evenly spread over (0, 0.1], 50 over (0.1, 0.2].
    assert sample.latency == pytest.approx({25: 0.05, 50: 0.1, 75: 0.15, 99: 0.198})


def test_the_openmetrics_format_is_read_too(web: Web) -> None:
    exporter, source = Exporter(), scrape(web)
    for now in (100.0, 110.0):
        exporter.requests.labels("us-east", "200").inc(6)
        web.says(generate_openmetrics(exporter.registry), kind=OPENMETRICS)
        samples = list(source.read(now))
    assert samples[0].arrivals == 6
    assert "application/openmetrics-text" in web.asked[0].headers["Accept"]


@pytest.mark.parametrize("body", [b"<html>", b"\xff\xfe", b'a{b="c" 1', b"metric notanumber"])
def test_what_is_no_metrics_page_is_an_error(web: Web, body: bytes) -> None:
    web.says(body)
    with pytest.raises(SourceError, match="these are no metrics"):
        list(scrape(web).read(1.0))


def test_a_page_without_end_is_refused(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headgate.controller.sources.http._MOST_BYTES", 1000)
    web.says(b"#" * 5000)
    with pytest.raises(SourceError, match="longer than"):
        list(scrape(web).read(1.0))


BENTO = """
bentoml_service_request_total{{endpoint="/predict",http_response_code="200",runner_name="us-east"}} {0}
bentoml_service_request_total{{endpoint="/predict",http_response_code="429",runner_name="us-east"}} {1}
bentoml_service_request_total{{endpoint="/readyz",http_response_code="200",runner_name="us-east"}} {2}
"""


def test_bentoml_counts_by_runner_without_probes(web: Web) -> None:
    source = scrape(web, BentoSettings)
    web.says(BENTO.format(10, 1, 500))
    list(source.read(100.0))
    web.says(BENTO.format(30, 4, 900))
    (sample,) = source.read(110.0)
    assert (sample.arrivals, sample.completions, sample.dropped) == (20 + 3, 20, 3)


def test_a_selector_that_is_no_regular_expression_is_refused(web: Web) -> None:
    with pytest.raises(SettingsError, match="not a regular expression"):
        scrape(web, arrivals={"metric": "x", "where": {"code": "("}})


counts = st.dictionaries(st.integers(0, 5).map(lambda i: (("i", str(i)),)), st.integers(0, 1000).map(float))


@given(counts, counts)
def test_counters_never_shrink(then: Any, now: Any) -> None:
    grown = increases(then, now)
    assert set(grown) == set(now)
    assert all(0 <= grown[key] <= now[key] for key in now)


@given(st.lists(st.floats(0.001, 0.999), min_size=1, max_size=200), st.floats(0.01, 0.99))
def test_a_quantile_lies_in_the_bucket_of_the_true_one(values: list[float], share: float) -> None:
    bounds = [i / 10 for i in range(1, 11)]
    buckets = {bound: float(sum(value <= bound for value in values)) for bound in bounds} | {
        math.inf: float(len(values))
    }
    found = quantile(share, buckets)
    true = float(np.quantile(values, share, method="inverted_cdf"))
    upper = min(bound for bound in bounds if true <= bound)
    assert found is not None
    assert upper - 0.1 - 1e-9 <= found <= upper + 1e-9


def test_a_quantile_of_nothing_is_unknown() -> None:
    assert quantile(0.5, {}) is None
    assert quantile(0.5, {1.0: 0.0, math.inf: 0.0}) is None
    assert quantile(0.5, {1.0: 3.0}) is None
    assert quantile(0.99, {1.0: 0.0, math.inf: 5.0}) == 1.0


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl to make certificates with")
def test_tls_is_verified_against_the_given_authority_and_a_client_shows_its_own(tmp_path: Path) -> None:
    for name in ("server", "client"):
        openssl(
            tmp_path,
            *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", f"{name}.key", "-out", f"{name}.pem"),
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    context.load_verify_locations(tmp_path / "client.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    web = Web(context)
    try:
        web.says(generate_latest(Exporter().registry))
        client = {"certificate": str(tmp_path / "client.pem"), "key": str(tmp_path / "client.key")}
        assert list(scrape(web, ca=str(tmp_path / "server.pem"), **client).read(1.0)) == []
        assert list(scrape(web, insecure=True, **client).read(1.0)) == []
        with pytest.raises(SourceError, match="the TLS handshake failed"):
            list(scrape(web, **client).read(1.0))
        with pytest.raises(SourceError, match=r"TLS|no connection|alert"):
            list(scrape(web, ca=str(tmp_path / "server.pem")).read(1.0))
    finally:
        web.close()
