"""CPU in use as a sign of what a pipeline needs, where nothing counts its requests: a fallback."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from headgate.core.demand.arrivals import Counter, CounterState, known
from headgate.core.demand.margin import Outlook
from headgate.core.model import Sample


class UsageState(NamedTuple):
    """When CPU in use was last known, what it is compared with, and its outlook."""

    time: float
    counter: CounterState | None = None
    outlook: Any = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Forecasts the CPUs in use, as arrivals of pieces of work of `quantum` CPU seconds each.

    What is in use is what is needed, as long as there is more to be had. Where all of the grant is in use
    (`Counter.limited`) the need is censored: it is at least that, and how much more nobody sees. Such an interval
    counts as `more` times what was used, and never lowers the estimate. Kubernetes' Vertical Pod Autoscaler does so
    with memory after an OOM kill, and by the same factor (`oom-bump-up-ratio`). With it a pipeline at its grant is
    given more until it uses less than that, and two of them keep their proportion.
    """

    outlook: Outlook
    counter: Counter
    more: float = 1.2
    quantum: float = 0.02
    """CPU seconds: the noise of an interval is taken to be that of requests of this size."""

    def update(self, state: UsageState | None, sample: Sample) -> UsageState | None:
        """The state after `sample`, of a window above 0; unchanged where it does not know the CPU in use."""
        cpu = known(sample.cpu_seconds)
        if cpu is None:
            return state
        state = state or UsageState(sample.time)
        work = (self.more if self.counter.limited(sample) else 1.0) * cpu / self.quantum
        # As completions, which at a used-up grant a counter takes for fewer than there were arrivals.
        seen = Sample(
            sample.pipeline, sample.time, sample.window, completions=work, cpu_seconds=cpu, granted=sample.granted
        )
        counter, interval = self.counter.update(state.counter, seen)
        if interval is None:
            return state._replace(counter=counter)
        return UsageState(sample.time, counter, self.outlook.update(state.outlook, interval))

    def scenarios(self, state: UsageState, now: float) -> tuple[float, ...]:
        """Equally likely CPUs that are needed, ascending; none where it cannot tell yet."""
        return tuple([rate * self.quantum for rate in self.outlook.scenarios(state.outlook, now)])
