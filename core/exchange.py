"""What to do with what a jump leaves over that does not fit into its budget.

Others get it, in their order; and where it is worth much, such jumps go first and the cheapest steps give way.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from headgate.core.filling import Space
from headgate.core.laminar import Bools, Floats, Ints
from headgate.core.paths import EVEN, Paths
from headgate.core.steps import REPAIRS, Steps, fitting

EXCHANGES = 16
"""How many refused jumps are tried in the place of cheaper steps."""


def swap(point: Ints, paths: Paths, gain: Floats, taken: Bools, left: int) -> int:
    """Puts refused jumps into `taken` in the place of the cheapest steps where that gains more; what is left then.

    For one budget only, which took steps from the first of the points `point`, the dearest first.
    """
    refused = _refused(point, paths, taken)
    if not len(refused):
        return left
    source = _one_by_one(point[taken[point]][::-1], paths, gain)
    cheapest: list[tuple[int, int, int, float]] = []
    gone: set[int] = set()
    come: list[int] = []
    for jump, own, size, gained in _one_by_one(refused, paths, gain):
        if jump - 1 in gone and paths.row[jump - 1] == own:
            continue  # it has given way itself
        missing, rest = size - left, gained
        given: list[int] = []
        place = 0
        while missing > 0 and rest > 0:
            if place == len(cheapest):
                if (following := next(source, None)) is None:
                    break
                cheapest.append(following)
            giving, row, freed, lost = cheapest[place]
            place += 1
            if row != own:
                given.append(giving)
                missing -= freed
                rest -= lost
        if missing <= 0 and rest > 0:
            gone.update(given)
            come.append(jump)
            left = -missing
            cheapest = [step for step in cheapest if step[0] not in gone]
    taken[list(gone)] = False
    taken[come] = True
    return left


def _one_by_one(point: Ints, paths: Paths, gain: Floats) -> Iterator[tuple[int, int, int, float]]:
    """(point, row, size, gain), a few turned into Python's numbers at a time."""
    for start in range(0, len(point), 64):
        some = point[start : start + 64]
        yield from zip(
            some.tolist(), paths.row[some].tolist(), paths.size[some].tolist(), gain[some].tolist(), strict=True
        )


def further(row: Ints, size: Ints, left: int, rows: int) -> list[int]:
    """Which steps fit, in order, into what is `left`; whoever has no room for its next one takes none any more."""
    position = np.arange(len(row))
    large = np.flatnonzero(size > left)[::-1]
    first = np.full(rows, len(row))
    first[row[large]] = large
    open_ = np.flatnonzero(position < first[row])
    if not len(open_):
        return []
    least = int(size[open_].min())
    stuck: set[int] = set()
    fitting = []
    for step, taker, wanted in zip(open_.tolist(), row[open_].tolist(), size[open_].tolist(), strict=True):
        if wanted > left:
            stuck.add(taker)
        elif taker not in stuck:
            fitting.append(step)
            left -= wanted
            if left < least:
                break
    return fitting


def repaired(space: Space, grants: Ints, steps: Steps, paths: Paths) -> Bools:
    """From which points rows go on when budgets admit `steps` in order, and what is left then goes to others."""
    taken = np.zeros(len(paths.row), dtype=np.bool_)
    held = grants.copy()
    for _ in range(REPAIRS):
        fits = fitting(space, held, steps, skipping=len(space.tree) > 1)
        taken[steps.point[fits]] = True
        if fits.all():
            break
        held += np.bincount(steps.pipeline[fits], weights=steps.size[fits], minlength=len(held)).astype(np.int64)
        steps = steps.only(~fits)
        # Whoever has no room for its next step stays where it is, and what follows it is left to the others.
        following = paths.first[paths.row[steps.point]] == steps.point
        following |= taken[steps.point - 1]
        open_ = np.zeros(len(held), dtype=np.bool_)
        open_[steps.pipeline[following & (steps.size <= space.slack(held)[steps.pipeline])]] = True
        steps = steps.only(open_[steps.pipeline])
        if not len(steps):
            break
    return taken


def exchanged(space: Space, grants: Ints, steps: Steps, paths: Paths, gain: Floats, taken: Bools) -> Bools:
    """`taken`, or what gains more: refused jumps go first, one after the other, and what comes last gives way."""
    best = float(gain[taken].sum())
    ahead = np.zeros(len(paths.row), dtype=np.bool_)
    for jump in _refused(steps.point, paths, taken).tolist():
        trial = ahead.copy()
        trial[paths.first[paths.row[jump]] : jump + 1] = True
        other = repaired(space, grants, steps.only(np.argsort(~trial[steps.point], kind="stable")), paths)
        if (value := float(gain[other].sum())) > best * (1 + EVEN):
            taken, best, ahead = other, value, trial
    return taken


def _refused(point: Ints, paths: Paths, taken: Bools) -> Ints:
    """The points of the first few steps that were not taken although all before them in their row were."""
    following = paths.first[paths.row[point]] == point
    following |= taken[point - 1]
    refused: Ints = point[(following & ~taken[point]).nonzero()[0][:EXCHANGES]]
    return refused
