"""The loop's clock: seconds since 1970 that never jump, so that what is timed by it survives a restart."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], float]


def steady_clock() -> Clock:
    """Seconds since 1970 as of now, and from here on by the monotonic clock: nobody can set it back."""
    offset = time.time() - time.monotonic()
    return lambda: time.monotonic() + offset
