"""Predicted seconds of one call, from a profile's cost per evaluation.

The paper's cost C_k (arXiv 2402.14167, A.1) is one number, a whole trajectory of D_k, so that sum r_k C_k is the cost
of fractions r. Ours is per evaluation, the first and the last told apart, plus what a call costs besides:

    time(allocation) = encode + sum over evaluations + switch of each denoiser that takes over + decode + write

Where a cache works in a known rhythm, an evaluation's cost depends on its place since the denoiser took over, for
there the cache starts anew; where a cache decides by what it sees, on the step.

The conversion between the two stands here and nowhere else: `per_evaluation_s` one way, `CostModel.trajectory_s` the
other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tstitch_cli.allocation import Allocation, collapse, expand
from tstitch_cli.planning.combinations import intervals
from tstitch_cli.savings.accelerations import is_full
from tstitch_cli.schema import DenoiserProfile, Profile, Setting, Times

P95 = 0.95
NANOSECONDS = 9
"""Decimals of predicted seconds: no clock tells more, and equal times come out equal in whatever order they add up."""


def per_evaluation_s(trajectory_s: float, evaluations: int) -> float:
    """The paper's C_k, seconds of a whole trajectory, as seconds of one of its evaluations, all taken as equal."""
    return trajectory_s / evaluations


