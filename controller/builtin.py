"""What headgate decides with unless told otherwise, registered as anybody's plug-in registers its own."""

from __future__ import annotations

from collections.abc import Mapping

from headgate.core.hookspecs import hookimpl
from headgate.core.policies import POLICIES, Policy


@hookimpl
def headgate_allocation_policies() -> Mapping[str, Policy]:
    """The policies of `core/policies`."""
    return POLICIES
