"""The arithmetic of matching two denoisers by noise level: each step of the one's trajectory in the other's terms.

Every denoiser sees x = alpha x0 + sigma e and is told where on its noise schedule that is; what it predicts is linear
in x0 and the noise e (Salimans & Ho, 2022, appendix D: epsilon, v, x0; Lipman et al., 2023: flow). So two of them mean
the same where the ratio sigma / alpha is the same (its logarithm is half the negative log-SNR of Kingma et al., 2021),
and between them lie three numbers: the other's timestep, a factor on x, and the two weights of

    prediction = from_x x + from_prediction (the other's prediction)

Latents scaled by another factor c = guest / host have another ratio for the same x: c sigma / alpha.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice

import numpy as np
import numpy.typing as npt

from tstitch_cli.zoo.entry import Entry, Noise, Prediction

_SLACK = 0.003
"""Levels this near to the end of a schedule, 0.3 % of the noise, are that end: training steps lie further apart."""
_LEAST_ALPHA_BAR = 2.0**-24
"""What diffusers' schedulers put for zero at the end of a schedule rescaled to zero terminal SNR."""


@dataclass(frozen=True)
class Frame:
    """How a denoiser, or the running trajectory, writes x down: its noise, and the factor on its latents."""

    noise: Noise
    scale: float = 1.0

    @property
    def lowest(self) -> float:
        """The least noisy level it knows, as log(sigma / alpha)."""
        return -math.inf if self.noise.prediction == "flow" else float(levels(self.noise)[0])

    @property
    def highest(self) -> float:
        """The noisiest level it knows; of a schedule that ends in pure noise there is none that is noisier."""
        endless = self.noise.prediction == "flow" or self.noise.zero_terminal_snr
        return math.inf if endless else float(levels(self.noise)[-1])

    def level(self, timestep: float) -> float:
        """log(sigma / alpha) at a timestep of its schedule, whole or between two, from 0 to `train_steps`."""
        if self.noise.prediction == "flow":
            s = timestep / self.noise.train_steps
            return -math.inf if s <= 0 else math.inf if s >= 1 else math.log(s) - math.log1p(-s)
        table = levels(self.noise)
        return float(np.interp(timestep, np.arange(len(table)), table))

    def timestep(self, level: float) -> float:
        """The inverse of `level`; below or above its schedule, the first or the last timestep."""
        if self.noise.prediction == "flow":
            return self.noise.train_steps * self.coefficients(level)[1]
        table = levels(self.noise)
        return float(np.interp(level, table, np.arange(len(table))))

    def coefficients(self, level: float) -> tuple[float, float]:
        """(alpha, sigma) at a level: alpha^2 + sigma^2 = 1 for diffusion, alpha + sigma = 1 for flow."""
        if self.noise.prediction == "flow":
            return _logistic(-level), _logistic(level)
        return math.sqrt(_logistic(-2 * level)), math.sqrt(_logistic(2 * level))


@dataclass(frozen=True)
class Step:
    """What stands between host and guest at one timestep."""

    timestep: float
    """The guest's."""
    x: float
    """The guest's x = this times the host's."""
    from_x: float
    from_prediction: float
    """The host's prediction = from_x (the host's x) + from_prediction (the guest's prediction)."""
    known: bool
    """Whether the guest's schedule has this noise level; elsewhere its nearest is taken, which no picture should be."""


@dataclass(frozen=True)
class Match:
    """A guest in a trajectory whose schedule, parametrisation and latents are the host's."""

    host: Frame
    guest: Frame

    @property
    def identical(self) -> bool:
        """Whether the two need nothing between them."""
        return self.same_levels and self.host.noise.prediction == self.guest.noise.prediction

    @property
    def same_levels(self) -> bool:
        """Whether a timestep means the same to both."""
        return self.host.scale == self.guest.scale and schedule(self.host.noise) == schedule(self.guest.noise)

    def step(self, timestep: float) -> Step:
        """What to do at the host's `timestep`, in its training steps."""
        c = self.guest.scale / self.host.scale
        asked = self.host.level(timestep) + math.log(c)
        level = min(max(asked, self.guest.lowest), self.guest.highest)
        alpha, sigma = self.host.coefficients(level - math.log(c))
        alpha_g, sigma_g = self.guest.coefficients(level)
        # The guest's prediction, like the host's, in terms of the host's x0 and the noise.
        g0, g1 = _of_x0_and_noise(self.guest.noise.prediction, alpha_g, sigma_g)
        h0, h1 = _of_x0_and_noise(self.host.noise.prediction, alpha, sigma)
        g0 *= c
        # from_x (alpha, sigma) + from_prediction (g0, g1) = (h0, h1), solved by Cramer's rule.
        determinant = alpha * g1 - sigma * g0
        return Step(
            timestep=timestep if self.same_levels else self.guest.timestep(level),
            # Two ways to write the same number; the one that does not divide by what may be 0.
            x=c * alpha_g / alpha if alpha > sigma else sigma_g / sigma,
            from_x=(h0 * g1 - h1 * g0) / determinant,
            from_prediction=(alpha * h1 - sigma * h0) / determinant,
            known=self.same_levels or asked == level or abs(asked - level) <= _SLACK,
        )


