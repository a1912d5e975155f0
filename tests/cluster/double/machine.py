"""One request from its path to its answer: who asks, may he, for what, and which part does it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from . import discovery, lifecycle
from .errors import StatusError, no_such_path
from .faults import Faults
from .rbac import Authority
from .requests import Answer, Request, answer, encode
from .resources import METRICS, Registry, Resource
from .selectors import by_fields, by_labels
from .store import Event, Store, Stored

Object = dict[str, Any]
BOOKMARK_EVERY = 1.0
"""Seconds; the real server's are a minute apart, which no test waits for."""


class Machine:
    """The server without its HTTP."""

    def __init__(
        self, *, metrics: bool = True, clock: Callable[[], float] = time.time, version: str = "1.36", page: int = 0
    ) -> None:
        """`page`: objects in a page of a list at the most; 0: as many as are asked for."""
        self.store = Store()
        self.registry = Registry()
        if metrics:
            self.registry.add(*METRICS)
        self.clock = clock
        self.page = page
        self.version = version
        self.authority = Authority(self.store)
        self.faults = Faults()
        self.stopping = False
        for namespace in ("default", "kube-system", "kube-node-lease", "kube-public"):
            lifecycle.seed(self, self._resource("", "v1", "namespaces"), {"metadata": {"name": namespace}})

    def handle(self, request: Request) -> Answer | None:
        """The answer; None: there is none, whatever the request did."""
        entry = self.faults.begin(request)
        found = self.faults.before(request) or self.answer(request)
        entry.code = found.code
        if self.faults.after(request):
            entry.lost = True
            return None
        return found

    def answer(self, request: Request) -> Answer:
        """Without faults and without record: for what belongs to the test and not to what it tests."""
        try:
            with self.store.lock:
                return self._serve(request)
        except StatusError as failure:
            return answer(failure.status(), failure.code)

    def now(self) -> str:
        """RFC 3339, in seconds, as in metadata."""
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.clock()))

    def stop(self) -> None:
        """End the watches."""
        with self.store.lock:
            self.stopping = True
            self.store.changed.notify_all()

    def _resource(self, group: str, version: str, plural: str) -> Resource:
        found = self.registry.find(group, version, plural)
        if found is None:
            raise no_such_path()
        return found

    def _serve(self, request: Request) -> Answer:
        self.authority.check(request)
        if not request.plural:
            return discovery.serve(self, request)
        if request.plural == "selfsubjectaccessreviews":
            return answer(self.authority.review(request), 201)
        resource = self._resource(request.group, request.version, request.plural)
        if request.sub and request.sub not in resource.subresources:
            raise no_such_path()
        if request.verb in ("list", "watch"):
            return self._collection(resource, request)
        return lifecycle.serve(self, resource, request)

    def _collection(self, resource: Resource, request: Request) -> Answer:
        labels = by_labels(request.query.get("labelSelector", ""))
        fields = by_fields(request.query.get("fieldSelector", ""), resource.plural)
        tests = [test for test in (labels, fields) if test]
        if request.name:
            tests.append(lambda found: bool(found["metadata"]["name"] == request.name))
        test = (lambda found: all(one(found) for one in tests)) if tests else None
        if request.verb == "watch":
            return Answer(200, lines=self._watch(resource, request, test))
        limit = int(request.query.get("limit") or 0)
        limit = min(limit, self.page) if limit and self.page else limit
        found, token, left = self.store.page(
            resource.key, request.namespace, test, limit, request.query.get("continue", "")
        )
        meta: Object = {"resourceVersion": str(self.store.revision)}
        if token:
            meta |= {"continue": token, **({} if tests else {"remainingItemCount": left})}
        items = [_item(resource, one) for one in found]
        listed = {"kind": f"{resource.kind}List", "apiVersion": resource.api_version, "metadata": meta, "items": items}
        return Answer(200, listed, [_encoded(resource, one) for one in found] if request.remote else None)

    def _watch(self, resource: Resource, request: Request, test: Any) -> Iterator[bytes]:
        """Changes as JSON lines: those since a resourceVersion, or what is there and then changes."""
        start, ends = request.query.get("resourceVersion", ""), time.monotonic() + _seconds(request.query)
        bookmarks = request.query.get("allowWatchBookmarks") == "true"
        if start in ("", "0"):
            with self.store.lock:
                revision = self.store.revision
                first = [one for one in self.store.all(resource.key, request.namespace) if test is None or test(one)]
            for one in first:
                yield _line("ADDED", lifecycle.shown(resource, one))
        else:
            revision = int(start)
        marked = time.monotonic()
        while True:
            try:
                with self.store.lock:
                    if self.stopping or time.monotonic() >= ends:
                        return
                    events = self.store.since(revision)
                    if not events:
                        self.store.changed.wait(min(BOOKMARK_EVERY, max(0.0, ends - time.monotonic())))
                        events = self.store.since(revision)
            except StatusError as failure:
                yield _line("ERROR", failure.status())
                return
            for event in events:
                revision = event.revision
                told = _told(event, resource, request.namespace, test)
                if told is not None:
                    yield _line(told, lifecycle.shown(resource, event.last, event.revision))
            if bookmarks and time.monotonic() - marked >= BOOKMARK_EVERY:
                marked = time.monotonic()
                with self.store.lock:
                    revision = revision if self.store.since(revision) else self.store.revision
                yield _line("BOOKMARK", _bookmark(resource, revision))


def _item(resource: Resource, stored: Stored) -> Object:
    """Lists of built-in types do not repeat in each item what they are lists of."""
    if resource.custom:
        return lifecycle.shown(resource, stored.object)
    return {key: value for key, value in stored.object.items() if key not in ("apiVersion", "kind")}


def _encoded(resource: Resource, stored: Stored) -> bytes:
    data = stored.encoded.get(resource.api_version)
    if data is None:
        data = stored.encoded[resource.api_version] = encode(_item(resource, stored))
    return data


def _told(event: Event, resource: Resource, namespace: str, test: Any) -> str | None:
    """As a watcher with this selector sees an event: what leaves the selection is deleted for it."""
    if event.kind != resource.key:
        return None
    if namespace and event.last["metadata"].get("namespace") != namespace:
        return None
    was = event.old is not None and (test is None or test(event.old))
    now = event.new is not None and (test is None or test(event.new))
    if now:
        return "MODIFIED" if was else "ADDED"
    return "DELETED" if was else None


def _line(kind: str, found: Mapping[str, Any]) -> bytes:
    return encode({"type": kind, "object": found}) + b"\n"


def _bookmark(resource: Resource, revision: int) -> Object:
    meta = {"resourceVersion": str(revision), "creationTimestamp": None}
    return {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": meta}


def _seconds(query: Mapping[str, str]) -> float:
    return float(query.get("timeoutSeconds") or 1800)
