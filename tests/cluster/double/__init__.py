"""A double of the Kubernetes API server: one process, real HTTP on loopback, rules as measured on 1.36.

`ApiServer()` serves at `.address`; `.client()` talks to it without HTTP, for what tests and emulated controllers do.
"""

from __future__ import annotations

from .server import ApiServer

__all__ = ["ApiServer"]
