"""CPU seconds per request, learned from noisy counters and kept apart from the CPU that an idle pipeline uses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from headgate.core.demand.arrivals import known
from headgate.core.model import Sample

_TINY = 1e-18
"""Variance of a thousandth of a microsecond: below it nothing can be told from rounding."""


class CostState(NamedTuple):
    """Estimates, their covariance in units of the noise variance, and the chart that watches for a step."""

    base: float
    """CPUs used without any request."""
    cost: float
    """CPU seconds per request."""
    noise: float
    """Variance of the CPU seconds of one request, work in flight at a window's ends included."""
    base_variance: float
    covariance: float
    cost_variance: float
    up: float = 0.0
    down: float = 0.0
    served: int = 0
    """Intervals in which requests completed since the last step; 0: no cost is known yet."""
    carried_cpu: float = 0.0
    """CPU seconds, requests and seconds of the latest intervals, too few to be judged yet."""
    carried_completions: float = 0.0
    carried_window: float = 0.0


class CostEstimate(NamedTuple):
    """CPU seconds per request and its standard deviation, and CPUs used when idle."""

    per_request: float
    deviation: float
    base: float


@dataclass(frozen=True, slots=True)
class Cost:
    """Recursive least squares on cpu_seconds = base * window + cost * completions + noise.

    - The noise grows with the completions, so a row is divided by sqrt(completions) (weighted least squares).
    - Old rows fade by `forgetting` per interval, but only in the direction that the new row informs: directional
      forgetting (Kulhavy and Karny, "Tracking of slowly varying parameters by directional forgetting", IFAC World
      Congress, 1984), so that hours of steady or no load neither blow up nor wear down what is known.
    - An innovation counts for at most `clip` standard deviations (Huber, "Robust Statistics", 1981, 7.8).
    - A model update is a step in cost. A two-sided CUSUM of the standardised, clipped innovations (Page, Biometrika
      41, 1954) finds it; the covariance of the cost is then reset (Ljung, "System Identification", 2nd ed., 11.6),
      so that the next few intervals decide it.
    - Requests in flight at the ends of an interval leave their work in one and their completion in another, which
      looks like base load where they are many of the few. Intervals are therefore added up to rows of `enough`
      completions or `longest` seconds, whichever comes first; the very first request gives a first cost.
    - The base starts near 0 with a deviation of `base_prior` times that of one request's work: Poisson counts at a
      steady rate can hardly tell base from cost, and what they cannot tell stays with the cost.
    """

    forgetting: float = 0.98
    clip: float = 3.0
    slack: float = 0.5
    decision: float = 5.0
    base_prior: float = 5.0
    enough: float = 20.0
    longest: float = 30.0
    noise_memory: int = 50
    """Intervals over which the noise is averaged."""

    def update(self, state: CostState | None, sample: Sample) -> CostState | None:
        """The estimates after `sample`, of a window above 0; unchanged where a counter is missing or was reset."""
        cpu, completions, window = known(sample.cpu_seconds), known(sample.completions), sample.window
        if cpu is None or completions is None:
            return state
        state = state or CostState(0.0, 0.0, 0.0, self.base_prior**2, 0.0, 0.0)
        cpu, window = cpu + state.carried_cpu, window + state.carried_window
        completions += state.carried_completions
        enough = self.enough if state.served else 1.0
        few = completions < enough and (window < self.longest or 0.0 < completions < 1.0)
        # Requests take CPU: a counter that did not move beside them has not been read anew (cAdvisor's is every 10 s).
        if few or (cpu <= 0.0 < completions):
            return state._replace(carried_cpu=cpu, carried_completions=completions, carried_window=window)
        if not state.served:
            return self._first(state, cpu, completions, window)
        return self._correct(state, cpu, completions, window)

    def _correct(self, state: CostState, cpu: float, completions: float, window: float) -> CostState:
        scale = 1.0 / math.sqrt(max(completions, 1.0))
        x0, x1, y = window * scale, completions * scale, cpu * scale
        p00, p01, p11 = state.base_variance, state.covariance, state.cost_variance
        g0, g1 = p00 * x0 + p01 * x1, p01 * x0 + p11 * x1  # P x
        information = x0 * g0 + x1 * g1  # x' P x
        innovation = y - state.base * x0 - state.cost * x1
        deviation = math.sqrt(state.noise * (1.0 + information))
        score = max(-self.clip, min(self.clip, innovation / deviation))
        up = max(0.0, state.up + score - self.slack)
        down = max(0.0, state.down - score - self.slack)
        if max(up, down) > self.decision:
            return self._step(state, cpu, completions, window)
        if information > 1e-12:
            kept = self.forgetting - (1.0 - self.forgetting) / information
            divisor = 1.0 / kept + information if abs(kept) > 1e-9 else math.inf
            p00, p01, p11 = p00 - g0 * g0 / divisor, p01 - g0 * g1 / divisor, p11 - g1 * g1 / divisor
        step = score * deviation / (1.0 + information)
        served = state.served + (completions > 0)
        noise = state.noise * (1.0 + (score * score - 1.0) / min(served + 3, self.noise_memory))
        noise = max(noise, 1e-6 * state.cost * state.cost, _TINY)
        return CostState(state.base + g0 * step, state.cost + g1 * step, noise, p00, p01, p11, up, down, served)

    def _first(self, state: CostState, cpu: float, completions: float, window: float) -> CostState:
        """Until a request is served: the base is what idle intervals use, and the first cost is what remains."""
        if completions == 0.0:
            variance = state.base_variance / (1.0 + state.base_variance * window * window)
            base = state.base + variance * window * (cpu - state.base * window)
            return CostState(base, 0.0, 0.0, variance, 0.0, 0.0)
        cost = (cpu - max(0.0, state.base) * window) / completions
        if cost * cost <= _TINY or cost < 0.0:
            # Too coarse a counter to have seen the work of these requests yet.
            return state._replace(carried_cpu=cpu, carried_completions=completions, carried_window=window)
        # One request's work may vary by as much as its mean until more of them are seen.
        return self._restart(state, cost, cost * cost, completions, window)

    def _step(self, state: CostState, cpu: float, completions: float, window: float) -> CostState:
        """After an alarm: what this interval alone says, to be corrected by the next ones."""
        if completions == 0.0:
            return state._replace(
                base=cpu / window,
                base_variance=self.base_prior**2,
                covariance=0.0,
                up=0.0,
                down=0.0,
                carried_cpu=0.0,
                carried_completions=0.0,
                carried_window=0.0,
            )
        cost = max(0.0, cpu - max(0.0, state.base) * window) / completions
        return self._restart(state, cost, max(state.noise, 0.01 * cost * cost), completions, window)

    def _restart(self, state: CostState, cost: float, noise: float, completions: float, window: float) -> CostState:
        """The posterior of one row with nothing known of the cost before it."""
        p00 = min(state.base_variance, self.base_prior**2)
        share = window / completions
        return CostState(
            state.base, cost, noise, p00, -p00 * share, (1.0 + p00 * window * share) / completions, served=1
        )

    def estimate(self, state: CostState | None) -> CostEstimate | None:
        """Cost and base, neither below 0; None before the first request was served."""
        if state is None or not state.served:
            return None
        base, cost = state.base, state.cost
        if base < 0.0:
            # The least-squares cost where the base is held at 0.
            cost -= state.covariance / state.base_variance * base
            base = 0.0
        return CostEstimate(max(0.0, cost), math.sqrt(max(0.0, state.noise * state.cost_variance)), base)
