"""What any assignment of denoisers to steps costs and loses, in any order, where every step's share is its own.

That is so wherever nothing is cached: what a step costs depends on who takes it, and on whether another took the one
before.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tstitch_cli.errors import UsageError
from tstitch_cli.planning.costs import NANOSECONDS, CostModel
from tstitch_cli.planning.objectives import picture_losses
from tstitch_cli.schema import Profile

Floats = npt.NDArray[np.float64]
Taken = npt.NDArray[np.integer]
"""(N, T): the index of the denoiser that takes each step."""


@dataclass(frozen=True)
class PerStep:
    """The shares of a profile's steps, by denoiser, cheapest first."""

    fixed_s: float
    step_s: Floats
    """(K, T)"""
    switch_s: Floats
    """(K,): of taking over."""
    compute: Floats
    """(K, T): floating-point operations, or seconds where they are unknown."""
    loss: Floats | None
    """(K, P, T): predicted loss, for every picture; None where agreement was not measured."""
    known: npt.NDArray[np.bool_]
    """(K, T): whether a denoiser knows a step's noise."""

    @classmethod
    def of(cls, profile: Profile, option: str) -> PerStep:
        """Of `profile`; raises UsageError, in the name of `option`, where steps are cached."""
        refuse_cached(profile, option)
        model, steps = CostModel(profile), profile.setting.taken
        step_s = np.diff(model.elapsed_s, axis=1)
        flops = [denoiser.flops for denoiser in profile.denoisers]
        evaluations = np.array(profile.evaluations_per_step(), dtype=float)
        known = np.ones(step_s.shape, dtype=bool)
        for k, denoiser in enumerate(profile.denoisers):
            if denoiser.knows is not None:
                known[k, : denoiser.knows[0] - 1] = known[k, denoiser.knows[1] :] = False
        agreement = profile.agreement
        return cls(
            fixed_s=model.fixed_s,
            step_s=step_s,
            switch_s=np.array([denoiser.switch_s.mean for denoiser in profile.denoisers]),
            compute=step_s if None in flops else np.array(flops, dtype=float)[:, None] * evaluations,
            loss=None if agreement is None else np.stack([picture_losses(agreement, n, steps) for n in model.names]),
            known=known,
        )

    def mean_s_of(self, taken: Taken) -> Floats:
        """(N,): mean seconds of a call."""
        entered = np.where(taken[:, 1:] != taken[:, :-1], self.switch_s[taken[:, 1:]], 0.0).sum(axis=1)
        return np.round(self.fixed_s + self._summed(self.step_s, taken) + entered, NANOSECONDS)

    def compute_of(self, taken: Taken) -> Floats:
        """(N,): the compute objective."""
        return self._summed(self.compute, taken)

    def loss_of(self, taken: Taken) -> Floats | None:
        """(N,): predicted loss on average, None where it is not known."""
        # Sums of the same losses in another order are the same loss.
        return None if self.loss is None else np.round(self._summed(self.loss.mean(axis=1), taken), 12)

    def known_of(self, taken: Taken) -> npt.NDArray[np.bool_]:
        """(N,): whether every denoiser is given only steps whose noise it knows."""
        return np.all(self.known[taken, np.arange(taken.shape[1])], axis=1)

    def _summed(self, shares: Floats, taken: Taken) -> Floats:
        total: Floats = shares[taken, np.arange(taken.shape[1])].sum(axis=1)
        return total


def refuse_cached(profile: Profile, option: str) -> None:
    """Raises UsageError where an evaluation's cost depends on what was computed before it."""
    if any(denoiser.cached_s or denoiser.course_s for denoiser in profile.denoisers):
        raise UsageError(
            f"{option} needs steps that cost the same after any switch, which those of a cache do not",
            hint=f"leave {option.split()[0]} out, or profile without the cache",
        )
