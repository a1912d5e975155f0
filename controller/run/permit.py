"""Whether a write may be made at this moment."""

from __future__ import annotations

import logging
import math

from headgate.core.hosting import Home

log = logging.getLogger("headgate.run")

FRESH = 1.0
"""Seconds for which the pause switch is believed to stand as it did."""


class Permit:
    """Leading, not paused, not past the time to stop. Who cannot ask does not write."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._asked = -math.inf
        self._held: str | None = None
        self.deadline = math.inf
        """No write from this time on."""

    def allowed(self, now: float) -> bool:
        """Whether one may be made at `now`."""
        if not self._home.leads() or now >= self.deadline:
            return False
        if now - self._asked >= FRESH:
            try:
                self._held, self._asked = self._home.paused(), now
            except Exception as error:  # noqa: BLE001 - whatever a home does wrong
                log.warning("the pause switch cannot be read: %s", error)
                return False
        # Asked last: the answer about the switch may have taken as long as the lead has left.
        return self._held is None and self._home.leads()
