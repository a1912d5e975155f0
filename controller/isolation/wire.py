"""What crosses between headgate and a plug-in's process: frames of pickles, and from the plug-in plain values only."""

from __future__ import annotations

import io
import pickle
import select
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np

from headgate.core.hookspecs import Adjustment, Veto
from headgate.core.model import Demand, Sample, Unknown
from headgate.core.observation import Nonsense

MOST = 64 * 2**20
"""Bytes of an answer; what is longer is nonsense."""

_HEADER = 8
_CLASSES: Mapping[tuple[str, str], Any] = {
    (kind.__module__, kind.__qualname__): kind
    for kind in (Sample, Demand, Unknown, Veto, Adjustment, dict, tuple, int, float, bool)
}


class _Pickler(pickle.Pickler):
    """Makes plain what means the same: numpy's numbers and arrays, and mappings of other kinds."""

    def reducer_override(self, value: object) -> Any:
        """See pickle.Pickler."""
        if isinstance(value, np.generic):
            return type(item := value.item()), (item,)
        if isinstance(value, np.ndarray):
            return tuple, (value.tolist(),)
        if isinstance(value, Mapping):
            return dict, (list(value.items()),)
        return NotImplemented


class _Unpickler(pickle.Unpickler):
    """Makes nothing but plain values: the bytes are a plug-in's, and pickles can run whatever they name."""

    def find_class(self, module: str, name: str) -> Any:
        """See pickle.Unpickler."""
        if (found := _CLASSES.get((module, name))) is None:
            raise Nonsense(f"answers with a {name} of {module}, which is no plain value")
        return found


def packed(value: object) -> bytes:
    """A plug-in's answer as bytes. Raises whatever pickle does when it is not made of values."""
    buffer = io.BytesIO()
    _Pickler(buffer, protocol=5).dump(value)
    return buffer.getvalue()


def unpacked(data: bytes) -> Any:
    """What `packed` was given: numbers, texts, bytes, containers, and samples, demands and verdicts of them.

    Only types are certain: what the fields hold is to be checked. Raises Nonsense.
    """
    try:
        return _Unpickler(io.BytesIO(data)).load()
    except Nonsense:
        raise
    except Exception as error:  # noqa: BLE001 - whatever broken pickles raise
        raise Nonsense(f"answers with bytes that mean nothing ({type(error).__name__})") from None


class Channel:
    """Frames over a socket. One thread at a time; a frame that has not come whole yet is waited for again."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._connection = connection
        self._received = bytearray()

    def send(self, frame: bytes, until: float | None = None) -> None:
        """Raises TimeoutError, after which the channel is of no use, or OSError when the other side is gone.

        `until`: monotonic time; None: for ever.
        """
        rest = memoryview(len(frame).to_bytes(_HEADER) + frame)
        while rest:
            try:
                rest = rest[self._connection.send(rest) :]
            except BlockingIOError:
                self._wait(select.POLLOUT, until)

    def receive(self, until: float | None = None) -> bytes:
        """The next frame. Raises TimeoutError, EOFError when the other side is gone, Nonsense when it is too long."""
        while True:
            if len(self._received) >= _HEADER:
                size = int.from_bytes(self._received[:_HEADER])
                if size > MOST:
                    raise Nonsense(f"answers with more than {MOST >> 20} MiB")
                if len(self._received) >= _HEADER + size:
                    frame = bytes(self._received[_HEADER : _HEADER + size])
                    del self._received[: _HEADER + size]
                    return frame
            try:
                data = self._connection.recv(1 << 20)
            except BlockingIOError:
                self._wait(select.POLLIN, until)
                continue
            except ConnectionError:
                data = b""
            if not data:
                raise EOFError
            self._received += data

    def hang_up(self) -> None:
        """The other side reads its end, and so does whoever waits here. Any thread may."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Nobody uses it any more."""
        self._connection.close()

    def _wait(self, event: int, until: float | None) -> None:
        poll = select.poll()
        poll.register(self._connection, event)
        left = None if until is None else max(0.0, until - time.monotonic()) * 1000
        if not poll.poll(left):
            raise TimeoutError
