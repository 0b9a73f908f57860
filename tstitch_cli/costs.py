"""Predicted seconds of one call, from a profile's cost per evaluation.

The paper's cost C_k (arXiv 2402.14167, A.1) is one number, a whole trajectory of D_k, so that sum r_k C_k is the cost
of fractions r. Ours is per evaluation, the first and the last told apart, plus what a call costs besides:

    time(allocation) = encode + sum over evaluations + switch of each denoiser that takes over + decode + write

The conversion between the two stands here and nowhere else: `per_evaluation_s` one way, `CostModel.trajectory_s` the
other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from tstitch_cli.allocation import Allocation, collapse, expand
from tstitch_cli.combinations import intervals
from tstitch_cli.schema import DenoiserProfile, Profile, Times

P95 = 0.95
NANOSECONDS = 9
"""Decimals of predicted seconds: no clock tells more, and equal times come out equal in whatever order they add up."""


def per_evaluation_s(trajectory_s: float, evaluations: int) -> float:
    """The paper's C_k, seconds of a whole trajectory, as seconds of one of its evaluations, all taken as equal."""
    return trajectory_s / evaluations


class CostModel:
    """What a profile predicts for any allocation of its T steps to its K denoisers."""

    def __init__(self, profile: Profile) -> None:
        evaluations = profile.evaluations_per_step()
        fixed = profile.fixed
        self.names = tuple(denoiser.name for denoiser in profile.denoisers)
        self.fixed_s = fixed.encode_s.mean + fixed.decode_s.mean + fixed.write_s.mean
        self.elapsed_s = np.array([_elapsed(denoiser, evaluations) for denoiser in profile.denoisers])
        """(K, T + 1): seconds of denoiser k's evaluations in the first t steps."""
        self._switch_s = [denoiser.switch_s.mean for denoiser in profile.denoisers]
        self._quantiles = sorted((float(name.removeprefix("p")) / 100, ratio) for name, ratio in profile.spread.items())
        self._index = {name: index for index, name in enumerate(self.names)}

    def mean_s(self, allocation: Iterable[tuple[str, int]]) -> float:
        """Mean seconds of a call with this allocation, in any order and with any number of switches."""
        total, before = self.fixed_s, 0
        for name, steps in collapse(expand(allocation)):
            k, after = self._index[name], before + steps
            total += float(self.elapsed_s[k, after] - self.elapsed_s[k, before])
            if before:
                total += self._switch_s[k]
            before = after
        return float(np.round(total, NANOSECONDS))

    def mean_s_of_steps(self, steps: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
        """`mean_s` of every row of `steps` (N, K), taken in the order of the profile; returns (N,) seconds."""
        total = np.full(len(steps), self.fixed_s)
        for k, (before, after) in enumerate(intervals(steps)):
            total += self.elapsed_s[k][after] - self.elapsed_s[k][before]
            if self._switch_s[k]:
                total += np.where((before > 0) & (after > before), self._switch_s[k], 0.0)
        return np.round(total, NANOSECONDS)

    def denoising_s_of_steps(self, steps: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
        """Seconds of the evaluations alone of every row of `steps` (N, K); returns (N,)."""
        total = np.zeros(len(steps))
        for k, (before, after) in enumerate(intervals(steps)):
            total += self.elapsed_s[k][after] - self.elapsed_s[k][before]
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


def _elapsed(denoiser: DenoiserProfile, evaluations: Sequence[int]) -> npt.NDArray[np.float64]:
    """Seconds of the denoiser's evaluations up to the end of each step, (T + 1,) beginning with 0."""
    done = np.concatenate(([0], np.cumsum(evaluations)))
    # A trajectory of one evaluation begins cold, so it counts as a first one.
    elapsed = np.where(done > 0, denoiser.first_s.mean + (done - 1) * denoiser.steady_s.mean, 0.0)
    if done[-1] > 1:
        elapsed[-1] += denoiser.last_s.mean - denoiser.steady_s.mean
    return elapsed
