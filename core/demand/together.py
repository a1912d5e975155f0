"""One turn of an estimator: what all pipelines' samples teach it, and what it then says of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

from headgate.core.demand.learned import Estimator
from headgate.core.model import Demands, Sample

States = Mapping[str, Any]
"""An estimator's state by pipeline."""


class Together(Protocol):
    """An estimator that takes a whole turn at once, because each call costs something, as one of another process."""

    def turn(
        self, learned: States, samples: Mapping[str, Sample], names: Sequence[str], now: float
    ) -> tuple[States, Demands]:
        """See `turn`."""
        ...


def turn(
    estimator: Estimator, learned: States, samples: Mapping[str, Sample], names: Sequence[str], now: float
) -> tuple[States, Demands]:
    """What was learned after `samples`, at most one of each pipeline, and the demands of `names` at `now`."""
    # By its method: isinstance of a protocol takes as long as the estimates of a pipeline.
    if hasattr(estimator, "turn"):
        return cast("Together", estimator).turn(learned, samples, names, now)
    after = dict(learned)
    for name, sample in samples.items():
        after[name] = estimator.update(after.get(name), sample)
    return after, {name: estimator.estimate(after.get(name), now) for name in names}
