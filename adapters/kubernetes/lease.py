"""Leader election: a Lease object that one process holds at a time, and the proof that it is still held.

As client-go does it: whoever holds the lease renews it; whoever wants it takes it when its holder has not renewed it
for as long as the lease says, by the taker's own monotonic clock from when it saw the last renewal. Clocks of different
machines are never compared. Every change names the resourceVersion that it was based on, so of two takers one fails.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from headgate.adapters.kubernetes.api import Api, ApiError, Object, path
from headgate.adapters.kubernetes.settings import LeaseSettings

log = logging.getLogger("headgate.lease")

API = "coordination.k8s.io/v1"


@dataclass(frozen=True, slots=True)
class Seen:
    """Another's lease as it was first seen."""

    version: str
    when: float


class Lease:
    """One candidate. `start` begins to compete in a thread of its own; `leads` may be asked by any thread."""

    def __init__(
        self,
        api: Api,
        namespace: str,
        identity: str,
        settings: LeaseSettings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`api` is this candidate's own: its requests must not wait for others'."""
        self._api = api
        self._namespace = namespace
        self._settings = settings
        self._clock = clock
        self._where = path(API, "leases", settings.name, namespace)
        self._version: str | None = None
        """Of the object as this process last wrote it."""
        self._transitions = 0
        self._seen: Seen | None = None
        self._until = float("-inf")
        """Nobody else can take the lease before this time."""
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._problem: str | None = None
        self.identity = identity
        self.holder = ""
        """Who held it when it was last read."""

    def start(self) -> None:
        """Begin to compete."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="headgate-lease", daemon=True)
            self._thread.start()

    def leads(self) -> bool:
        """Whether a request that begins now will be over before anybody else can lead."""
        return self._clock() + self._settings.deadline <= self._until

    def close(self) -> None:
        """Compete no more, and give the lease up so that another takes it at once."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._until = float("-inf")
        if self._version is None:
            return
        spec = {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _now()}
        try:
            self._api.patch(self._where, {"metadata": {"resourceVersion": self._version}, "spec": spec})
        except ApiError as error:
            log.warning("the lease could not be given up, others wait until it ends: %s", error)

    def _run(self) -> None:
        while not self._stop.is_set():
            began = self._clock()
            try:
                self.step()
                self._problem = None
            except ApiError as error:
                self._version = None if error.status else self._version
                if (text := str(error)) != self._problem:
                    log.warning("the lease: %s", text)
                self._problem = text
            except Exception:  # whatever a server answers: who competes no more never leads again, and nobody sees it
                log.exception("the lease: this is a mistake of headgate's; it goes on")
                self._version = None
            self._stop.wait(max(0.0, began + self._settings.retry - self._clock()))

    def step(self) -> None:
        """One renewal or attempt. Raises ApiError; who led then leads as long as can be proven."""
        began = self._clock()
        if self._version is not None:
            try:
                self._wrote(self._api.patch(self._where, self._renewal(self._version)), began)
            except ApiError as error:
                # Somebody changed it, or an answer was lost and this process's own change is the newer one.
                if error.status not in (404, 409):
                    raise
                self._version = None
            else:
                return
        try:
            found = self._api.get(self._where)
        except ApiError as error:
            if error.status != 404:
                raise
            self._create()
            return
        self._look(found)

    def _look(self, found: Object) -> None:
        """Take it where it is free, this process's own, or where its holder has been silent for too long."""
        spec = found.get("spec") or {}
        version = str(found["metadata"]["resourceVersion"])
        self.holder = str(spec.get("holderIdentity") or "")
        self._transitions = int(spec.get("leaseTransitions") or 0)
        began = self._clock()
        if self.holder and self.holder != self.identity:
            if self._seen is None or self._seen.version != version:
                self._seen = Seen(version, began)
            if began - self._seen.when < float(spec.get("leaseDurationSeconds") or self._settings.duration):
                return
        taken = self.holder != self.identity
        try:
            self._wrote(self._api.patch(self._where, self._renewal(version, taken=taken)), began)
        except ApiError as error:
            if error.status != 409:
                raise

    def _create(self) -> None:
        began = self._clock()
        body: Object = {
            "apiVersion": API,
            "kind": "Lease",
            "metadata": {"name": self._settings.name, "namespace": self._namespace},
            "spec": self._spec(taken=True) | {"leaseTransitions": 0},
        }
        try:
            self._wrote(self._api.create(path(API, "leases", namespace=self._namespace), body), began)
        except ApiError as error:
            if error.status != 409:
                raise

    def _wrote(self, found: Object, began: float) -> None:
        """The server has this process's renewal, which was sent at `began` and not before."""
        self._version = str(found["metadata"]["resourceVersion"])
        self.holder, self._seen = self.identity, None
        self._until = began + self._settings.duration

    def _renewal(self, version: str, *, taken: bool = False) -> Object:
        return {"metadata": {"resourceVersion": version}, "spec": self._spec(taken=taken)}

    def _spec(self, *, taken: bool) -> dict[str, Any]:
        spec: dict[str, Any] = {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": int(self._settings.duration),
            "renewTime": _now(),
        }
        if taken:
            spec |= {"acquireTime": spec["renewTime"], "leaseTransitions": self._transitions + 1}
        return spec


def _now() -> str:
    """For people and other clients; this one decides by its own clock."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
