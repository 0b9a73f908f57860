"""Trains one class-conditional diffusion transformer of the bundled family."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import DDPMScheduler, DiTTransformer2DModel

from tstitch_cli.training.loop import Schedule

LABEL_DROPOUT = 0.1
NOISE = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}


@dataclass(frozen=True)
class Size:
    """Width, depth and heads of a DiT over 4 x 8 x 8 latents in patches of 2: 16 tokens."""

    width: int
    depth: int
    heads: int

    def build(self, classes: int) -> DiTTransformer2DModel:
        """The model; class number `classes` is the null class of guidance."""
        return DiTTransformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=4,
            out_channels=4,
            num_layers=self.depth,
            num_attention_heads=self.heads,
            attention_head_dim=self.width // self.heads,
            num_embeds_ada_norm=classes,
            norm_num_groups=4,
        )


class DenoiserRecipe:
    """Squared error of the predicted noise (Ho et al., 2020), labels dropped for guidance (Ho & Salimans, 2022)."""

    def __init__(
        self, name: str, size: Size, schedule: Schedule, latents: dict[str, torch.Tensor], labels: torch.Tensor
    ) -> None:
        """`latents` are `mean` and `std`, each (N, 4, 8, 8), already scaled to unit variance; `labels` is (N,)."""
        self.name, self.schedule, self.examples = name, schedule, len(labels)
        self.latents, self.labels, self.null = latents, labels, int(labels.max()) + 1
        torch.manual_seed(0)
        # eval mode: diffusers would drop the label in every block on its own, so it is dropped once here instead
        self.model = size.build(self.null).eval()
        _start_as_identity(self.model)
        self.alphas_cumprod = DDPMScheduler(**NOISE).alphas_cumprod
        self._predict = self.model

    def compile(self) -> None:
        """See `Recipe`."""
        self._predict = torch.compile(self.model)

    def loss(self, indices: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
        """See `Recipe`."""
        mean, std = self.latents["mean"][indices], self.latents["std"][indices]
        x0 = mean + std * torch.randn(mean.shape, generator=draw)
        noise = torch.randn(x0.shape, generator=draw)
        t = torch.randint(len(self.alphas_cumprod), (len(x0),), generator=draw)
        dropped = torch.rand(len(x0), generator=draw) < LABEL_DROPOUT
        labels = torch.where(dropped, self.null, self.labels[indices])
        alpha_bar = self.alphas_cumprod[t].view(-1, 1, 1, 1)
        x_t = alpha_bar.sqrt() * x0 + (1.0 - alpha_bar).sqrt() * noise
        predicted = self._predict(x_t, timestep=t, class_labels=labels, return_dict=False)[0]
        return (predicted.float() - noise).square().mean()


def _start_as_identity(model: DiTTransformer2DModel) -> None:
    """adaLN-zero (Peebles & Xie, 2023, section 3.2): every block starts as the identity, the output as zero."""
    for block in model.transformer_blocks:
        torch.nn.init.zeros_(block.norm1.linear.weight)
        torch.nn.init.zeros_(block.norm1.linear.bias)
    for layer in (model.proj_out_1, model.proj_out_2):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
