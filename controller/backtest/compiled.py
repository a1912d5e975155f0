"""Compiles the simulation's inner loop where numba is installed. Without it the same code runs, about fifty times slower."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

try:
    import numba
except ImportError:  # the extra `backtest` brings it
    numba = None

F = TypeVar("F", bound=Callable[..., object])

AVAILABLE: bool = numba is not None
"""Whether `compiled` compiles."""


def compiled(function: F) -> F:
    """`function` as machine code, kept on disk from one run to the next; itself where numba is absent."""
    if numba is None:
        return function
    result: F = numba.njit(cache=True)(function)
    return result
