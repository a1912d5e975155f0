"""What the frameworks do alone, from the same samples: the Horizontal Pod Autoscaler and Knative's autoscaler.

Each scales one pipeline without knowledge of the others. Nothing but the budget holds them together: a replica that
does not fit stays pending until another pipeline lets go of its CPU, first come, first served.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from headgate.core.model import Observation, Pipeline, Sample
from headgate.core.units import MILLI


@dataclass(frozen=True, slots=True)
class Hpa:
    """The Horizontal Pod Autoscaler on CPU utilisation, with Kubernetes' defaults.

    Every 15 s: replicas = ceil(replicas x utilisation / target) unless that ratio is within 10 % of 1; at most doubled
    or four more (whichever is more) at a time; down only to the highest recommendation of the last five minutes.
    From kubernetes.io/docs/concepts/workloads/autoscaling/horizontal-pod-autoscale. A replica is one CPU.
    """

    pipelines: tuple[Pipeline, ...]
    budget: int
    target: float = 0.8
    tolerance: float = 0.1
    stabilisation: float = 300.0
    name: str = "hpa"
    interval: float = 15.0

    def decide(
        self, state: Mapping[str, tuple[tuple[float, int], ...]] | None, observation: Observation, now: float
    ) -> tuple[Mapping[str, tuple[tuple[float, int], ...]], Mapping[str, int]]:
        """The recommendations of the last five minutes, and millicores."""
        recommendations: dict[str, tuple[tuple[float, int], ...]] = {}
        wanted: dict[str, int] = {}
        for pipeline in self.pipelines:
            past = (state or {}).get(pipeline.name, ())
            replicas = max(1, observation.granted[pipeline.name] // MILLI)
            recommended = self._recommend(observation.samples[pipeline.name], replicas)
            kept = (*((t, r) for t, r in past if t > now - self.stabilisation), (now, recommended))
            recommendations[pipeline.name] = kept
            if recommended < replicas:
                recommended = min(replicas, max(r for _, r in kept))
            limited = min(recommended, max(2 * replicas, replicas + 4))
            wanted[pipeline.name] = _clip(limited, pipeline, self.budget)
        return recommendations, wanted

    def _recommend(self, sample: Sample, replicas: int) -> int:
        if sample.cpu_seconds is None:
            return replicas
        ratio = sample.cpu_seconds / sample.window / replicas / self.target
        return replicas if abs(ratio - 1) <= self.tolerance else math.ceil(replicas * ratio - 1e-9)


@dataclass(frozen=True, slots=True)
class KpaState:
    """What the KPA remembers of one pipeline."""

    concurrency: tuple[float, ...] = ()
    """Of the ticks in the stable window, the newest last."""
    panic_since: float | None = None
    """When the load last called for panic; None: not in panic."""
    panic_replicas: int = 0
    """The most that were wanted during the panic."""


@dataclass(frozen=True, slots=True)
class Kpa:
    """Knative's autoscaler on concurrency, with its defaults, for containers that serve one request at a time.

    Every 2 s: replicas = ceil(mean concurrency over 60 s / target). When the mean over the last 6 s calls for twice
    the replicas or more, it panics: follows those 6 s, and only upwards, until 60 s passed without such a call. A step
    down at most halves. From knative.dev/docs/serving/autoscaling/kpa-specific. A replica is one CPU.
    """

    pipelines: tuple[Pipeline, ...]
    budget: int
    target: float = 0.7
    """Concurrency of one replica: a concurrency of 1 at 70 % utilisation."""
    stable: float = 60.0
    panic: float = 6.0
    threshold: float = 2.0
    name: str = "kpa"
    interval: float = 2.0

    def decide(
        self, state: Mapping[str, KpaState] | None, observation: Observation, now: float
    ) -> tuple[Mapping[str, KpaState], Mapping[str, int]]:
        """What is remembered of each pipeline, and millicores."""
        states: dict[str, KpaState] = {}
        wanted: dict[str, int] = {}
        for pipeline in self.pipelines:
            name = pipeline.name
            replicas = max(1, observation.granted[name] // MILLI)
            states[name], desired = self._scale(
                (state or {}).get(name, KpaState()), observation.samples[name], replicas, now
            )
            wanted[name] = _clip(desired, pipeline, self.budget)
        return states, wanted

    def _scale(self, state: KpaState, sample: Sample, replicas: int, now: float) -> tuple[KpaState, int]:
        if sample.cpu_seconds is None or sample.queue is None:
            return state, replicas
        seen = (*state.concurrency, sample.cpu_seconds / sample.window + sample.queue)
        seen = seen[-max(1, round(self.stable / self.interval)) :]
        recent = seen[-max(1, round(self.panic / self.interval)) :]
        stable = max(math.ceil(sum(seen) / len(seen) / self.target - 1e-9), replicas // 2)
        burst = max(math.ceil(sum(recent) / len(recent) / self.target - 1e-9), replicas // 2)
        since = now if burst / replicas >= self.threshold else state.panic_since
        if since is None or now - since > self.stable:
            return KpaState(seen), stable
        most = max(burst, replicas, state.panic_replicas if state.panic_since is not None else 0)
        return KpaState(seen, since, most), most


def _clip(replicas: int, pipeline: Pipeline, budget: int) -> int:
    ceiling = budget if pipeline.ceiling is None else min(budget, pipeline.ceiling)
    return max(pipeline.floor, min(replicas * MILLI, ceiling))
