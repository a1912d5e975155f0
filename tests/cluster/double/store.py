"""Objects by type, namespace and name, one revision for all, and a log of changes that watches read."""

from __future__ import annotations

import base64
import bisect
import json
import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from .errors import StatusError, gone

Object = dict[str, Any]
Kind = tuple[str, str]
"""Group and plural: all versions of a type are stored as one."""


@dataclass(slots=True)
class Stored:
    """An object as it is stored; never changed in place."""

    object: Object
    encoded: dict[str, bytes] = field(default_factory=dict)
    """As an item of lists, by API version; filled by who lists."""


@dataclass(frozen=True, slots=True)
class Event:
    """One change. `old` is None for an addition, `new` for a removal."""

    revision: int
    kind: Kind
    old: Object | None
    new: Object | None

    @property
    def last(self) -> Object:
        found = self.new if self.new is not None else self.old
        assert found is not None
        return found


@dataclass
class Store:
    """All of it, under one lock that requests hold while they are served."""

    history: int = 20_000
    revision: int = 100
    oldest: int = 100
    """Watches and continuations from before this revision have expired."""
    lock: threading.RLock = field(default_factory=threading.RLock)
    _objects: dict[Kind, dict[tuple[str, str], Stored]] = field(default_factory=dict)
    _order: dict[Kind, list[tuple[str, str]]] = field(default_factory=dict)
    _log: deque[Event] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self.changed = threading.Condition(self.lock)

    def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        found = self._objects.get(kind, {}).get((namespace, name))
        return None if found is None else found.object

    def put(self, kind: Kind, found: Object) -> Object:
        """Store a copy's new state; gives it its resourceVersion."""
        self.revision += 1
        meta = found["metadata"]
        meta["resourceVersion"] = str(self.revision)
        key = (meta.get("namespace", ""), meta["name"])
        objects = self._objects.setdefault(kind, {})
        old = objects.get(key)
        if old is None:
            bisect.insort(self._order.setdefault(kind, []), key)
        objects[key] = Stored(found)
        self._tell(Event(self.revision, kind, None if old is None else old.object, found))
        return found

    def remove(self, kind: Kind, namespace: str, name: str) -> Object:
        """Take it away; the last state with the revision of its removal."""
        old = self._objects[kind].pop((namespace, name)).object
        order = self._order[kind]
        del order[bisect.bisect_left(order, (namespace, name))]
        self.revision += 1
        last = {**old, "metadata": {**old["metadata"], "resourceVersion": str(self.revision)}}
        self._tell(Event(self.revision, kind, last, None))
        return last

    def all(self, kind: Kind, namespace: str = "") -> Iterable[Object]:
        """In the order of lists: by namespace and name."""
        return (stored.object for stored in self._stored(kind, namespace))

    def _stored(self, kind: Kind, namespace: str) -> Iterable[Stored]:
        objects = self._objects.get(kind, {})
        order = self._order.get(kind, [])
        start = bisect.bisect_left(order, (namespace, "")) if namespace else 0
        for index in range(start, len(order)):
            key = order[index]
            if namespace and key[0] != namespace:
                return
            yield objects[key]

    def page(self, kind: Kind, namespace: str, test: Any, limit: int, token: str) -> tuple[list[Stored], str, int]:
        """Some objects, where to go on ("": that was all), and how many are left."""
        start = self._start(token)
        found = [
            item
            for item in self._stored(kind, namespace)
            if (start is None or _key(item.object) > start) and (test is None or test(item.object))
        ]
        if not limit or len(found) <= limit:
            return found, "", 0
        after = json.dumps({"rv": self.revision, "start": _key(found[limit - 1].object)})
        return found[:limit], base64.urlsafe_b64encode(after.encode()).decode(), len(found) - limit

    def _start(self, token: str) -> tuple[str, str] | None:
        if not token:
            return None
        try:
            read = json.loads(base64.urlsafe_b64decode(token))
            start = (read["start"][0], read["start"][1])
        except (ValueError, LookupError):
            raise StatusError(400, "BadRequest", "continue key is not valid") from None
        if read["rv"] < self.oldest:
            raise gone(
                "The provided continue parameter is too old to display a consistent list result. You can start a new "
                "list without the continue parameter."
            )
        return start

    def since(self, revision: int) -> list[Event]:
        """What changed after a revision. Raises 410 where that is forgotten."""
        if revision < self.oldest:
            raise gone(f"too old resource version: {revision} ({self.oldest})")
        if not self._log or self._log[-1].revision <= revision:
            return []
        found = []
        for event in reversed(self._log):
            if event.revision <= revision:
                break
            found.append(event)
        return found[::-1]

    def compact(self) -> None:
        """Forget history: watches from before now get 410 Gone, as after a compaction of etcd."""
        with self.lock:
            self._log.clear()
            self.revision += 1
            self.oldest = self.revision
            self.changed.notify_all()

    def _tell(self, event: Event) -> None:
        self._log.append(event)
        if len(self._log) > self.history:
            self.oldest = self._log.popleft().revision
        with self.lock:
            self.changed.notify_all()

    def clear(self, namespace: str) -> None:
        """Take away everything in a namespace."""
        for kind, objects in list(self._objects.items()):
            for key in [key for key in objects if key[0] == namespace]:
                self.remove(kind, *key)


def _key(found: Object) -> tuple[str, str]:
    return found["metadata"].get("namespace", ""), found["metadata"]["name"]
