"""Budgets of another host: their own controller's business, unless there is none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from headgate.core.budgets import CPUBudget
from headgate.core.hosting import Rejected

PATIENCE = 60.0
"""Seconds in which the controller of another host takes a budget up, and says so in its status."""


class Unattended:
    """Since when budgets of other hosts have been without a report."""

    def __init__(self, host: str) -> None:
        """`host`: this controller's own."""
        self._host = host
        self._since: dict[tuple[str, int], float] = {}

    def among(self, budgets: Iterable[CPUBudget], now: float) -> Mapping[str, Rejected]:
        """Those that nobody has reported on for too long; a report of somebody's is never overwritten."""
        waiting = [budget for budget in budgets if budget.spec.host != self._host and not budget.reported]
        self._since = {
            (budget.key, budget.generation): self._since.get((budget.key, budget.generation), now) for budget in waiting
        }
        return {
            budget.key: Rejected(budget.key, budget.generation, self._said(budget), "OtherHost")
            for budget in waiting
            if now - self._since[budget.key, budget.generation] >= PATIENCE
        }

    def _said(self, budget: CPUBudget) -> str:
        return (
            f"is for the host {budget.spec.host}, and no controller of that host has taken it up; the one that says "
            f"this is for {self._host}: set spec.host, or run a controller for {budget.spec.host}"
        )
