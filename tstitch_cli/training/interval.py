"""Trains a denoiser on some of its timesteps alone, as it was trained at first (appendix A.12 of arXiv 2402.14167)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from tstitch_cli.bridges.matching import levels
from tstitch_cli.training.conditions import Conditions
from tstitch_cli.training.latents import Latents
from tstitch_cli.training.loop import Schedule
from tstitch_cli.training.spans import Spans
from tstitch_cli.zoo.entry import Noise

DROPOUT = 0.1
"""Share of the pictures of which nothing is told, for guidance (Ho & Salimans, 2022)."""


class IntervalRecipe:
    """Squared error of what the denoiser predicts: the noise, v (Salimans & Ho, 2022), x0, or a flow's velocity.

    Of an output with learned variance the half that predicts the mean is trained; the variance stays what the shared
    layers make of it. Every timestep of the spans counts alike.
    """

    def __init__(
        self,
        name: str,
        schedule: Schedule,
        denoiser: nn.Module,
        trained: nn.Module,
        noise: Noise,
        spans: Spans,
        latents: Latents,
        conditions: Conditions,
        *,
        x_name: str,
        time_unit: float,
        pack: Callable[[torch.Tensor], torch.Tensor] = lambda x: x,
    ) -> None:
        """`trained` holds the parameters of `denoiser` that are trained: itself, or those of its LoRA.

        The denoiser calls its x `x_name`, and is shown timesteps times `time_unit`. `pack` brings latents into the form
        that it takes.
        """
        self.name, self.schedule, self.model, self.examples = name, schedule, trained, len(latents)
        self.denoiser, self.spans, self.latents, self.conditions = denoiser, spans, latents, conditions
        self.noise, self.x_name, self.time_unit, self.pack = noise, x_name, time_unit, pack
        self._levels = None if noise.prediction == "flow" else torch.from_numpy(levels(noise).copy())
        self._parameter = next(denoiser.parameters())
        self._predict: Callable[..., Any] = denoiser

    def compile(self) -> None:
        """See `Recipe`."""
        self._predict = torch.compile(self.denoiser)

    def loss(self, indices: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
        """See `Recipe`."""
        x0 = self.latents.draw(indices, draw)
        noise = torch.randn(x0.shape, generator=draw)
        t = self.spans.draw(len(x0), draw)
        dropped = torch.rand(len(x0), generator=draw) < DROPOUT
        x, target = noised(x0, noise, t, self.noise, self._levels)
        device = self._parameter.device
        predicted = self._predict(
            **{self.x_name: self.pack(x).to(device, self._parameter.dtype)},
            timestep=_shown(t, self.time_unit).to(device),
            **self.conditions.of(indices, dropped),
            return_dict=False,
        )[0]
        wanted = self.pack(target).to(device)
        return (predicted[:, : wanted.shape[1]].float() - wanted).square().mean()


def noised(
    x0: torch.Tensor, noise: torch.Tensor, t: torch.Tensor, kind: Noise, table: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """(x_t, what is to be predicted from it) for latents and noise (B, C, h, w) at timesteps `t` (B,).

    `table` has log(sigma / alpha) of every training timestep (see `matching.levels`), None for a flow.
    """
    if table is None:
        sigma = (t.double() / kind.train_steps).float().view(-1, 1, 1, 1)
        return (1.0 - sigma) * x0 + sigma * noise, noise - x0
    at = table[t]
    alpha = torch.sigmoid(-2.0 * at).sqrt().float().view(-1, 1, 1, 1)
    sigma = torch.sigmoid(2.0 * at).sqrt().float().view(-1, 1, 1, 1)
    target = {"epsilon": noise, "sample": x0, "v_prediction": alpha * noise - sigma * x0}[kind.prediction]
    return alpha * x0 + sigma * noise, target


def _shown(t: torch.Tensor, unit: float) -> torch.Tensor:
    return t if unit == 1.0 else t.float() * unit
