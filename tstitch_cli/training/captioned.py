"""Captioned pictures made from Fashion-MNIST: picture number i is a function of the split and i alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tstitch_cli.quality.captions import COLOURS, HELD_OUT, NAMES, Scene
from tstitch_cli.training import fashion_mnist, ink
from tstitch_cli.training.garments import SIDE, Placement, cut_out, ground, place, tint

PAIRS = 0.3
"""Share of the pictures that show two garments."""
OPEN = (fashion_mnist.CLASSES.index("sandal"), fashion_mnist.CLASSES.index("bag"))
SEEN, UNSEEN, ALL = "seen", "unseen", "all"
"""Combinations of garment and colour: those of training, those held out of it, and both."""
_KEYS = {
    ("train", SEEN): 0,
    ("train", UNSEEN): 1,
    ("test", SEEN): 2,
    ("test", UNSEEN): 3,
    ("train", ALL): 4,
    ("test", ALL): 5,
}
_PALETTE = torch.tensor(list(COLOURS.values())) / 255.0


@dataclass(frozen=True)
class _Plan:
    """All random choices of one picture."""

    scene: Scene
    sources: tuple[int, int]
    jitter: tuple[float, ...]
    """Ten numbers in [0, 1)."""


class Captioned:
    """`count` pictures of a split, of some combinations of garment and colour, photographed or drawn in ink."""

    def __init__(self, data: Path, split: str, count: int, *, combinations: str = SEEN, inked: bool = False) -> None:
        """`split` is Fashion-MNIST's own: garments of "test" are in no training picture.

        With `inked`, the same scenes in the same places are drawn in ink on paper.
        """
        source = fashion_mnist.load(data, split)
        pad = fashion_mnist.PADDING
        self.grey = source.pixels[:, 0, pad:-pad, pad:-pad]
        self.labels = source.labels
        self.count, self.inked = count, inked
        self._key = _KEYS[split, combinations]
        self._colours = [
            [c for c in NAMES if combinations == ALL or ((garment, c) in HELD_OUT) == (combinations == UNSEEN)]
            for garment in range(len(fashion_mnist.CLASSES))
        ]
        self._by_class = [np.flatnonzero(self.labels.numpy() == c) for c in range(len(fashion_mnist.CLASSES))]

    def __len__(self) -> int:
        return self.count

    def scene(self, index: int) -> Scene:
        """What picture `index` shows."""
        return self._plan(index).scene

    def batch(self, indices: torch.Tensor) -> torch.Tensor:
        """The pictures at `indices` (B,) as (B, 3, SIDE, SIDE) float32 in [-1, 1]."""
        return self.draw([self._plan(i) for i in indices.tolist()])

    def pixels(self, indices: torch.Tensor) -> torch.Tensor:
        """The pictures at `indices` (B,) as (B, 3, SIDE, SIDE) uint8."""
        return ((self.batch(indices) + 1.0) * 127.5).round().to(torch.uint8)

    def _plan(self, index: int) -> _Plan:
        draw = np.random.default_rng((self._key, index))
        first = int(draw.integers(len(self.labels)))
        garment = int(self.labels[first])
        second = int(draw.choice(self._by_class[garment]))
        allowed = self._colours[garment]
        colour = allowed[int(draw.integers(len(allowed)))]
        others = [c for c in NAMES if c != colour]
        background = others[int(draw.integers(len(others)))]
        count = 2 if draw.random() < PAIRS else 1
        return _Plan(Scene(garment, colour, background, count), (first, second), tuple(draw.random(10)))

    def draw(self, plans: list[_Plan]) -> torch.Tensor:
        """See `batch`."""
        scenes = [plan.scene for plan in plans]
        colour = _PALETTE[[NAMES.index(scene.colour) for scene in scenes]]
        background = _PALETTE[[NAMES.index(scene.background) for scene in scenes]]
        jitter = torch.tensor([plan.jitter for plan in plans], dtype=torch.float32)
        # Garments in a row, of all pictures: the picture each one is in, and whether it is the second there.
        owner = torch.tensor([i for i, scene in enumerate(scenes) for _ in range(scene.count)])
        second = torch.tensor([which for scene in scenes for which in range(scene.count)])
        sources = [source for plan in plans for source in plan.sources[: plan.scene.count]]
        holes = torch.tensor([scene.garment in OPEN for scene in scenes])
        cutouts = cut_out(self.grey[sources].float() / 255.0, holes[owner])
        size = cutouts.box[:, 2:] - cutouts.box[:, :2]
        together = torch.zeros(len(scenes), 2).index_add(0, owner, size)
        wide = together[:, 0] > 1.2 * together[:, 1]
        pair = torch.tensor([scene.count == 2 for scene in scenes])
        opacity, tone = place(cutouts, _placement(size, pair[owner], wide[owner], second, jitter[owner]))
        garment = self._garment(opacity, tone, colour[owner])
        front = second == 1
        shade = opacity[~front]
        shade[pair] = torch.maximum(shade[pair], opacity[front])
        picture = ink.paper(background) if self.inked else ground(background, shade)
        picture = picture + opacity[~front] * (garment[~front] - picture)
        picture[pair] += opacity[front] * (garment[front] - picture[pair])
        return picture.clamp(0.0, 1.0) * 2.0 - 1.0

    def _garment(self, opacity: torch.Tensor, tone: torch.Tensor, colour: torch.Tensor) -> torch.Tensor:
        """What is seen of each garment where it is opaque."""
        return ink.outlined(ink.wash(tone, colour), opacity, tone) if self.inked else tint(tone, colour)


class BothStyles:
    """Photographed pictures, then as many inked ones, for what must know both."""

    def __init__(self, photos: Captioned, inked: Captioned) -> None:
        self.photos, self.inked = photos, inked

    def __len__(self) -> int:
        return len(self.photos) + len(self.inked)

    def batch(self, indices: torch.Tensor) -> torch.Tensor:
        """See `Captioned.batch`; photographs come first."""
        inked = indices >= len(self.photos)
        some, others = indices[~inked], indices[inked] - len(self.photos)
        return torch.cat([each.batch(i) for each, i in ((self.photos, some), (self.inked, others)) if len(i)])


def _placement(
    size: torch.Tensor, pair: torch.Tensor, wide: torch.Tensor, second: torch.Tensor, jitter: torch.Tensor
) -> Placement:
    """One garment fills the picture; of two, wide ones lie above each other and others stand side by side."""
    width, height = size.unbind(1)
    sign = 2.0 * second - 1.0
    own = jitter.view(-1, 2, 5)[torch.arange(len(second)), second]
    one = torch.stack([50.0 / width, 52.0 / height, torch.full_like(width, 2.2)]).amin(0)
    stacked = torch.stack([50.0 / width, 27.0 / height, torch.full_like(width, 1.75)]).amin(0)
    beside = torch.stack([28.0 / width, 50.0 / height, torch.full_like(width, 1.75)]).amin(0)
    scale = torch.where(pair, torch.where(wide, stacked, beside), one) * (0.9 + 0.1 * own[:, 0])
    # Side by side, short garments leave room above and below: one hangs higher than the other.
    lift = (58.0 - height * scale).clamp(0.0, 24.0) / 4 * torch.where(jitter[:, 9] < 0.5, 1.0, -1.0)
    x = torch.where(pair, torch.where(wide, 4.0 * (jitter[:, 9] - 0.5) * sign, 15.0 * sign), 0.0)
    y = torch.where(pair, torch.where(wide, 14.5 * sign, lift * sign), 0.0)
    loose = torch.where(pair, 1.5, 4.0)
    centre = SIDE / 2 + torch.stack([x + loose * (own[:, 1] - 0.5), y + loose * (own[:, 2] - 0.5)], 1)
    return Placement(centre, scale, 0.16 * (own[:, 3] - 0.5), own[:, 4] < 0.5)
