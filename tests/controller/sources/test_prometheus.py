"""Against a double of Prometheus' HTTP API: what is asked, and what becomes of each kind of answer."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from headgate.controller.sources.prometheus import PrometheusSettings, PrometheusSource
from headgate.core.config import Document, SettingsError, validate
from headgate.core.hookspecs import SourceError
from headgate.core.model import Sample

from .conftest import Answer, Asked, Web

NOW = 1_000_000.0


def query_of(asked: Asked) -> str:
    return parse_qs(urlsplit(asked.path).query)["query"][0]


def vector(*rows: tuple[dict[str, str], object]) -> Answer:
    result = [{"metric": labels, "value": [NOW, str(value)]} for labels, value in rows]
    return Answer(json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}))


def rows(**values: object) -> Answer:
    return vector(*(({"pipeline": name.replace("_", "-")}, value) for name, value in values.items()))


def answers(web: Web, known: dict[str, Answer]) -> None:
    """The answer of the first entry whose key is in the query; nothing for any other query."""
    web.answer = lambda asked: next((known[key] for key in known if key in query_of(asked)), rows())


def source(web: Web, pipelines: tuple[str, ...] = ("us-east", "eu-west"), **settings: Any) -> PrometheusSource:
    chosen = validate(Document("s.yaml", {"url": web.url, "retries": 0, **settings}), PrometheusSettings)
    return PrometheusSource(chosen, pipelines)


ENGINE = {
    "time()": rows(us_east=2.0, eu_west=3.0),
    'code=~"2.."': rows(us_east=9.0),
    'code="503"': rows(us_east=1.0),
    "headgate_requests_total": rows(us_east=10.0, eu_west=5.0),
    "headgate_cpu_seconds_total": rows(us_east=0.5),
    "headgate_queue_length": rows(us_east=4.0),
    "histogram_quantile(0.5": rows(us_east=0.01),
    "histogram_quantile(0.95": rows(us_east=0.05),
    "histogram_quantile(0.99": rows(us_east="NaN"),
}


def test_one_query_for_each_field_serves_all_pipelines(web: Web) -> None:
    answers(web, ENGINE)
    samples = {sample.pipeline: sample for sample in source(web, window="30s").read(NOW)}
    assert samples["us-east"] == Sample(
        "us-east",
        NOW - 2,
        30,
        arrivals=10 * 30,
        completions=9 * 30,
        dropped=1 * 30,
        cpu_seconds=0.5 * 30,
        queue=4,
        latency={50: 0.01, 95: 0.05},
    )
    assert samples["eu-west"] == Sample("eu-west", NOW - 3, 30, arrivals=5 * 30)
    queries = [query_of(asked) for asked in web.asked]
    assert len(queries) == len(set(queries)) == len(ENGINE)
    assert all('pipeline=~"us-east|eu-west"' in query for query in queries)
    assert all("[30000ms]" in query for query in queries if "rate(" in query)


def test_without_an_age_nothing_is_believed(web: Web) -> None:
    answers(web, {"time()": rows(), **ENGINE, "time() ": rows()})
    web.answer = lambda asked: rows() if "time()" in query_of(asked) else rows(us_east=1)
    assert list(source(web).read(NOW)) == []


def test_names_are_quoted_as_regular_expressions(web: Web) -> None:
    answers(web, {})
    list(source(web, ("a.b", 'c"d|e')).read(NOW))
    assert 'pipeline=~"a\\\\.b|c\\"d\\\\|e"' in query_of(web.asked[0])


def test_a_pipeline_may_have_another_name_and_queries_of_its_own(web: Web) -> None:
    answers(
        web,
        {
            "time()": vector(({"pipeline": "recommender"}, 1), ({"pipeline": "eu-west"}, 1)),
            "published_total": vector(({}, 70)),
            "headgate_requests_total": vector(({"pipeline": "recommender"}, 10), ({"pipeline": "eu-west"}, 5)),
        },
    )
    special = {"us-east": {"name": "recommender", "queries": {"arrivals": "sum(rate(published_total[$window]))"}}}
    samples = {s.pipeline: s for s in source(web, pipelines=("us-east", "eu-west"), percentiles=[]).read(NOW)}
    assert samples["eu-west"].arrivals == 5 * 60
    document = Document("s.yaml", {"url": web.url, "retries": 0, "pipelines": special})
    made = PrometheusSource(validate(document, PrometheusSettings), ("us-east", "eu-west"))
    samples = {sample.pipeline: sample for sample in made.read(NOW)}
    assert samples["us-east"].arrivals == 70 * 60
    assert samples["us-east"].completions == 10 * 60
    assert samples["eu-west"].arrivals == 5 * 60


def test_a_query_of_the_recipe_can_be_replaced_or_switched_off(web: Web) -> None:
    answers(web, {"time()": rows(us_east=1), "my_rate": rows(us_east=3)})
    list(source(web, queries={"arrivals": "my_rate", "latency": None}).read(NOW))
    queries = [query_of(asked) for asked in web.asked]
    assert "my_rate" in queries
    assert not any("histogram_quantile" in query for query in queries)


def test_further_labels_go_into_every_selector(web: Web) -> None:
    answers(web, {"time()": rows(us_east=1)})
    list(source(web, recipe="kserve", match={"namespace": 'pr"od'}).read(NOW))
    assert all('namespace="pr\\"od"' in query_of(asked) for asked in web.asked)


def test_a_bad_query_is_named_and_the_others_go_on(web: Web) -> None:
    bad = Answer(json.dumps({"status": "error", "errorType": "bad_data", "error": 'unexpected "}"'}), status=400)
    answers(web, {"time()": rows(us_east=1), "my_rate": bad, "headgate_cpu": rows(us_east=0.5)})
    reading = source(web, queries={"arrivals": "my_rate{{"}).read(NOW)
    assert next(reading).cpu_seconds == 0.5 * 60
    with pytest.raises(SourceError, match=r'arrivals: HTTP 400 unexpected "}"'):
        next(reading)


def test_several_series_of_a_pipeline_are_an_error_that_says_what_to_do(web: Web) -> None:
    double = vector(({"pipeline": "us-east", "pod": "1"}, 1), ({"pipeline": "us-east", "pod": "2"}, 1))
    answers(web, {"time()": rows(us_east=1), "my_rate": double})
    with pytest.raises(SourceError, match=r"several series of us-east: aggregate with sum by \(pipeline\)"):
        list(source(web, queries={"arrivals": "my_rate"}).read(NOW))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (Answer("<html>", 200), "not JSON"),
        (Answer("{}", 200), "no result"),
        (Answer("gateway", 502), "HTTP 502"),
        (Answer('{"status":"error","error":"no permission"}', 403), "HTTP 403 no permission"),
    ],
)
def test_what_is_no_answer_of_a_prometheus_is_said(web: Web, answer: Answer, message: str) -> None:
    web.answer = lambda asked: answer
    with pytest.raises(SourceError, match=message):
        list(source(web).read(NOW))


def test_a_gateway_in_trouble_is_asked_again(web: Web) -> None:
    replies = [Answer(status=503), Answer(status=502)]
    web.answer = lambda asked: replies.pop() if replies else rows(us_east=1)
    assert [s.pipeline for s in source(web, retries=2).read(NOW)] == ["us-east"]


def test_no_connection_and_no_answer_are_told_apart(web: Web) -> None:
    web.hangs()
    with pytest.raises(SourceError, match=r"no answer within 0\.2 s"):
        list(source(web, timeout="200ms").read(NOW))
    web.close()
    with pytest.raises(SourceError, match="no connection"):
        list(source(web).read(NOW))


def test_credentials_are_sent_and_read_anew_each_time(web: Web, tmp_path: Path, monkeypatch: Any) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    answers(web, {})
    made = source(web, bearer={"file": str(token)})
    list(made.read(NOW))
    token.write_text("second")
    list(made.read(NOW))
    assert [asked.headers["Authorization"] for asked in web.asked] == ["Bearer first", "Bearer second"]
    monkeypatch.setenv("PASSWORD", "p:w")
    list(source(web, basic={"username": "me", "password": {"env": "PASSWORD"}}).read(NOW))
    assert web.asked[-1].headers["Authorization"] == "Basic bWU6cDp3"


@pytest.mark.parametrize("secret", [{"env": "NOT_THERE"}, {"file": "/nowhere/token"}])
def test_a_missing_secret_names_its_place(web: Web, secret: dict[str, str]) -> None:
    with pytest.raises(SourceError, match=r"NOT_THERE|/nowhere/token"):
        list(source(web, bearer=secret).read(NOW))


def test_a_token_of_two_lines_is_not_quoted(web: Web, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("hunter2\nhunter3\n")
    with pytest.raises(SourceError, match=f"{token} has to hold one line") as raised:
        list(source(web, bearer={"file": str(token)}).read(0.0))
    assert "hunter" not in str(raised.value)


def test_secrets_are_in_no_error_and_no_log(web: Web, monkeypatch: Any, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("PASSWORD", "hunter2")
    web.answer = lambda asked: Answer(json.dumps({"error": f"bad {asked.headers['Authorization']} hunter2"}), 401)
    made = source(web, basic={"username": "me", "password": {"env": "PASSWORD"}})
    with caplog.at_level(logging.DEBUG), pytest.raises(SourceError) as caught:
        list(made.read(NOW))
    everything = str(caught.value) + caplog.text + repr(made) + repr(made._settings)
    assert "HTTP 401" in everything
    assert "hunter2" not in everything
    assert "bWU6aHVudGVyMg" not in everything


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "http://me:hunter2@host:9090"}, "credentials do not belong in a URL"),
        ({"url": "host:9090"}, "write it like https://"),
        ({"bearer": "hunter2"}, "a secret does not belong in the settings"),
        ({"basic": {"username": "me", "password": "hunter2"}}, "a secret does not belong in the settings"),
        ({"bearer": {}}, "name one place"),
        ({"bearer": {"env": "A"}, "basic": {"username": "me", "password": {"env": "A"}}}, "not both"),
        ({"key": "k.pem"}, "a key needs its certificate"),
        ({"match": {"a-b": "c"}}, "match"),
        ({"recipe": "other"}, "recipe"),
    ],
)
def test_wrong_settings_are_named_without_the_secret(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        validate(Document("s.yaml", {"url": "http://host", **settings}), PrometheusSettings)
    assert "hunter2" not in str(caught.value)


def test_files_are_relative_to_the_settings() -> None:
    document = Document("/etc/headgate/s.yaml", {"url": "http://host", "ca": "ca.pem", "bearer": {"file": "token"}})
    chosen = validate(document, PrometheusSettings)
    assert chosen.ca == "/etc/headgate/ca.pem"
    assert chosen.bearer is not None
    assert chosen.bearer.file == "/etc/headgate/token"
