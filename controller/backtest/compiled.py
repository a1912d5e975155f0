"""Compiles the inner loop of the simulation where numba is installed; otherwise the same code runs, a lot slower."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import TypeVar, cast

F = TypeVar("F", bound=Callable[..., object])

AVAILABLE = find_spec("numba") is not None
"""Whether `compiled` compiles; the extra `backtest` brings numba."""


def compiled(function: F) -> F:
    """`function` as machine code, kept on disk from one run to the next; itself where numba is absent."""
    if not AVAILABLE:
        return function
    import numba

    return cast("F", numba.njit(cache=True)(function))
