"""Looks into the trajectories of a family: do its denoisers predict alike, and which frequencies come when.

Agreement is that of the profile (figure 3 of arXiv 2402.14167). The frequencies are the paper's figure 11: every
denoiser draws the same noise alone, and the latents x_t after each step are Fourier-transformed and averaged over
rings of equal frequency. The amplitude of a ring is the root of its mean power over the pictures and channels, so
that white noise of unit variance has 1 in every ring and a logarithm of 0:

    log10 sqrt(mean |F x_t|^2 / (h w))

When a frequency is decided is told by its coherence with the same trajectory's final latent,

    Re sum F x_t conj(F x_0) / sqrt(sum |F x_t|^2  sum |F x_0|^2),

the sums running over ring, pictures and channels: near 0 while it is noise, 1 at the end.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tstitch_cli import evaluations
from tstitch_cli.clocks import HostClock
from tstitch_cli.denoisers import Family
from tstitch_cli.errors import UsageError
from tstitch_cli.inputs import blank
from tstitch_cli.measuring import agreement
from tstitch_cli.schema import Agreement, Closeness, Setting
from tstitch_cli.trajectory import Batch, run

SETTLED = 0.9
"""The coherence with the final latent from which a frequency counts as decided."""

ALIKE = 0.99
"""The cosine similarity from which two predictions count as the same."""

Progress = Callable[[str, float], None]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Spectrum:
    """The frequencies of the latents of one denoiser's own trajectories, before the first step and after each."""

    log_amplitude: tuple[tuple[float, ...], ...]
    """(T + 1, F) log10 of the amplitude; 0 is white noise of unit variance."""
    coherence: tuple[tuple[float, ...], ...]
    """(T + 1, F) with the final latent, in [-1, 1]."""

    def settled(self) -> tuple[int, ...]:
        """(F,) the step after which each frequency keeps a coherence of at least SETTLED."""
        late = np.asarray(self.coherence) < SETTLED
        return tuple(int(steps[-1]) + 1 if len(steps := np.flatnonzero(ring)) else 0 for ring in late.T)


@dataclass(frozen=True)
class Analysis:
    """What was seen of a family in one setting."""

    setting: Setting
    largest: str
    pictures: int
    seed: int
    frequencies: tuple[float, ...]
    """(F,) in cycles per pixel of the latent, 0 to 0.5."""
    spectra: dict[str, Spectrum]
    """Of every denoiser, smallest first."""
    agreement: Agreement | None
    """None where guidance is not linear, so that predictions cannot be compared."""


def alike_for(closeness: Closeness) -> int:
    """The number of first steps in all of which a denoiser predicts as the largest one does, on average."""
    other = np.flatnonzero(np.asarray(closeness.cosine) < ALIKE)
    return int(other[0]) if len(other) else len(closeness.cosine)


def analyze(
    family: Family,
    pictures: int,
    seed: int = 0,
    known: Agreement | None = None,
    *,
    progress: Progress = lambda doing, share: None,
) -> Analysis:
    """Draws `pictures` pictures with every denoiser of `family` alone and looks at the latents.

    Agreement is measured along as many trajectories of the largest one, unless it is `known` from a profile.
    Raises UsageError where the latents have no two sides, and what `trajectory.run` raises.
    """
    setting, size = family.setting, family.setting.batch_size
    batches = [
        Batch(
            family.example_prompts(len(some), some[0]),
            tuple(some),
            seed,
            given=blank(setting),
        )
        for some in (range(first, min(first + size, pictures)) for first in range(0, pictures, size))
    ]
    spectra: dict[str, Spectrum] = {}
    work = len(family.denoisers) + (known is None)
    counts: tuple[int, ...] = ()
    rings = _Rings((1, 1))
    for done, name in enumerate(family.denoisers):
        progress(f"{name} alone", done / work)
        latents = []
        for batch in batches:
            with _latents(family.pipeline.scheduler) as seen:
                made = run(family, batch, name, HostClock(), strict=False)
            counts = evaluations.per_step(family.pipeline.scheduler, setting.taken, len(made.realised))
            latents.append(torch.stack([seen[0], *(seen[end] for end in np.cumsum(counts))]))
        drawn = torch.cat(latents, dim=1)
        rings = _Rings(tuple(drawn.shape[-2:]))
        spectra[name] = _spectrum(drawn, rings)
    if known is None:
        progress("comparing predictions", (work - 1) / work)
        known = agreement.measure(family, batches, counts)
    frequencies = tuple(float(f"{f:.5g}") for f in rings.frequencies)
    return Analysis(setting, family.stitched.host, pictures, seed, frequencies, spectra, known)


@contextmanager
def _latents(scheduler: Any) -> Iterator[list[torch.Tensor]]:
    """The latents (B, ..., h, w) that `scheduler` is first given, then those it returns, evaluation by evaluation."""
    plain: Callable[..., Any] = scheduler.step
    seen: list[torch.Tensor] = []

    @functools.wraps(plain)
    def step(*args: Any, **kwargs: Any) -> Any:
        result = plain(*args, **kwargs)
        if not seen:
            seen.append((kwargs["sample"] if "sample" in kwargs else args[2]).detach().double().cpu())
        seen.append(result[0].detach().double().cpu())
        return result

    scheduler.step = step
    try:
        yield seen
    finally:
        del scheduler.step


class _Rings:
    """Rings of equal frequency in the Fourier transform of pictures of `sides` (h, w), as wide as its coarsest step."""

    def __init__(self, sides: Sequence[int]) -> None:
        shorter = min(sides)
        radius = np.hypot(np.fft.fftfreq(sides[0])[:, None], np.fft.fftfreq(sides[1])[None, :])
        self.number = np.rint(radius * shorter).astype(int)
        """(h, w); the corners beyond half a cycle per pixel have numbers above the last ring's."""
        self.count = shorter // 2 + 1
        self.frequencies = np.arange(self.count) / shorter

    def sums(self, values: Floats) -> Floats:
        """(T, h, w) -> (T, F): summed over each ring."""
        return np.stack([values[:, self.number == k].sum(axis=1) for k in range(self.count)], axis=1)

    def sizes(self) -> Floats:
        """(F,) how many coefficients each ring has."""
        return np.array([(self.number == k).sum() for k in range(self.count)], dtype=np.float64)


def _spectrum(latents: torch.Tensor, rings: _Rings) -> Spectrum:
    """Of latents (T + 1, B, ..., h, w); raises UsageError for those that are sequences and not pictures."""
    if latents.dim() < 5:
        raise UsageError(
            "these latents are packed into a sequence, so they have no frequencies to look at",
            hint="analyze a family whose latents are pictures",
        )
    height, width = latents.shape[-2:]
    transformed = torch.fft.fft2(latents).reshape(len(latents), -1, height, width).numpy()
    power = rings.sums((np.abs(transformed) ** 2).sum(axis=1))
    cross = rings.sums((transformed * transformed[-1:].conj()).real.sum(axis=1))
    mean = power / (rings.sizes() * transformed.shape[1] * height * width)
    coherence = cross / np.sqrt(power * power[-1:])
    return Spectrum(_rounded(np.log10(np.sqrt(mean))), _rounded(coherence))


def _rounded(values: Floats) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(f"{value:.5g}") for value in row) for row in values)
