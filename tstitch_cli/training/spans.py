"""Which training timesteps a plan gives a denoiser: the ones that its steps cover.

A sampler calls its denoiser at the timesteps t_1 > t_2 > ... > t_T, of the thousand or so that it was trained on. A
denoiser that takes the steps a ... b sees t_a ... t_b, and what it learns there it learns from their neighbours as
well. So it is trained on the half-open span from the timestep of its first step down to that of the first step after
its last,

    t_{b+1} < t <= t_a,    with nothing below for the step after the last, t_{T+1},

and the spans of one plan's denoisers are disjoint and cover all that the trajectory passes through. Above t_1 no
sampler ever asks, so nothing is trained there. A denoiser with several runs of steps has as many spans, from which
timesteps are drawn uniformly as from one. The timesteps are the running scheduler's; where the denoiser was trained on
another noise schedule they are carried over to its own at equal noise (see `matching`). For a flow, whose time is
continuous, so are the spans.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch

from tstitch_cli.allocation import Allocation
from tstitch_cli.bridges.matching import Match
from tstitch_cli.errors import UsageError
from tstitch_cli.zoo.entry import Noise

Span = tuple[float, float]
"""(after, upto): the timesteps t with after < t <= upto."""


@dataclass(frozen=True)
class Spans:
    """Disjoint spans of a denoiser's own training timesteps, noisiest first."""

    each: tuple[Span, ...]
    continuous: bool
    """Whether the timesteps between whole ones are meant too, as for a flow."""

    def whole(self) -> torch.Tensor:
        """(M,) int64: the whole timesteps in the spans; of a span without any, the one nearest to its upper end."""
        found: list[int] = []
        for after, upto in self.each:
            inside = range(math.floor(after) + 1, math.floor(upto) + 1)
            found += inside or [round(upto)]
        return torch.tensor(sorted(set(found)))

    def draw(self, count: int, draw: torch.Generator) -> torch.Tensor:
        """(count,) timesteps, each as likely as any other; int64, or float32 where they are continuous."""
        if not self.continuous:
            table = self.whole()
            return table[torch.randint(len(table), (count,), generator=draw)]
        lengths = torch.tensor([upto - after for after, upto in self.each])
        along = (1.0 - torch.rand(count, generator=draw)) * lengths.sum()  # above 0, so that no noise is never drawn
        before = torch.tensor([0.0, *accumulate(lengths.tolist())])
        which = (torch.bucketize(along, before) - 1).clamp(0, len(lengths) - 1)
        return torch.tensor([after for after, _ in self.each])[which] + along - before[which]

    @property
    def words(self) -> str:
        """Such as `0 to 150, 451 to 950`, and `0 to 312.5` for a flow."""
        lowest = [f"{after:g}" if self.continuous else f"{math.floor(after) + 1}" for after, _ in self.each]
        parts = [f"{low} to {upto:g}" for low, (_, upto) in zip(lowest, self.each, strict=True)]
        return ", ".join(reversed(parts))


def spans_of(
    name: str, allocation: Allocation, timesteps: Sequence[float], evaluations: Sequence[int], match: Match
) -> Spans:
    """The spans of the denoiser `name` in `allocation`; see the module.

    `timesteps` has the running scheduler's timestep of every evaluation, `evaluations` (T,) how many each step makes,
    and `match` carries a timestep over to the denoiser's own schedule.

    Raises:
        UsageError: the allocation gives the denoiser no steps.
    """
    starts = [0, *accumulate(evaluations)]
    own = [match.step(timesteps[start]).timestep for start in starts[:-1]]
    flow = match.guest.noise.prediction == "flow"
    own.append(0.0 if flow else -1.0)
    found: list[Span] = []
    first = 0
    for denoiser, count in allocation:
        if denoiser == name and count:
            found.append((own[first + count], own[first]))
        first += count
    if not found:
        raise UsageError(
            f"the plan gives {name} no steps, so there is nothing to train it for",
            hint="take another row with --row, or plan for another budget",
        )
    return Spans(tuple(found), flow)


def everything(noise: Noise) -> Spans:
    """All training timesteps of a denoiser."""
    flow = noise.prediction == "flow"
    return Spans(((0.0, float(noise.train_steps)),) if flow else ((-1.0, float(noise.train_steps - 1)),), flow)
