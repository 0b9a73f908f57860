"""Whether calls that were measured anew keep what a plan promises of a row. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from statistics import NormalDist, fmean, stdev

import numpy as np

from tstitch_cli.allocation import Allocation
from tstitch_cli.measuring.drift import TOLERATED
from tstitch_cli.schema import Plan, Times

CHANCE = 0.05
"""A plan that holds is said not to hold once in this many times at most."""


@dataclass(frozen=True)
class Verdict:
    """A row, predicted and measured."""

    row: int
    allocation: Allocation
    predicted: Times
    limit_s: float
    """What the calls may take: the budget, or for a row that the plan says is beyond it, what it predicts."""
    quantile: float | None
    """The share of calls that shall stay within; None holds their mean against it."""
    seconds: tuple[float, ...]
    """Of each measured call."""

    @property
    def mean_s(self) -> float:
        """Mean of the measured calls."""
        return fmean(self.seconds)

    @property
    def within_s(self) -> float:
        """The measured time at the plan's quantile, or the mean where that is what the budget bounds."""
        return self.mean_s if self.quantile is None else float(np.quantile(self.seconds, self.quantile))

    @property
    def error(self) -> float:
        """Mean measured over mean predicted time, less 1."""
        return self.mean_s / self.predicted.mean - 1.0

    @property
    def drifted(self) -> bool:
        """Whether that is more than is tolerated, however it came."""
        return abs(self.error) > TOLERATED

    @property
    def missed(self) -> int:
        """Calls beyond the limit."""
        return sum(seconds > self.limit_s for seconds in self.seconds)

    @property
    def holds(self) -> bool:
        """Whether the calls are such as a plan that holds makes them, except once in 1 / CHANCE times.

        Of n calls that each stay within with probability q, m or more miss with the tail of the binomial distribution;
        a mean is held against the limit less 1.96 standard errors.
        """
        n = len(self.seconds)
        if self.quantile is None:
            error = stdev(self.seconds) / n**0.5 if n > 1 else 0.0
            return self.mean_s - NormalDist().inv_cdf(0.975) * error <= self.limit_s
        miss = 1.0 - self.quantile
        tail = sum(comb(n, k) * miss**k * self.quantile ** (n - k) for k in range(self.missed, n + 1))
        return tail >= CHANCE


def verdict(plan: Plan, index: int, seconds: Sequence[float]) -> Verdict:
    """Of row `index` of `plan`, whose calls took `seconds`, one at least."""
    row = plan.rows[index]
    limit_s = plan.budget.seconds if row.feasible else max(plan.budget.seconds, row.time_s.within)
    return Verdict(index, row.allocation, row.time_s, limit_s, plan.budget.quantile, tuple(seconds))
