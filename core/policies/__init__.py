"""Allocation policies by name: the built-in ones are entries of one table like anybody's."""

from __future__ import annotations

from collections.abc import Mapping

from headgate.core.policies.base import Division, Policy, by_class
from headgate.core.policies.shares import Equal, Proportional
from headgate.core.policies.slo import FAIR, FAIRSUM, SUM, SloPolicy
from headgate.core.utility import Shedding

BUILT_IN: tuple[Policy, ...] = (
    Proportional(),
    Equal(),
    SloPolicy(SUM),
    SloPolicy(FAIR, name="slo-fair"),
    SloPolicy(FAIRSUM, name="slo-fairsum"),
    SloPolicy(SUM, Shedding(), name="slo-shed", doubt=0.2),
)
POLICIES: Mapping[str, Policy] = {policy.name: policy for policy in BUILT_IN}


def find_policy(name: str) -> Policy:
    """The policy called `name`. Raises ValueError listing the known ones."""
    try:
        return POLICIES[name]
    except KeyError:
        raise ValueError(f"policy {name!r} is not known; known policies: {', '.join(POLICIES)}") from None


__all__ = ["POLICIES", "Division", "Policy", "by_class", "find_policy"]
