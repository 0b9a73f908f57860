"""Trains the autoencoder whose latent space the bundled denoisers share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from diffusers import AutoencoderKL
from torch import nn
from torch.nn import functional as F

from tstitch_cli.training.loop import Schedule

KL_WEIGHT = 1e-5
PERCEPTUAL_WEIGHT = 0.5
LATENT_CHANNELS = 4


class Pictures(Protocol):
    """What an autoencoder is trained on."""

    def __len__(self) -> int: ...

    def batch(self, indices: torch.Tensor) -> torch.Tensor:
        """The pictures at `indices` (B,) as (B, C, H, W) float32 in [-1, 1]."""


@dataclass(frozen=True)
class Shape:
    """Pictures of `channels` x `side` x `side`; `widths` are the stages' features, each stage at half the side."""

    channels: int = 1
    side: int = 32
    widths: tuple[int, ...] = (32, 64, 96)
    groups: int = 16

    @property
    def latent_side(self) -> int:
        """Pixels along a side of the latents."""
        return int(self.side >> (len(self.widths) - 1))

    def build(self) -> AutoencoderKL:
        """The autoencoder, without attention: its latents are small and its pictures simple."""
        return AutoencoderKL(
            in_channels=self.channels,
            out_channels=self.channels,
            down_block_types=("DownEncoderBlock2D",) * len(self.widths),
            up_block_types=("UpDecoderBlock2D",) * len(self.widths),
            block_out_channels=self.widths,
            layers_per_block=1,
            latent_channels=LATENT_CHANNELS,
            norm_num_groups=self.groups,
            sample_size=self.side,
            mid_block_add_attention=False,
        )


class AutoencoderRecipe:
    """L1 + L2 + a perceptual term in the classifier's feature maps + a small KL term (Rombach et al., 2022)."""

    name = "autoencoder"

    def __init__(
        self,
        pictures: Pictures,
        judge: Any,
        schedule: Schedule,
        shape: Shape = Shape(),
        memory: torch.memory_format = torch.channels_last,
    ) -> None:
        """`judge` is a classifier with `maps`; `memory` is the faster layout of the tensors."""
        self.pictures, self.schedule, self.examples = pictures, schedule, len(pictures)
        self.judge = judge.requires_grad_(False)
        self.shape, self.memory = shape, memory
        torch.manual_seed(0)
        self.model = shape.build().to(memory_format=memory)
        _start_almost_without_noise(self.model)
        self._both = _EncodeDecode(self.model)

    def compile(self) -> None:
        """Does nothing: compiled for the CPU by torch 2.13, this model's encoder does not learn."""

    def loss(self, indices: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
        """See `Recipe`."""
        return self.reconstructed(indices, draw)[2]

    def reconstructed(
        self, indices: torch.Tensor, draw: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Pictures (B, C, H, W), what the autoencoder makes of them, and the loss."""
        x = self.pictures.batch(indices).to(memory_format=self.memory)
        noise = torch.randn(len(x), LATENT_CHANNELS, *(self.shape.latent_side,) * 2, generator=draw)
        y, mean, log_variance = self._both(x, noise)
        y = y.float()
        kl = 0.5 * (mean.float().square() + log_variance.float().exp() - 1.0 - log_variance.float()).mean()
        with torch.no_grad():
            seen = self.judge.maps(x)
        perceptual = sum(F.mse_loss(a.float(), b.float()) for a, b in zip(self.judge.maps(y), seen, strict=True))
        return x, y, F.l1_loss(y, x) + F.mse_loss(y, x) + PERCEPTUAL_WEIGHT * perceptual + KL_WEIGHT * kl


def _start_almost_without_noise(model: AutoencoderKL) -> None:
    """Latent deviation e^-5 to begin with, so that noise does not hide the means from the decoder at first."""
    with torch.no_grad():
        model.quant_conv.bias[model.config.latent_channels :] = -10.0


class _EncodeDecode(nn.Module):
    """Pictures (B, C, H, W), noise (B, 4, h, w) -> reconstruction, latent mean, latent log-variance."""

    def __init__(self, model: AutoencoderKL) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        moments = self.model.quant_conv(self.model.encoder(x))
        mean, log_variance = moments.chunk(2, dim=1)
        log_variance = log_variance.clamp(-30.0, 20.0)
        z = mean + (0.5 * log_variance).exp() * noise
        return self.model.decoder(self.model.post_quant_conv(z)), mean, log_variance


@torch.no_grad()
def encode_all(model: AutoencoderKL, pictures: Pictures, batch_size: int = 500) -> dict[str, torch.Tensor]:
    """Latent `mean` and `std` of every picture, each (N, 4, h, w) float32, unscaled."""
    means, stds = [], []
    for indices in torch.arange(len(pictures)).split(batch_size):
        latent = model.encode(pictures.batch(indices)).latent_dist
        means.append(latent.mean)
        stds.append(latent.std)
    return {"mean": torch.cat(means), "std": torch.cat(stds)}


def scale_of(latents: dict[str, torch.Tensor]) -> float:
    """What `encode_all`'s latents are multiplied by to have unit variance (Rombach et al., 2022, section 4.3)."""
    variance = latents["mean"].var() + latents["std"].square().mean()
    return round(1.0 / variance.sqrt().item(), 5)
