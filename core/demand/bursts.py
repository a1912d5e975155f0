"""How much burstier than Poisson the arrivals are, from the counts of intervals that follow one another."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from headgate.core.demand.arrivals import Seen


class BurstsState(NamedTuple):
    """The last known interval, and the mean of what was found so far."""

    requests: float
    window: float
    dispersion: float = 1.0
    pairs: int = 0


@dataclass(frozen=True, slots=True)
class Bursts:
    """The index of dispersion for counts, variance / mean, which is 1 for a Poisson stream.

    Two counts n, m over windows v, w of one rate differ by n w - m v, whose variance is I (n w^2 + m v^2): the mean of
    the squared difference over the bracket is I (von Neumann's successive differences, Ann. Math. Stat. 12(4), 1941, so
    that a slow drift of the rate does not count). What a queue makes of such a stream depends in first order on I
    (Fendick and Whitt, Proc. IEEE 77(1), 1989): the square of the coefficient of variation that a renewal stream of
    the same wait would have. Changes of the rate itself from one interval to the next count as bursts, which is what
    they are to a queue; one pair counts for at most `most`.
    """

    memory: int = 60
    """Pairs over which the mean is taken."""
    most: float = 25.0
    least: float = 1.0
    """Variation that is taken for granted; 1: what is smoother than Poisson is planned as Poisson."""

    def update(self, state: BurstsState | None, seen: Seen) -> BurstsState | None:
        """The state after one more interval; the same one where its count is not known."""
        if seen.requests is None:
            return state
        requests, window = seen.requests, seen.window
        if state is None:
            return BurstsState(requests, window)
        before, earlier, dispersion, pairs = state
        expected = requests * earlier * earlier + before * window * window
        if expected > 0.0:
            difference = requests * earlier - before * window
            pairs += 1
            # The first ones weigh no more than a fifth: a handful of pairs says little.
            weight = 1.0 / max(5, min(pairs, self.memory))
            dispersion += weight * (min(difference * difference / expected, self.most) - dispersion)
        return BurstsState(requests, window, dispersion, pairs)

    def variation(self, state: BurstsState | None) -> float:
        """Coefficient of variation of the time between arrivals, at least `least`."""
        return self.least if state is None else max(self.least, math.sqrt(state.dispersion))
