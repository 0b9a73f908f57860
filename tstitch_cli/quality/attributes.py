"""The classifier of captioned pictures: what is shown, in which colours and style; its features measure them."""

from __future__ import annotations

import torch
from torch import nn

FEATURES = 64
HEADS = {"garment": 10, "colour": 9, "background": 9, "count": 2, "style": 2}
"""What is told of a picture, and how many answers there are to each; a style is 0, a photo, or 1, in ink."""


class AttributeClassifier(nn.Module):
    """A convolutional classifier of (B, 3, 64, 64) pictures in [-1, 1], with one head for each attribute.

    GroupNorm rather than BatchNorm, so that a picture's features do not depend on its batch.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList([_stage(3, 24), _stage(24, 48), _stage(48, 96), _stage(96, 128)])
        self.to_features = nn.Linear(128 * 16, FEATURES)
        self.heads = nn.ModuleDict({name: nn.Linear(FEATURES, answers) for name, answers in HEADS.items()})

    def maps(self, pictures: torch.Tensor) -> list[torch.Tensor]:
        """Feature maps after each stage: (B, 24, 32, 32), (B, 48, 16, 16), (B, 96, 8, 8), (B, 128, 4, 4)."""
        maps, x = [], pictures
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps

    def features(self, pictures: torch.Tensor) -> torch.Tensor:
        """Features (B, 64) before the last layers."""
        return nn.functional.silu(self.to_features(self.maps(pictures)[-1].flatten(1)))

    def forward(self, pictures: torch.Tensor) -> dict[str, torch.Tensor]:
        """Logits (B, answers) for each attribute of HEADS."""
        features = self.features(pictures)
        return {name: head(features) for name, head in self.heads.items()}


def _stage(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, stride=2),
        nn.GroupNorm(8, outputs),
        nn.SiLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1),
        nn.GroupNorm(8, outputs),
        nn.SiLU(),
    )
