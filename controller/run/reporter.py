"""Tells people what happens: a budget's status, written when it means something new, and events for what matters."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from headgate.controller.run.status import View, rejected_status, significant, status_of
from headgate.core.hosting import Home, Rejected
from headgate.core.units import format_cpu

log = logging.getLogger("headgate.run")

REFRESH = 60.0
"""Seconds between two writes of a status in which only the load flickers."""
LISTED = 4
"""Moves that an event names."""


class Reporter:
    """Compares what is with what was told. Nothing that a home does wrong here keeps the loop from its work."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._shown: dict[str, tuple[float, Any]] = {}
        self._before: dict[str, View] = {}
        self.failed = 0
        """Statuses that could not be written."""

    def forget(self) -> None:
        """A new term: whoever led before may have told something else."""
        self._shown.clear()
        self._before.clear()

    def show(self, views: Mapping[str, View], rejected: Mapping[str, Rejected], now: float) -> None:
        """Everything as it is now."""
        for key, each in rejected.items():
            self._show(key, rejected_status(each), now)
        for key, view in views.items():
            self._show(key, status_of(view), now)
            for kind, reason, message in events_between(self._before.get(key), view):
                log.log(logging.WARNING if kind == "Warning" else logging.INFO, "%s: %s: %s", key, reason, message)
                self._home.event(key, kind, reason, message)
        self._before = dict(views)
        self._shown = {key: shown for key, shown in self._shown.items() if key in views or key in rejected}

    def _show(self, key: str, status: Mapping[str, Any], now: float) -> None:
        told = significant(status)
        when, what = self._shown.get(key, (-1e18, None))
        if (what == told and now - when < REFRESH) or not self._home.leads():
            return
        try:
            self._home.report(key, status)
        except Exception as error:  # noqa: BLE001 - a status that cannot be shown is no reason to stop
            self.failed += 1
            log.warning("%s: the status cannot be written: %s", key, error)
            return
        self._shown[key] = now, told


def events_between(before: View | None, view: View) -> list[tuple[str, str, str]]:
    """(kind, reason, message) of what is new and matters to people."""
    events = []
    moved = moves(before, view)
    if moved:
        events.append(("Normal", "CPUsMoved", moved))
    trouble, old = view.verdict.trouble, before.verdict.trouble if before else None
    if trouble is not None and (old is None or old.reason != trouble.reason):
        events.append(("Warning", trouble.reason, trouble.message))
    if trouble is None and old is not None:
        events.append(("Normal", "Ready", f"{old.reason} is over"))
    known = before.refusals if before else {}
    events += [
        ("Warning", refusal.reason, f"{name}: {refusal.message}")
        for name, refusal in sorted(view.refusals.items())
        if name not in known or known[name].reason != refusal.reason
    ]
    if view.failed is not None and (before is None or before.failed is None):
        events.append(("Warning", "ApplyFailed", view.failed))
    was = before.held if before else None
    if (view.held is None) != (was is None):
        events.append(("Normal", "Paused", view.held) if view.held is not None else ("Normal", "Resumed", "goes on"))
    return events


def moves(before: View | None, view: View) -> str:
    """What an order changes against the one before it, or against what was found, the largest first."""
    if not view.applying or view.verdict.order is None:
        return ""
    same_term = before is not None and before.verdict.order is not None
    then = before.verdict.order.grants if same_term and before and before.verdict.order else _found(view)
    grants = view.verdict.order.grants
    changed = {name: (then[name], grant) for name, grant in grants.items() if name in then and then[name] != grant}
    largest = sorted(changed, key=lambda name: -abs(changed[name][1] - changed[name][0]))
    listed = [f"{name} {format_cpu(changed[name][0])} -> {format_cpu(changed[name][1])}" for name in largest[:LISTED]]
    more = f", and {len(largest) - LISTED} more" if len(largest) > LISTED else ""
    return ", ".join(listed) + more


def _found(view: View) -> Mapping[str, int]:
    return view.inventory.granted if view.inventory is not None else {}
