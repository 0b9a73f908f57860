"""Distils a text-conditional U-Net into one that draws in a few steps (latent consistency models)."""

from __future__ import annotations

from copy import deepcopy

import torch
from diffusers import UNet2DConditionModel
from diffusers.pipelines.latent_consistency_models import LatentConsistencyModelPipeline

from tstitch_cli.training.loop import Schedule
from tstitch_cli.training.text_to_image import Examples, Noised, TextToImage, compile_blocks

GRID = 50
"""Timesteps of the solver whose trajectory is followed: a scheduler's `original_inference_steps`."""
GUIDANCE = (2.0, 10.0)
"""Scales of classifier-free guidance that the student learns to draw by."""
GUIDANCE_WIDTH = 64
"""Features of the guidance embedding: the U-Net's `time_cond_proj_dim`."""
SIGMA_DATA, TIME_SCALE = 0.5, 10.0
"""Of the boundary condition, as diffusers' LCMScheduler has them."""
HUBER = 0.001


def student_of(teacher: UNet2DConditionModel) -> UNet2DConditionModel:
    """The same U-Net with the same weights, that is told the guidance scale as well and at first ignores it."""
    config = {name: value for name, value in teacher.config.items() if not name.startswith("_")}
    student = UNet2DConditionModel.from_config(config | {"time_cond_proj_dim": GUIDANCE_WIDTH})
    missing, unexpected = student.load_state_dict(teacher.state_dict(), strict=False)
    if unexpected or missing != ["time_embedding.cond_proj.weight"]:
        raise ValueError(f"not the same U-Net: {missing} {unexpected}")
    torch.nn.init.zeros_(student.time_embedding.cond_proj.weight)
    return student


class ConsistencyRecipe:
    """Where a step of the teacher's guided trajectory begins and where it ends, the student foresees the same picture.

    Luo et al., 2023, equations 10 and 14, with the student itself, held fixed, as the target network (Song & Dhariwal,
    2024, find no use for an averaged one) and the pseudo-Huber distance of that work.
    """

    def __init__(self, name: str, schedule: Schedule, examples: Examples, teacher: TextToImage) -> None:
        """The text encoder is the teacher's and stays as it is."""
        self.name, self.schedule, self.examples = name, schedule, len(examples.scenes)
        self.table, self.noised = examples.table, Noised(examples)
        self.teacher = deepcopy(teacher).eval().requires_grad_(False)
        self.model = student_of(teacher.unet).to(memory_format=torch.channels_last)
        self._skip = len(self.noised.alphas_cumprod) // GRID

    def compile(self) -> None:
        """See `Recipe`."""
        compile_blocks(self.model)
        compile_blocks(self.teacher.unet)

    def loss(self, indices: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
        """See `Recipe`."""
        x0 = self.noised.latents(indices, draw)
        tokens = self.table.draw(self.noised.examples.scenes[indices], draw, dropout=0.0)
        noise = torch.randn(x0.shape, generator=draw)
        t = self._skip * torch.randint(1, GRID + 1, (len(x0),), generator=draw) - 1
        low, high = GUIDANCE
        scale = low + (high - low) * torch.rand(len(x0), generator=draw)
        x_t = self._add(x0, noise, t)
        with torch.no_grad():
            text = self.teacher.encoder(tokens).last_hidden_state
            empty = self.teacher.encoder(self.table.empty[None]).last_hidden_state.expand_as(text)
            before, x_before = self._solved(x_t, t, text, empty, scale)
            wanted = self._foreseen(x_before, before, text, scale)
        apart = self._foreseen(x_t, t, text, scale) - wanted
        return ((apart.square() + HUBER**2).sqrt() - HUBER).mean()

    def _solved(
        self, x_t: torch.Tensor, t: torch.Tensor, text: torch.Tensor, empty: torch.Tensor, scale: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One DDIM step (Song et al., 2021, equation 12) of the guided teacher: the timestep and x it ends at."""
        with_text, without = (
            self.teacher.unet(x_t.contiguous(memory_format=torch.channels_last), t, each, return_dict=False)[0].float()
            for each in (text, empty)
        )
        predicted = without + scale.view(-1, 1, 1, 1) * (with_text - without)
        before = (t - self._skip).clamp_min(0)
        alpha, sigma = self._levels(t)
        return before, self._add((x_t - sigma * predicted) / alpha, predicted, before)

    def _foreseen(self, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """f(x, t): the student's picture, which at t = 0 is x itself."""
        # The embedding needs no pipeline; guidance 1 is none, which pipelines embed as 0.
        told = LatentConsistencyModelPipeline.get_guidance_scale_embedding(None, scale - 1.0, GUIDANCE_WIDTH)
        x = x.contiguous(memory_format=torch.channels_last)
        predicted = self.model(x, t, text, timestep_cond=told, return_dict=False)[0].float()
        alpha, sigma = self._levels(t)
        time = (t * TIME_SCALE).view(-1, 1, 1, 1)
        skip = SIGMA_DATA**2 / (time**2 + SIGMA_DATA**2)
        out = time / (time**2 + SIGMA_DATA**2) ** 0.5
        return skip * x + out * (x - sigma * predicted) / alpha

    def _add(self, x0: torch.Tensor, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        alpha, sigma = self._levels(t)
        return alpha * x0 + sigma * noise

    def _levels(self, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Alpha and sigma (B, 1, 1, 1) at `t` (B,)."""
        alpha_bar = self.noised.alphas_cumprod[t].view(-1, 1, 1, 1)
        return alpha_bar.sqrt(), (1.0 - alpha_bar).sqrt()