class CostModel:
    """What a profile predicts for any allocation of its T steps to its K denoisers."""

    def __init__(self, profile: Profile) -> None:
        fixed = profile.fixed
        self.names = tuple(denoiser.name for denoiser in profile.denoisers)
        self.fixed_s = fixed.encode_s.mean + fixed.decode_s.mean + fixed.write_s.mean
        self._done = np.concatenate(([0], np.cumsum(profile.evaluations_per_step())))
        """(T + 1,): evaluations up to the end of each step."""
        self._courses = [_Course.of(d, profile.setting, int(self._done[-1])) for d in profile.denoisers]
        steps = np.arange(len(self._done))
        self.elapsed_s = np.array([self._interval_s(k, np.zeros_like(steps), steps) for k in range(len(self.names))])
        """(K, T + 1): seconds of denoiser k's evaluations in the first t steps."""
        self._switch_s = [denoiser.switch_s.mean for denoiser in profile.denoisers]
        self._quantiles = sorted((float(name.removeprefix("p")) / 100, ratio) for name, ratio in profile.spread.items())
        self._index = {name: index for index, name in enumerate(self.names)}

    def mean_s(self, allocation: Iterable[tuple[str, int]]) -> float:
        """Mean seconds of a call with this allocation, in any order and with any number of switches."""
        total, before = self.fixed_s, 0
        for name, steps in collapse(expand(allocation)):
            k, after = self._index[name], before + steps
            total += float(self._interval_s(k, np.array(before), np.array(after)))
            if before:
                total += self._switch_s[k]
            before = after
        return float(np.round(total, NANOSECONDS))

    def _interval_s(
        self, k: int, before: npt.NDArray[np.integer], after: npt.NDArray[np.integer]
    ) -> npt.NDArray[np.float64]:
        """Seconds of denoiser k's evaluations in the steps from `before` up to `after`, both of any one shape."""
        course, begun, done = self._courses[k], self._done[before], self._done[after]
        total = course.runs_s(begun, done) + np.where((done > begun) & (begun == 0), course.first_s, 0.0)
        return total + np.where((done > begun) & (done == self._done[-1]), course.last_s, 0.0)

    def mean_s_of_steps(self, steps: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
        """`mean_s` of every row of `steps` (N, K), taken in the order of the profile; returns (N,) seconds."""
        total = np.full(len(steps), self.fixed_s)
        for k, (before, after) in enumerate(intervals(steps)):
            total += self._interval_s(k, before, after)
            if self._switch_s[k]:
                total += np.where((before > 0) & (after > before), self._switch_s[k], 0.0)
        return np.round(total, NANOSECONDS)

    def denoising_s_of_steps(self, steps: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
        """Seconds of the evaluations alone of every row of `steps` (N, K); returns (N,)."""
        total = np.zeros(len(steps))
        for k, (before, after) in enumerate(intervals(steps)):
            total += self._interval_s(k, before, after)
        return np.round(total, NANOSECONDS)

    def trajectory_s(self, name: str) -> float:
        """The paper's C_k: seconds of the evaluations of a whole trajectory of one denoiser."""
        return float(self.elapsed_s[self._index[name], -1])

    def alone(self, name: str) -> Allocation:
        """The allocation that gives every step to one denoiser."""
        return ((name, self.elapsed_s.shape[1] - 1),)

    def largest_alone_s(self, quantile: float | None) -> float:
        """Seconds of a call with the largest denoiser alone, at a quantile or on average."""
        return self.at_quantile(self.mean_s(self.alone(self.names[-1])), quantile)

    def ratio(self, quantile: float | None) -> float:
        """A call's seconds at a quantile over their predicted mean; 1 for the mean (None).

        Interpolated between the measured quantiles; outside of them, the nearest one's.
        """
        if quantile is None:
            return 1.0
        quantiles, ratios = zip(*self._quantiles, strict=True)
        return float(np.interp(quantile, quantiles, ratios))

    def at_quantile(self, mean_s: float, quantile: float | None) -> float:
        """Seconds that a share `quantile` of the calls with this predicted mean stay within."""
        return mean_s * self.ratio(quantile)

    def times(self, allocation: Iterable[tuple[str, int]], quantile: float | None = P95) -> Times:
        """Mean, p95 and the asked quantile of a call with this allocation."""
        mean = self.mean_s(allocation)
        return Times(mean, self.at_quantile(mean, P95), self.at_quantile(mean, quantile))


@dataclass(frozen=True)
class _Course:
    """What a run of evaluations of one denoiser costs."""

    entry_s: float
    """Seconds of its first evaluation."""
    sums_s: npt.NDArray[np.float64]
    """(E + 1,): seconds of n evaluations together, counted from the run's beginning or the trajectory's."""
    by_place: bool
    """Whether the place in the run tells what an evaluation costs, or the place in the trajectory."""
    first_s: float
    """Extra seconds of a trajectory's first evaluation."""
    last_s: float
    """Extra seconds of a trajectory's last evaluation."""

    @classmethod
    def of(cls, denoiser: DenoiserProfile, setting: Setting, evaluations: int) -> _Course:
        steady_s, cached_s = denoiser.steady_s.mean, (denoiser.cached_s or denoiser.steady_s).mean
        first = denoiser.first_s.mean - steady_s
        if denoiser.course_s:
            # A cache that watches computes more where the trajectory turns, whoever began when; the first evaluation
            # of a run is full, which `switch_s` was measured to be.
            return cls(steady_s, np.concatenate(([0.0], np.cumsum(denoiser.course_s))), False, first, 0.0)
        is_full_one = [is_full(setting, place) for place in range(evaluations)]
        full = np.concatenate(([0], np.cumsum(is_full_one)))
        sums_s = full * steady_s + (np.arange(evaluations + 1) - full) * cached_s
        # A trajectory of one evaluation begins cold, so it counts as a first one.
        last = denoiser.last_s.mean - (steady_s if is_full_one[-1] else cached_s) if evaluations > 1 else 0.0
        return cls(steady_s, sums_s, True, first, last)

    def runs_s(self, begun: npt.NDArray[np.integer], done: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
        """Seconds of the evaluations from number `begun` up to `done`, of any one shape; 0 where there are none."""
        if self.by_place:
            return self.sums_s[done - begun]
        later = self.sums_s[done] - self.sums_s[np.minimum(begun + 1, done)]
        return np.where(done > begun, self.entry_s + later, 0.0)
