"""Outlines of things on plain ground, as a ControlNet for outlines takes them, and how nearly a picture follows one."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

CONTRAST = 0.1
"""How far a colour, its components in [0, 1], is from every shade of the ground where it is no ground."""
SHADES = (0.6, 1.12)
"""How dark in a shadow, and how light, the ground may be, as shares of its colour along the rim."""
RIM = 2
"""Pixels along the rim that show the ground."""
TOLERANCE = 1
"""Pixels, also diagonally, by which an outline that is followed may be off."""


def outlines(pictures: torch.Tensor) -> torch.Tensor:
    """(B, 1, H, W): 1 on the rims of the things that `pictures` (B, 3, H, W), in [-1, 1], show, 0 elsewhere."""
    return rims(things_in(pictures))


def rims(things: torch.Tensor) -> torch.Tensor:
    """(B, 1, H, W): 1 on the rims of `things`, which are 1 in a ground of 0.

    Lines are a pixel wide and belong to the thing; what lies within a thing has none, unless the ground is seen through
    it.
    """
    # Grown ground, beyond the picture's edge too: what it reaches is the rim.
    ground = F.pad(1.0 - things, (1,) * 4, value=1.0)
    return things * F.max_pool2d(ground, 3, 1)


def outline_agreement(pictures: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
    """(B,) in [0, 1]: how nearly the things in `pictures` (B, 3, H, W), in [-1, 1], have the outlines `asked` for.

    `asked` (B, 1 or 3, H, W) is white, 1, on black, 0. The F1 measure of boundaries: the harmonic mean of the share
    of the drawn outline that lies on the asked one, give or take TOLERANCE, and of the asked one on the drawn one.
    """
    drawn, wanted = outlines(pictures), (asked.amax(1, keepdim=True) > 0.5).float()
    on_wanted, on_drawn = (_share(a, b) for a, b in ((drawn, wanted), (wanted, drawn)))
    return 2.0 * on_wanted * on_drawn / (on_wanted + on_drawn).clamp_min(1e-9)


def outline_image(picture: Image.Image) -> Image.Image:
    """The outline of what `picture` shows, white on black in RGB, of the same size."""
    pixels = torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)[None]
    drawn = outlines(pixels / 127.5 - 1.0)[0, 0] * 255.0
    return Image.fromarray(drawn.to(torch.uint8).numpy()).convert("RGB")


def things_in(pictures: torch.Tensor) -> torch.Tensor:
    """(B, 1, H, W): 1 where `pictures` (B, 3, H, W), in [-1, 1], do not show the ground, 0 elsewhere.

    The ground is told by its colour along the picture's rim, and shadows on it are no things.
    """
    rgb = (pictures.float() + 1.0) / 2.0
    rows, columns = (torch.cat([x[..., :RIM], x[..., -RIM:]], -1).flatten(2) for x in (rgb.transpose(2, 3), rgb))
    ground = torch.cat([rows, columns], -1).median(-1).values[..., None, None]
    shade = (rgb * ground).sum(1, keepdim=True) / ground.square().sum(1, keepdim=True).clamp_min(1e-4)
    apart = (rgb - shade.clamp(*SHADES) * ground).norm(dim=1, keepdim=True)
    # Each pixel goes by the most of its neighbours, so that a speck is none and a pinhole neither.
    return (F.avg_pool2d((apart > CONTRAST).float(), 3, 1, 1) > 0.5).float()


def _share(lines: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """(B,): the share of `lines` (B, 1, H, W) that lies on `others`, give or take TOLERANCE; 0 where there are none."""
    near = F.max_pool2d(others, 2 * TOLERANCE + 1, 1, TOLERANCE)
    return (lines * near).sum((1, 2, 3)) / lines.sum((1, 2, 3)).clamp_min(1.0)
