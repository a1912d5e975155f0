"""Kubernetes Events, counted instead of repeated, and never more than people can read."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from headgate.adapters.kubernetes.api import Api, ApiError, Object, path

log = logging.getLogger("headgate.events")

BURST = 25
REFILL = 60.0
"""Each object may have so many events at once, and one more every so many seconds."""
SAME = 600.0
"""Seconds within which the same event is counted rather than told again."""
MOST = 1000
"""Characters of a message; the server takes 1024."""


@dataclass(slots=True)
class _Told:
    name: str
    count: int
    first: str
    when: float


@dataclass(slots=True)
class _Bucket:
    left: float
    when: float


class Events:
    """Writes core/v1 Events about objects. Raises nothing: what cannot be told is logged."""

    def __init__(self, api: Api, reporter: str, clock: Callable[[], float] = time.monotonic) -> None:
        """`reporter`: this process, as people may want to find it."""
        self._api = api
        self._reporter = reporter
        self._clock = clock
        self._told: dict[tuple[str, str, str, str], _Told] = {}
        self._buckets: dict[str, _Bucket] = {}

    def tell(self, about: Object, kind: str, reason: str, message: str) -> None:
        """An event about an object reference (apiVersion, kind, namespace, name, uid)."""
        message = message[:MOST]
        now = self._clock()
        self._told = {key: told for key, told in self._told.items() if now - told.when < SAME}
        key = (str(about["uid"]), kind, reason, message)
        if not self._take(str(about["uid"]), now):
            log.debug("too many events of %s: %s is not told", about["name"], reason)
            return
        try:
            if (told := self._told.get(key)) is not None:
                self._count(about, told)
                told.when = now
            else:
                self._told[key] = self._create(about, kind, reason, message, now)
        except ApiError as error:
            log.warning("an event of %s/%s cannot be written: %s", about["namespace"], about["name"], error)

    def _take(self, uid: str, now: float) -> bool:
        bucket = self._buckets.setdefault(uid, _Bucket(BURST, now))
        bucket.left = min(BURST, bucket.left + (now - bucket.when) / REFILL)
        bucket.when = now
        if bucket.left < 1:
            return False
        bucket.left -= 1
        return True

    def _create(self, about: Object, kind: str, reason: str, message: str, now: float) -> _Told:
        stamp = _now()
        digest = hashlib.sha256(f"{self._reporter} {stamp} {reason} {message}".encode()).hexdigest()[:16]
        name = f"{about['name'][:200]}.{digest}"
        body: Object = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": about["namespace"]},
            "involvedObject": about,
            "type": kind,
            "reason": reason,
            "message": message,
            "count": 1,
            "firstTimestamp": stamp,
            "lastTimestamp": stamp,
            "source": {"component": "headgate"},
            "reportingComponent": "headgate.dev/controller",
            "reportingInstance": self._reporter,
        }
        self._api.create(path("v1", "events", namespace=about["namespace"]), body)
        return _Told(name, 1, stamp, now)

    def _count(self, about: Object, told: _Told) -> None:
        told.count += 1
        where = path("v1", "events", told.name, about["namespace"])
        self._api.patch(where, {"count": told.count, "lastTimestamp": _now()})


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