@cache
def levels(noise: Noise) -> npt.NDArray[np.float64]:
    """log(sigma / alpha) at every training timestep of a diffusion schedule, (train_steps,), rising."""
    betas = _betas(noise)
    alpha_bar = np.cumprod(1.0 - betas)
    if noise.snr_shift is not None:
        alpha_bar = alpha_bar / (noise.snr_shift + (1 - noise.snr_shift) * alpha_bar)
    if noise.zero_terminal_snr:
        # Lin et al., 2023, algorithm 1: sqrt(alpha_bar) shifted to end at 0 and scaled to begin as it did.
        root = np.sqrt(alpha_bar)
        alpha_bar = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
        alpha_bar[-1] = _LEAST_ALPHA_BAR
    table: npt.NDArray[np.float64] = 0.5 * (np.log1p(-alpha_bar) - np.log(alpha_bar))
    table.setflags(write=False)
    return table


def schedule(noise: Noise) -> tuple[object, ...]:
    """What of `noise` decides the level at each timestep."""
    flow = noise.prediction == "flow"
    betas = (noise.beta_schedule, noise.beta_start, noise.beta_end, noise.train_steps)
    return flow, *betas, noise.zero_terminal_snr, noise.snr_shift or 1.0


def known_steps(match: Match, timesteps: Sequence[float], evaluations: Sequence[int]) -> tuple[int, int] | None:
    """The first and last step, counted from 1, whose noise levels the guest knows; None where it knows none.

    `timesteps` has the host's timestep of every evaluation, `evaluations` how many each of the T steps makes. A step
    is known where all of its evaluations are.
    """
    each = iter([match.step(t).known for t in timesteps])
    known = [min(islice(each, count)) for count in evaluations]
    if not any(known):
        return None
    return known.index(True) + 1, len(known) - known[::-1].index(True)


def running(
    candidates: Sequence[Entry], entries: Sequence[Entry], scale: float, timesteps: Callable[[Entry], Sequence[float]]
) -> Entry:
    """The one of `candidates` whose noise schedule loses least: most of its timesteps are known to all `entries`.

    `scale` is the factor on the latents of the trajectory, `timesteps` gives those that a candidate's schedule would
    run. Of equals, the last one, so that `candidates` are given with the largest last.
    """

    def known_to_all(candidate: Entry) -> int:
        matches = [Match(Frame(candidate.noise, scale), frame(entry, scale)) for entry in entries]
        return sum(all(match.step(t).known for match in matches) for t in timesteps(candidate))

    return max(reversed(candidates), key=known_to_all)


def frame(entry: Entry, scale: float) -> Frame:
    """The frame of `entry`; `scale` holds where its latents' factor has not been read."""
    own = entry.latent_space.scaling_factor
    return Frame(entry.noise, scale if own is None else own)


def _betas(noise: Noise) -> npt.NDArray[np.float64]:
    """The variances added at each training timestep, as diffusers' schedulers spell their schedules."""
    count, start, end = noise.train_steps, noise.beta_start or 0.0, noise.beta_end or 0.0
    if noise.beta_schedule == "squaredcos_cap_v2":
        # Nichol & Dhariwal, 2021, equation 17.
        bar = np.cos((np.arange(count + 1) / count + 0.008) / 1.008 * np.pi / 2) ** 2
        return np.minimum(1 - bar[1:] / bar[:-1], 0.999)
    if noise.beta_schedule == "scaled_linear":
        return np.linspace(start**0.5, end**0.5, count) ** 2
    if noise.beta_schedule == "sigmoid":
        return start + (end - start) / (1 + np.exp(-np.linspace(-6, 6, count)))
    return np.linspace(start, end, count)


def _of_x0_and_noise(prediction: Prediction, alpha: float, sigma: float) -> tuple[float, float]:
    """The weights of x0 and of the noise in what is predicted."""
    if prediction == "epsilon":
        return 0.0, 1.0
    if prediction == "sample":
        return 1.0, 0.0
    return (-sigma, alpha) if prediction == "v_prediction" else (-1.0, 1.0)


def _logistic(x: float) -> float:
    """1 / (1 + exp(-x)), infinities included."""
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0
