"""The small classifier of the bundled pictures: its features carry the Frechet distance, its answer the accuracy."""

from __future__ import annotations

import torch
from torch import nn

FEATURES = 64


class Classifier(nn.Module):
    """A convolutional classifier of (B, 1, 32, 32) pictures in [-1, 1] into ten classes.

    GroupNorm rather than BatchNorm, so that a picture's features do not depend on its batch.
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.stages = nn.ModuleList([_stage(1, 32), _stage(32, 64), _stage(64, 96)])
        self.to_features = nn.Linear(96 * 16, FEATURES)
        self.to_logits = nn.Linear(FEATURES, classes)

    def maps(self, pictures: torch.Tensor) -> list[torch.Tensor]:
        """Feature maps after each stage: (B, 32, 16, 16), (B, 64, 8, 8), (B, 96, 4, 4)."""
        maps, x = [], pictures
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps

    def features(self, pictures: torch.Tensor) -> torch.Tensor:
        """Features (B, 64) before the last layer."""
        return torch.nn.functional.silu(self.to_features(self.maps(pictures)[-1].flatten(1)))

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Logits (B, 10)."""
        return self.to_logits(self.features(pictures))


def _stage(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.GroupNorm(8, outputs),
        nn.SiLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1, stride=2),
        nn.GroupNorm(8, outputs),
        nn.SiLU(),
    )
