"""Shares by weight: the policies that need no SLO. Both fill the lowest level first (max-min fair)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headgate.core.filling import fill
from headgate.core.laminar import Floats, Ints
from headgate.core.policies.base import Division, by_class
from headgate.core.problem import Problem
from headgate.core.units import MILLI


@dataclass(frozen=True, slots=True)
class Proportional:
    """grant = clamp(t * weight * offered load, floor, ceiling) with the one t that spends the budget.

    Weighted max-min fair by offered load: pipelines of equal weight run at equal utilisation. Without load anywhere
    grant = clamp(t * weight); idle pipelines share by weight what the loaded ones cannot take. A higher priority
    class is satisfied, which is here up to its offered load, before a lower one gets anything above its floor.
    """

    name: str = "proportional"

    def divide(self, problem: Problem) -> Division:
        """The objective is the lowest grant / (weight * load) before rounding to steps; 0 when all are idle.

        1.0: with weights of 1, all load is just covered.
        """
        limits = problem.limits
        rate = limits.weight * problem.load
        loaded = rate > 0
        grants, ideal = by_class(problem, needed(problem.load), rate)
        grants = fill(limits, problem.space, grants, limits.ceiling, np.where(loaded, 0.0, limits.weight))
        return Division(grants, lowest(ideal, rate), per_cpu(rate), ideal=ideal)

    def explain(self, problem: Problem, division: Division, index: int) -> str:
        """Its share and its utilisation, now and with one more CPU."""
        load, grant = float(problem.load[index]), int(division.grants[index]) / MILLI
        if load <= 0:
            return "idle: shares by weight what the load leaves"
        if grant <= 0:
            return "share by weight x load"
        return f"share by weight x load, utilisation {load / grant:.0%}, with one more CPU {load / (grant + 1):.0%}"


@dataclass(frozen=True, slots=True)
class Equal:
    """grant = clamp(t * weight, floor, ceiling): the same for all of one weight, whatever their load.

    A higher priority class gets its offered load before a lower one gets anything above its floor.
    """

    name: str = "equal"

    def divide(self, problem: Problem) -> Division:
        """The objective is the lowest grant / weight before rounding to steps, in CPUs."""
        limits = problem.limits
        grants, ideal = by_class(problem, needed(problem.load), limits.weight)
        return Division(grants, lowest(ideal, limits.weight), per_cpu(limits.weight), ideal=ideal)

    def explain(self, problem: Problem, division: Division, index: int) -> str:  # noqa: ARG002
        """That it is the same for all."""
        return f"share by weight {problem.limits.weight[index]:g}, whatever the load"


def needed(load: Floats) -> Ints:
    """Millicores that cover `load` CPUs; a whisker less than a millicore is rounding."""
    return np.ceil(np.asarray(load) * MILLI - 1e-6).astype(np.int64)


def lowest(grants: Floats, rate: Floats) -> float:
    """The lowest grant / rate in CPUs of those with a rate; 0 when there are none."""
    rated = rate > 0
    return float((grants[rated] / rate[rated]).min() / MILLI) if rated.any() else 0.0


def per_cpu(rate: Floats) -> Floats:
    """By how much one CPU raises grant / rate."""
    return np.divide(1.0, rate, out=np.zeros(len(rate)), where=rate > 0)
