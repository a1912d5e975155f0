"""What each pipeline had while its samples were taken: hosts tell what is so now, samples are of a while ago."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

from headgate.core.model import Sample

SPAN = 900.0
"""Seconds that are remembered: what is older than the windows and delays of all usual sources."""


class Grants:
    """The grants of the last while, by pipeline, as steps in time."""

    def __init__(self) -> None:
        self._steps: dict[str, list[tuple[float, int]]] = {}

    def note(self, granted: Mapping[str, int], now: float) -> None:
        """What pipelines have at `now`; those that are not in it have gone."""
        steps = {}
        for name, millicores in granted.items():
            known = self._steps.get(name, [])
            if not known or known[-1][1] != millicores:
                known.append((now, millicores))
            while len(known) > 1 and known[1][0] < now - SPAN:
                del known[0]
            steps[name] = known
        self._steps = steps

    def beside(self, sample: Sample) -> Sample:
        """The sample with the mean of what was granted in its window, where it does not say so itself.

        What a pipeline had when it was first seen it is taken to have had before.
        """
        if sample.granted is not None or not (steps := self._steps.get(sample.pipeline)):
            return sample
        steps = [(-math.inf, steps[0][1]), *steps[1:]]
        begin, end = sample.time - sample.window, sample.time
        spans = [
            (min(until, end) - max(since, begin), millicores)
            for (since, millicores), (until, _) in pairwise([*steps, (end, 0)])
            if min(until, end) > max(since, begin)
        ]
        seconds = sum(span for span, _ in spans)
        if not seconds:
            return sample
        return replace(sample, granted=round(sum(span * millicores for span, millicores in spans) / seconds))
