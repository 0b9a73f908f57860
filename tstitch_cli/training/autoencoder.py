"""Trains the autoencoder whose latent space the bundled denoisers share."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from torch import nn
from torch.nn import functional as F

from tstitch_cli.classifier import Classifier
from tstitch_cli.training.fashion_mnist import Pictures
from tstitch_cli.training.loop import Schedule

KL_WEIGHT = 1e-5
PERCEPTUAL_WEIGHT = 0.5


class AutoencoderRecipe:
    """L1 + L2 + a perceptual term in the classifier's feature maps + a small KL term (Rombach et al., 2022)."""

    name = "autoencoder"

    def __init__(self, pictures: Pictures, judge: Classifier, schedule: Schedule) -> None:
        self.pictures, self.schedule, self.examples = pictures, schedule, len(pictures)
        self.judge = judge.requires_grad_(False)
        torch.manual_seed(0)
        self.model = AutoencoderKL(
            in_channels=1,
            out_channels=1,
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            block_out_channels=(32, 64, 96),
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=16,
            sample_size=32,
            mid_block_add_attention=False,
        ).to(memory_format=torch.channels_last)
        _start_almost_without_noise(self.model)
        self._both = _EncodeDecode(self.model)

    def compile(self) -> None:
        """Does nothing: compiled for the CPU by torch 2.13, this model's encoder does not learn."""

    def loss(self, indices: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
        """See `Recipe`."""
        x = self.pictures.batch(indices).to(memory_format=torch.channels_last)
        noise = torch.randn(len(x), 4, 8, 8, generator=draw)
        y, mean, log_variance = self._both(x, noise)
        y = y.float()
        kl = 0.5 * (mean.float().square() + log_variance.float().exp() - 1.0 - log_variance.float()).mean()
        with torch.no_grad():
            seen = self.judge.maps(x)
        perceptual = sum(F.mse_loss(a.float(), b.float()) for a, b in zip(self.judge.maps(y), seen, strict=True))
        return F.l1_loss(y, x) + F.mse_loss(y, x) + PERCEPTUAL_WEIGHT * perceptual + KL_WEIGHT * kl


def _start_almost_without_noise(model: AutoencoderKL) -> None:
    """Latent deviation e^-5 to begin with, so that noise does not hide the means from the decoder at first."""
    with torch.no_grad():
        model.quant_conv.bias[model.config.latent_channels :] = -10.0


class _EncodeDecode(nn.Module):
    """Pictures (B, 1, 32, 32), noise (B, 4, 8, 8) -> reconstruction, latent mean, latent log-variance."""

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
    """Latent `mean` and `std` of every picture, each (N, 4, 8, 8) float32, unscaled."""
    means, stds = [], []
    for indices in torch.arange(len(pictures)).split(batch_size):
        latent = model.encode(pictures.batch(indices)).latent_dist
        means.append(latent.mean)
        stds.append(latent.std)
    return {"mean": torch.cat(means), "std": torch.cat(stds)}
