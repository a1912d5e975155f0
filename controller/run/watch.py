"""What is seen of the pipelines: the host's samples and the sources', with the grants that they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from headgate.controller.run.grants import Grants
from headgate.core.extensions import Extensions
from headgate.core.hosting import Inventory
from headgate.core.model import Sample

SAME = 0.25
"""A sample is the one before when nothing but its time differs, by less than so many seconds: ages are rounded."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What one turn has to go by."""

    held: str | None
    """Why nothing may be moved anywhere, None where it may."""
    inventories: Mapping[str, Inventory]
    samples: Mapping[str, Sample]
    now: float


class Watch:
    """Asks the sources for the pipelines that there are, and keeps what they said last."""

    def __init__(self, extensions: Extensions) -> None:
        self._extensions = extensions
        self._samples: dict[str, Sample] = {}
        self._grants = Grants()
        self.followed: frozenset[str] = frozenset()
        """The pipelines that the sources were asked for."""

    def observe(self, inventories: Mapping[str, Inventory], now: float) -> Mapping[str, Sample]:
        """What is known of every pipeline of `inventories` at `now`."""
        names = frozenset(p.name for inventory in inventories.values() for p in inventory.pipelines)
        if names != self.followed:
            self._extensions.follow(sorted(names))
            self.followed = names
        own = {name: sample for inventory in inventories.values() for name, sample in inventory.samples.items()}
        self._grants.note({name: n for inventory in inventories.values() for name, n in inventory.granted.items()}, now)
        found = self._extensions.observe(own, now)
        self._samples = {name: _same_or(self._samples.get(name), sample) for name, sample in found.items()}
        return {name: self._grants.beside(sample) for name, sample in self._samples.items()}


def _same_or(before: Sample | None, sample: Sample) -> Sample:
    """`before` where `sample` is nothing but that read once more: its time was computed anew from its age."""
    if before is not None and abs(sample.time - before.time) < SAME and replace(sample, time=before.time) == before:
        return before
    return sample
