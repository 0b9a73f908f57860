"""What a plan maximises within its budget: M(r) of A.1, one replaceable function."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from tstitch_cli.combinations import intervals
from tstitch_cli.costs import CostModel
from tstitch_cli.schema import Profile


class Objective(Protocol):
    """A quality for every row of a lookup table, higher is better; its name is written into the plan."""

    __name__: str

    def __call__(self, profile: Profile, steps: npt.NDArray[np.integer], /) -> npt.NDArray[np.float64]:
        """`steps` (N, K) are the steps of each denoiser, cheapest first; returns (N,)."""
        ...


def most_compute(profile: Profile, steps: npt.NDArray[np.integer], /) -> npt.NDArray[np.float64]:
    """Floating-point operations of the trajectory, or its predicted seconds where a denoiser's are unknown.

    A stand-in while quality has not been measured: within a family, the dearer denoiser is the better one.
    """
    flops = [denoiser.flops for denoiser in profile.denoisers]
    known = [each for each in flops if each is not None]
    if len(known) < len(flops):
        return CostModel(profile).denoising_s_of_steps(steps)
    evaluations = np.concatenate(([0], np.cumsum(profile.evaluations_per_step())))
    total = np.zeros(len(steps))
    for each, (before, after) in zip(known, intervals(steps), strict=True):
        total += each * (evaluations[after] - evaluations[before])
    return total
