"""The style of the stylised model: garments drawn in ink on paper, with a thin wash of their colour."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from tstitch_cli.training.garments import SIDE

PAPER = (0.955, 0.93, 0.87)
INK = (0.13, 0.12, 0.2)
WASH = 0.5
"""How much of a garment's colour the wash carries."""
STAIN = 0.16
"""How much of the background's colour the paper takes on."""


def paper(colour: torch.Tensor) -> torch.Tensor:
    """Paper (B, 3, SIDE, SIDE) lightly stained with the background's `colour` (B, 3), uneven as a brush leaves it."""
    line = torch.linspace(0.0, 1.0, SIDE)
    uneven = 1.0 + 0.35 * torch.sin(9.0 * line[:, None] + 2.5 * torch.sin(5.0 * line))
    sheet = torch.tensor(PAPER).view(1, 3, 1, 1)
    return sheet + STAIN * uneven * (colour[:, :, None, None] - sheet)


def wash(tone: torch.Tensor, colour: torch.Tensor) -> torch.Tensor:
    """A garment's inside (B, 3, SIDE, SIDE): its `colour` (B, 3) thinned, thicker where `tone` is dark, hatched there.

    `tone` (B, 1, SIDE, SIDE) is in [-1, 1].
    """
    sheet = torch.tensor(PAPER).view(1, 3, 1, 1)
    thick = WASH * (1.0 - 0.45 * tone)
    inside = sheet + thick * (colour[:, :, None, None] - sheet)
    axis = torch.arange(SIDE, dtype=torch.float32)
    stroke = (torch.sin(1.15 * (axis[:, None] + axis)) > 0.55).float()
    return _inked(inside, 0.5 * stroke * (tone < -0.45))


def outlined(picture: torch.Tensor, opacity: torch.Tensor, tone: torch.Tensor) -> torch.Tensor:
    """`picture` (B, 3, SIDE, SIDE) with ink along the rims of `opacity` and, finer, where `tone` changes abruptly."""
    rim = F.max_pool2d(opacity, 3, 1, 1) + F.max_pool2d(-opacity, 3, 1, 1)
    folds = (_slope(tone) - 0.22).clamp(0.0, 0.25) / 0.25 * opacity
    return _inked(picture, torch.maximum(rim.clamp(0.0, 1.0), 0.6 * folds))


def _inked(picture: torch.Tensor, strength: torch.Tensor) -> torch.Tensor:
    return picture + strength * (torch.tensor(INK).view(1, 3, 1, 1) - picture)


def _slope(x: torch.Tensor) -> torch.Tensor:
    """Change of (B, 1, H, W) over a pixel."""
    across = F.pad(x[..., :, 1:] - x[..., :, :-1], (0, 1, 0, 0))
    down = F.pad(x[..., 1:, :] - x[..., :-1, :], (0, 0, 0, 1))
    return torch.hypot(across, down)
