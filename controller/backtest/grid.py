"""A trace, and the grid of minutes and pipelines that it is collected in, in any order of its rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_BLOCK = 256  # minutes that are stored together
LONGEST = 10_000_000
"""Minutes, 19 years: a longer trace is a mistake in one of its times."""
MOST = 1e7
"""Requests in a minute of a pipeline: each is simulated, and a minute of more would not fit in memory."""


@dataclass(frozen=True, eq=False, slots=True)
class Trace:
    """Requests per minute; nothing is missing in it."""

    pipelines: tuple[str, ...]
    requests: NDArray[np.float64]
    """Minutes x pipelines: the expected number of requests, 0 or more."""

    @property
    def minutes(self) -> int:
        """How long it is."""
        return len(self.requests)


class Grid:
    """Counts by minute and pipeline (an index), kept in blocks of minutes so that it grows without being copied."""

    def __init__(self) -> None:
        self._blocks: dict[int, NDArray[np.float64]] = {}
        self._first = self._last = -1

    def put(self, minutes: NDArray[np.int64], pipelines: NDArray[np.int64], counts: NDArray[np.float64]) -> int | None:
        """Enter counts. Returns the index of the first whose place is taken, and then leaves the rest out."""
        self._first = min(self._first, int(minutes.min())) if self._blocks else int(minutes.min())
        self._last = max(self._last, int(minutes.max()))
        order = np.argsort(minutes // _BLOCK, kind="stable")
        blocks, starts = np.unique(minutes[order] // _BLOCK, return_index=True)
        clashes = []
        for block, chosen in zip(blocks.tolist(), np.split(order, starts[1:]), strict=True):
            clash = self._put_block(block, minutes[chosen] % _BLOCK, pipelines[chosen], counts[chosen])
            if clash is not None:
                clashes.append(int(chosen[clash]))
        return min(clashes, default=None)

    def _put_block(
        self, block: int, rows: NDArray[np.int64], columns: NDArray[np.int64], counts: NDArray[np.float64]
    ) -> int | None:
        width = int(columns.max()) + 1
        cells = self._blocks.get(block, np.full((_BLOCK, 0), np.nan))
        if cells.shape[1] < width:
            cells = np.hstack((cells, np.full((_BLOCK, width - cells.shape[1]), np.nan)))
        self._blocks[block] = cells
        _, first = np.unique(rows * width + columns, return_index=True)
        taken = ~np.isnan(cells[rows, columns])
        taken[np.setdiff1d(np.arange(len(rows)), first)] = True
        cells[rows, columns] = counts
        return int(np.argmax(taken)) if taken.any() else None

    @property
    def minutes(self) -> int:
        """From the earliest to the latest minute, both included."""
        return self._last - self._first + 1

    def gap(self, width: int) -> tuple[int, int] | None:
        """The first minute, and pipeline below `width`, without a count between the earliest and the latest minute."""
        for block in range(self._first // _BLOCK, self._last // _BLOCK + 1):
            begin, end = max(self._first, block * _BLOCK), min(self._last + 1, (block + 1) * _BLOCK)
            cells = self._blocks.get(block)
            if cells is None:
                return begin, 0
            missing = np.full((end - begin, width), True)
            part = cells[begin - block * _BLOCK : end - block * _BLOCK]
            missing[:, : part.shape[1]] = np.isnan(part)
            if missing.any():
                minute, pipeline = np.argwhere(missing)[0]
                return begin + int(minute), int(pipeline)
        return None

    def counts(self, width: int) -> NDArray[np.float64]:
        """Minutes x pipelines from the earliest to the latest minute, 0 where nothing was entered. Empties the grid."""
        result = np.zeros((self.minutes, width))
        for block in sorted(self._blocks):
            cells = np.nan_to_num(self._blocks.pop(block))
            at = block * _BLOCK - self._first
            begin, end = max(at, 0), min(at + _BLOCK, len(result))
            result[begin:end, : cells.shape[1]] = cells[begin - at : end - at]
        return result
