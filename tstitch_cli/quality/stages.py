"""What the two small classifiers of pictures share: stages one after another, and features of the last one's maps."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn


class Stages(nn.Module):
    """Stages, each of which halves the side of what it is given, and `features` numbers made of the last one's maps."""

    def __init__(self, stages: Iterable[nn.Module], last: int, features: int) -> None:
        """`last` is how many numbers the last stage's maps of one picture have."""
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.to_features = nn.Linear(last, features)

    def maps(self, pictures: torch.Tensor) -> list[torch.Tensor]:
        """Feature maps (B, channels, side, side) after each stage."""
        maps, x = [], pictures
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps

    def features(self, pictures: torch.Tensor) -> torch.Tensor:
        """Features (B, features) before the last layers."""
        return nn.functional.silu(self.to_features(self.maps(pictures)[-1].flatten(1)))
