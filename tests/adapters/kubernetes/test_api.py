"""What the adapters' client makes of answers that no API server gives, and of none at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tests.controller.sources.conftest import Answer, Asked, Web, web

from headgate.adapters.kubernetes.api import Api, ApiError, connect, path
from headgate.adapters.kubernetes.lease import Lease
from headgate.adapters.kubernetes.settings import LeaseSettings

__all__ = ["web"]

PODS = path("v1", "pods")


def reached(folder: Path, server: str, token: str = "hunter2", timeout: float = 5) -> Api:
    kubeconfig = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "one",
        "contexts": [{"name": "one", "context": {"cluster": "one", "user": "one"}}],
        "clusters": [{"name": "one", "cluster": {"server": server}}],
        "users": [{"name": "one", "user": {"token": token}}],
    }
    (folder / "kubeconfig").write_text(yaml.safe_dump(kubeconfig))
    return Api(connect(str(folder / "kubeconfig")), timeout)


def listed(*names: str, more: str = "") -> Answer:
    items = [{"metadata": {"name": name}} for name in names]
    found = {"kind": "PodList", "metadata": {"continue": more}, "items": items}
    return Answer(json.dumps(found), kind="application/json")


@pytest.mark.parametrize(
    ("second", "why"),
    [
        (Answer("<html>signed out</html>", kind="text/html"), "no JSON object"),
        (Answer("[]", kind="application/json"), "no JSON object"),
        (Answer('{"kind": "Status"}', kind="application/json"), "no list"),
        (Answer("", 302, headers={"Location": "/elsewhere"}), "HTTP 302"),
    ],
)
def test_half_a_list_is_not_taken_for_all_of_it(web: Web, tmp_path: Path, second: Answer, why: str) -> None:
    """What is missing from a list of pods would look like room in a budget and on a node."""
    answers: Iterator[Answer] = iter([listed("a", more="next"), second])
    web.answer = lambda _: next(answers)
    with pytest.raises(ApiError, match=why) as raised:
        reached(tmp_path, web.url).list(PODS)
    assert raised.value.retry, "it may work the next time"


def test_whole_lists_are_read_page_by_page(web: Web, tmp_path: Path) -> None:
    answers = iter([listed("a", more="next"), listed("b")])
    web.answer = lambda _: next(answers)
    assert [pod["metadata"]["name"] for pod in reached(tmp_path, web.url).list(PODS)] == ["a", "b"]


def test_nothing_is_tried_again_behind_the_callers_back(web: Web, tmp_path: Path) -> None:
    """A second attempt would begin when the lease that was looked at before the first may have ended."""
    web.hangs()
    api = reached(tmp_path, web.url, timeout=0.2)
    with pytest.raises(ApiError, match=f"no answer from {web.url.removeprefix('http://')} "):
        api.get(PODS)
    assert len(web.asked) == 1


@pytest.mark.parametrize(
    ("server", "token", "why"),
    [
        ("http://somebody:hunter2@127.0.0.1:1", "", "no answer from 127.0.0.1:1 (Connection refused)"),
        ("http://127.0.0.1:1", "hunter2\nhunter3", "the credentials cannot be sent"),
    ],
)
def test_why_there_is_no_answer_is_said_without_the_credentials(
    tmp_path: Path, server: str, token: str, why: str
) -> None:
    with pytest.raises(ApiError) as raised:
        reached(tmp_path, server, token).get(PODS)
    assert why in str(raised.value)
    assert "hunter" not in str(raised.value)


def test_a_candidate_goes_on_whatever_it_is_answered(web: Web, tmp_path: Path) -> None:
    """Who competes no more never leads again, with nothing to be seen of it."""
    asked: list[Asked] = []

    def odd(one: Asked) -> Answer:
        asked.append(one)
        if len(asked) > 3:
            web.release.set()
        return Answer('{"spec": 1}', kind="application/json")

    web.answer = odd
    lease = Lease(reached(tmp_path, web.url), "headgate", "one", LeaseSettings(retry=0.01))
    lease.start()
    assert web.release.wait(30)
    lease.close()
    assert not lease.leads()
