"""What a plan seeks within its budget: M(r) of A.1, one replaceable function."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tstitch_cli.allocation import expand
from tstitch_cli.errors import UsageError
from tstitch_cli.planning.combinations import intervals
from tstitch_cli.planning.costs import CostModel
from tstitch_cli.quality.metrics import METRICS
from tstitch_cli.schema import Agreement, Profile


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


def least_loss(profile: Profile, steps: npt.NDArray[np.integer], /) -> npt.NDArray[np.float64]:
    """The predicted loss, negated: how far the allocation moves the final latent from the largest denoiser's.

    See `tstitch_cli.measuring.agreement` for its derivation. Raises UsageError where agreement was not measured.
    """
    if profile.agreement is None:
        raise UsageError(
            "the profile has no agreement, so no loss can be predicted",
            hint="profile again without --no-agreement, or plan with --maximize compute",
        )
    total = np.zeros(len(steps))
    for denoiser, (before, after) in zip(profile.denoisers, intervals(steps), strict=True):
        if denoiser.name != profile.agreement.largest:
            elapsed = np.concatenate(([0.0], np.cumsum(_weighted(profile.agreement, denoiser.name).mean(axis=0))))
            total -= elapsed[after] - elapsed[before]
    # Sums of the same losses in another order are the same loss.
    return np.round(total, 12)


@dataclass(frozen=True)
class Best:
    """A metric of `metrics.METRICS` as what is sought: the best measured one, whichever way is better."""

    metric: str

    @property
    def __name__(self) -> str:
        """What a plan calls it."""
        return self.metric


def named(name: str) -> Objective | Best:
    """The objective that `--maximize` names; raises UsageError with all names otherwise."""
    known: dict[str, Objective | Best] = {"agreement": least_loss, "compute": most_compute}
    known |= {metric: Best(metric) for metric in METRICS}
    if name not in known:
        raise UsageError(f"{name[:40]!r} is nothing to maximise", hint=f"use {', '.join(known)}")
    return known[name]


def best_known(profile: Profile) -> Objective:
    """The best objective that `profile` has the measurements for."""
    return most_compute if profile.agreement is None else least_loss


def loss_of(agreement: Agreement, allocation: Iterable[tuple[str, int]]) -> npt.NDArray[np.float64]:
    """(pictures,): the predicted loss of an allocation, in any order, for every picture that was measured."""
    taken = expand(allocation)
    pictures = len(next(iter(agreement.denoisers.values())).rms)
    total = np.zeros(pictures)
    for name in set(taken) - {agreement.largest}:
        total += _weighted(agreement, name)[:, [taken[t] == name for t in range(len(taken))]].sum(axis=1)
    return total


def not_worth_their_time(profile: Profile) -> dict[str, str]:
    """Denoiser -> a cheaper one that agrees with the largest at least as well over the whole trajectory."""
    found: dict[str, str] = {}
    if (agreement := profile.agreement) is None:
        return found
    steps = profile.setting.taken
    loss = {d.name: float(loss_of(agreement, ((d.name, steps),)).mean()) for d in profile.denoisers}
    for i, dearer in enumerate(profile.denoisers):
        cheaper = [d.name for d in profile.denoisers[:i] if loss[d.name] <= loss[dearer.name]]
        if cheaper:
            found[dearer.name] = cheaper[0]
    return found


def compute_of(profile: Profile, allocation: Iterable[tuple[str, int]]) -> float:
    """`most_compute` of an allocation in any order."""
    counts = profile.evaluations_per_step()
    flops = {denoiser.name: denoiser.flops for denoiser in profile.denoisers}
    if any(each is None for each in flops.values()):
        model = CostModel(profile)
        return model.mean_s(allocation) - model.fixed_s
    return sum((flops[name] or 0.0) * n for name, n in zip(expand(allocation), counts, strict=True))


def picture_losses(agreement: Agreement, name: str, steps: int) -> npt.NDArray[np.float64]:
    """(pictures, T): predicted loss of every step that the denoiser `name` takes; none of the largest's."""
    if name != agreement.largest:
        return _weighted(agreement, name)
    return np.zeros((len(next(iter(agreement.denoisers.values())).rms), steps))


def _weighted(agreement: Agreement, name: str) -> npt.NDArray[np.float64]:
    """(pictures, T): the weighted difference of every step."""
    return np.asarray(agreement.denoisers[name].rms) * np.asarray(agreement.weights)
