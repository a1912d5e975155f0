"""Plain values kept in ConfigMaps of headgate's own: compressed, and in parts where one object cannot hold them."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import logging
from collections.abc import Mapping
from typing import Any

from headgate.adapters.kubernetes.api import Api, ApiError, Object, path

log = logging.getLogger("headgate.state")

PREFIX = "headgate-state-"
LABEL = "headgate.dev/state"
PART = 900_000
"""Bytes in one ConfigMap, which may hold 2^20."""


class State:
    """Values by key. Parts of one value carry its digest, so that a value half written is known as such."""

    def __init__(self, api: Api, namespace: str, name: str) -> None:
        """`name`: of the controller, where several share a namespace."""
        self._api = api
        self._namespace = namespace
        self._name = name
        self._written: dict[str, tuple[str, int]] = {}
        """Digest and number of parts by key, as far as this process knows."""

    def load(self) -> dict[str, Any]:
        """All values that can be read. Raises ApiError."""
        parts: dict[str, dict[int, Object]] = {}
        where = path("v1", "configmaps", namespace=self._namespace)
        for found in self._api.list(where, labelSelector=f"{LABEL}={self._name}"):
            data = found.get("data") or {}
            if "key" in data and str(data.get("part", "")).isdecimal():
                parts.setdefault(data["key"], {})[int(data["part"])] = found
        values: dict[str, Any] = {}
        for key, found_parts in parts.items():
            try:
                values[key], digest = _joined(found_parts)
                self._written[key] = digest, len(found_parts)
            except (ValueError, KeyError, TypeError, OSError, EOFError) as error:
                self._written[key] = "", len(found_parts)
                log.warning("dropped from the state: %s: is damaged: %s", key, error)
        return values

    def save(self, values: Mapping[str, Any]) -> None:
        """Each as a whole; None deletes. What is there already costs nothing. Raises ApiError."""
        for key, value in values.items():
            before, count = self._written.get(key, ("", 0))
            if value is None:
                self._drop(key, 0, count)
                self._written.pop(key, None)
                continue
            content = json.dumps(value, separators=(",", ":"), sort_keys=True).encode()
            digest = hashlib.sha256(content).hexdigest()
            if digest == before:
                continue
            packed = gzip.compress(content, 5, mtime=0)
            pieces = [packed[at : at + PART] for at in range(0, len(packed), PART)]
            self._written[key] = "", max(count, len(pieces))
            for index, piece in enumerate(pieces):
                self._put(key, index, len(pieces), digest, piece)
            self._drop(key, len(pieces), count)
            self._written[key] = digest, len(pieces)

    def _put(self, key: str, index: int, count: int, digest: str, piece: bytes) -> None:
        body: Object = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": self._object(key, index),
                "namespace": self._namespace,
                "labels": {LABEL: self._name, "app.kubernetes.io/managed-by": "headgate"},
            },
            "data": {"key": key, "part": str(index), "parts": str(count), "digest": digest},
            "binaryData": {"value": base64.b64encode(piece).decode()},
        }
        try:
            self._api.patch(self._where(key, index), body)
        except ApiError as error:
            if error.status != 404:
                raise
            self._api.create(path("v1", "configmaps", namespace=self._namespace), body)

    def _drop(self, key: str, first: int, count: int) -> None:
        for index in range(first, count):
            try:
                self._api.delete(self._where(key, index))
            except ApiError as error:
                if error.status != 404:
                    raise

    def _where(self, key: str, index: int) -> str:
        return path("v1", "configmaps", self._object(key, index), self._namespace)

    def _object(self, key: str, index: int) -> str:
        return f"{PREFIX}{self._name}-{key}" + (f"-part{index}" if index else "")


def _joined(parts: Mapping[int, Object]) -> tuple[Any, str]:
    first = parts[0]["data"]
    count, digest = int(first["parts"]), str(first["digest"])
    pieces = []
    for index in range(count):
        data = parts[index]["data"]
        if data["digest"] != digest:
            raise ValueError(f"part {index} is of another time")
        pieces.append(base64.b64decode(parts[index]["binaryData"]["value"], validate=True))
    content = gzip.decompress(b"".join(pieces))
    if hashlib.sha256(content).hexdigest() != digest:
        raise ValueError("its digest does not match")
    return json.loads(content), digest
