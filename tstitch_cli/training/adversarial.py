"""Sharpens a trained autoencoder's decoder: a critic of patches learns to tell its pictures from real ones."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from tstitch_cli.training.autoencoder import AutoencoderRecipe
from tstitch_cli.training.loop import Schedule

CRITIC_WEIGHT = 0.1


class Critic(nn.Module):
    """How real each patch of (B, C, H, W) pictures looks, (B, 1, H / 8, W / 8) (Isola et al., 2017)."""

    def __init__(self, channels: int, width: int = 32) -> None:
        super().__init__()
        widths = (channels, width, 2 * width, 4 * width)
        layers: list[nn.Module] = []
        for i, (inputs, outputs) in enumerate(pairwise(widths)):
            layers.append(nn.Conv2d(inputs, outputs, 4, stride=2, padding=1))
            layers += [nn.GroupNorm(8, outputs)] * (i > 0) + [nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 3, padding=1))

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """See the class."""
        found: torch.Tensor = self.layers(pictures)
        return found


class SharpeningRecipe:
    """An autoencoder's own loss and a critic's verdict, with the critic's hinge loss (Esser et al., 2021, section 3).

    The encoder stays as it is, so that latents and all that was trained on them stay good. Decoder and critic are
    trained in one step: the decoder's share sees the critic's weights, and the critic's the reconstructions, as they
    are, without moving them.
    """

    def __init__(self, name: str, plain: AutoencoderRecipe, schedule: Schedule) -> None:
        """`plain` is the recipe of the autoencoder, whose model has been trained by it."""
        self.name, self.schedule, self.examples = name, schedule, plain.examples
        self.plain = plain
        for fixed in (plain.model.encoder, plain.model.quant_conv):
            fixed.requires_grad_(False)
        torch.manual_seed(0)
        self.model = nn.ModuleDict({"autoencoder": plain.model, "critic": Critic(plain.shape.channels)})

    def compile(self) -> None:
        """Does nothing, see `AutoencoderRecipe`."""

    def loss(self, indices: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
        """See `Recipe`."""
        x, y, loss = self.plain.reconstructed(indices, draw)
        critic = self.model["critic"]
        fixed = {name: weight.detach() for name, weight in critic.named_parameters()}
        verdict = functional_call(critic, fixed, (y,))
        told = F.relu(1.0 - critic(x)).mean() + F.relu(1.0 + critic(y.detach())).mean()
        return loss - CRITIC_WEIGHT * verdict.mean() + told
