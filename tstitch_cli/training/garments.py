"""Cuts garments out of Fashion-MNIST's grey pictures, tints them and sets them on coloured backgrounds."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional as F

SIDE = 64
"""Pixels along a side of the pictures made."""
INK = 0.06
"""Grey above which a pixel of Fashion-MNIST belongs to the garment rather than to the empty ground."""


@dataclass(frozen=True)
class Cutouts:
    """Garments of B pictures on their 28 px grid, ready to be enlarged."""

    cover: torch.Tensor
    """(B, 1, 28, 28): 1 inside the garment, 0 outside, a little blurred, so that it is cut again where it is 1/2."""
    tone: torch.Tensor
    """(B, 1, 28, 28) in [-1, 1]: darker and lighter than the garment's mean, continued beyond its rim."""
    box: torch.Tensor
    """(B, 4): left, top, right, bottom of the garment in pixels."""


def cut_out(grey: torch.Tensor, holes: torch.Tensor) -> Cutouts:
    """Cuts the garments out of `grey` (B, 28, 28) in [0, 1].

    What the ground does not reach from the picture's rim is part of the garment, however pale; where `holes` (B,) is
    true, an enclosed region without any ink stays open (sandals, handles of bags).
    """
    g = grey[:, None]
    reached = _flood(F.pad(grey <= INK, (1,) * 4, value=True))
    solid = 1.0 - reached[:, None, 1:-1, 1:-1].float()
    solid = torch.where(holes[:, None, None, None] & (g == 0.0), 0.0, solid)
    return Cutouts(_blur(solid, 0.6), _tone(g, solid), _box(solid[:, 0]))


def _flood(free: torch.Tensor) -> torch.Tensor:
    """What is reached from the corner of `free` (B, H, W), bool, over sides of free pixels."""
    reached = torch.zeros_like(free)
    reached[:, 0, 0] = True
    while True:
        before = reached.clone()
        for axis in (1, 2):
            size = free.shape[axis]
            low, high = reached.narrow(axis, 0, size - 1), reached.narrow(axis, 1, size - 1)
            high |= low & free.narrow(axis, 1, size - 1)
            low |= high & free.narrow(axis, 0, size - 1)
        if torch.equal(before, reached):
            return reached


def _tone(g: torch.Tensor, solid: torch.Tensor) -> torch.Tensor:
    """The rim is darkened by the ground in the data, so it takes the tone of what lies inside of it."""
    inside = -F.max_pool2d(-F.pad(solid, (1,) * 4), 3, 1)
    v = g * solid
    v = torch.where(inside > 0, v, F.max_pool2d(v, 3, 1, 1))
    v = torch.where(solid > 0, v, F.max_pool2d(v, 3, 1, 1))
    area = solid.sum((1, 2, 3), keepdim=True).clamp_min(1.0)
    mean = (v * solid).sum((1, 2, 3), keepdim=True) / area
    deviation = (((v - mean).square() * solid).sum((1, 2, 3), keepdim=True) / area).sqrt()
    return torch.tanh(0.8 * (v - mean) / deviation.clamp_min(0.12))


def _box(solid: torch.Tensor) -> torch.Tensor:
    columns, rows = solid.amax(1), solid.amax(2)
    first = [line.argmax(1) for line in (columns, rows)]
    last = [line.shape[1] - line.flip(1).argmax(1) for line in (columns, rows)]
    return torch.stack([*first, *last], 1).float()


@dataclass(frozen=True)
class Placement:
    """Where B garments go: the centre of each one's box in the picture and its scale, turn and mirroring."""

    centre: torch.Tensor
    """(B, 2): x, y in pixels of the picture."""
    scale: torch.Tensor
    """(B,): pixels of the picture per pixel of the garment's grid."""
    turn: torch.Tensor
    """(B,): radians."""
    mirrored: torch.Tensor
    """(B,): bool."""


def place(cutouts: Cutouts, placement: Placement) -> tuple[torch.Tensor, torch.Tensor]:
    """Enlarges garments into their pictures: opacity (B, 1, SIDE, SIDE) with sharp, smooth edges, and tone alike."""
    middle = (cutouts.box[:, :2] + cutouts.box[:, 2:]) / 2
    axis = (torch.arange(SIDE) + 0.5).expand(len(middle), SIDE)
    x = (axis - placement.centre[:, :1])[:, None, :]
    y = (axis - placement.centre[:, 1:])[:, :, None]
    cos, sin = placement.turn.cos()[:, None, None], placement.turn.sin()[:, None, None]
    scale = placement.scale[:, None, None]
    across, down = (cos * x + sin * y) / scale, (cos * y - sin * x) / scale
    across = torch.where(placement.mirrored[:, None, None], -across, across)
    grid = torch.stack([across + middle[:, :1, None], down + middle[:, 1:, None]], -1) / 14.0 - 1.0
    cover = F.grid_sample(cutouts.cover, grid, mode="bicubic", padding_mode="zeros", align_corners=False)
    tone = F.grid_sample(cutouts.tone, grid, mode="bicubic", padding_mode="border", align_corners=False)
    # The blurred outline rises by about 0.6 a pixel of the grid; this makes it rise within 1.4 pixels of the picture.
    steep = placement.scale[:, None, None, None] / (0.6 * 1.4)
    return ((cover - 0.5) * steep + 0.5).clamp(0.0, 1.0), tone.clamp(-1.0, 1.0)


def tint(tone: torch.Tensor, colour: torch.Tensor) -> torch.Tensor:
    """Shades `colour` (B, 3) by `tone` (B, 1, H, W): towards black where it is below 0, towards white above."""
    base = colour[:, :, None, None]
    dark, light = base * 0.58, base + 0.34 * (1.0 - base)
    return torch.where(tone < 0, base + (base - dark) * tone, base + (light - base) * tone)


def ground(colour: torch.Tensor, shade: torch.Tensor) -> torch.Tensor:
    """A wall of `colour` (B, 3), lit from above, with soft shadows where `shade` (B, 1, SIDE, SIDE) is 1."""
    base = (0.88 * colour + 0.12 * 0.72)[:, :, None, None]
    light = torch.linspace(1.05, 0.93, SIDE)[None, None, :, None]
    shadow = _blur(F.pad(shade, (2, -2, 3, -3)), 2.5)
    return (base * light).clamp(0.0, 1.0) * (1.0 - 0.32 * shadow)


def _blur(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian blur of (B, 1, H, W), in pixels."""
    reach = max(1, round(3 * sigma))
    line = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    line = line / line.sum()
    x = F.conv2d(x, line[None, None, :, None], padding=(reach, 0))
    return F.conv2d(x, line[None, None, None, :], padding=(0, reach))
