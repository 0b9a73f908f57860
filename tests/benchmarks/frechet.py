"""The Frechet distance between sets of pictures, in the features of the bundled family's classifier."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tstitch_cli import files
from tstitch_cli.quality import statistics
from tstitch_cli.quality.features import Extractor

CLASSES = 10
AT_ONCE = 500


@dataclass(frozen=True)
class Described:
    """What the classifier makes of N pictures: `features` (N, 64) float64, `predicted` (N,) int64 class numbers."""

    features: torch.Tensor
    predicted: torch.Tensor


def describe(extractor: Extractor, pixels: torch.Tensor) -> Described:
    """Describes `pixels` (N, 1, 32, 32) uint8."""
    found = [extractor(block.expand(-1, 3, -1, -1)) for block in pixels.split(AT_ONCE)]
    predicted = [each.probabilities.argmax(1) for each in found if each.probabilities is not None]
    return Described(torch.cat([each.features for each in found]), torch.cat(predicted))


def pixels_of(images: Sequence[Image.Image]) -> torch.Tensor:
    """Grey 8-bit pictures as (N, 1, H, W) uint8."""
    return torch.from_numpy(np.stack([np.array(image.convert("L")) for image in images]))[:, None]


def distance(real: torch.Tensor, drawn: torch.Tensor) -> float:
    """The Frechet distance between two sets of features, (N, 64) and (M, 64)."""
    return statistics.frechet(_gaussian(real), _gaussian(drawn))


def _gaussian(features: torch.Tensor) -> statistics.Gaussian:
    none = torch.zeros(len(features), 0)
    return statistics.Sums.of(statistics.Described(features, none, none, none)).gaussian


def subset_distances(real: torch.Tensor, drawn: torch.Tensor, subsets: int) -> tuple[float, ...]:
    """The distances of `subsets` disjoint blocks of `drawn` (M, 64), in order.

    Fewer pictures give a larger distance on average, so these tell the spread and not the value.
    """
    return tuple(distance(real, block) for block in drawn.tensor_split(subsets))


def accuracy(described: Described) -> float:
    """The share of pictures that the classifier takes for what was asked: class i % 10 of picture i."""
    asked = torch.arange(len(described.predicted)) % CLASSES
    return float((described.predicted == asked).double().mean())


def in_turn(labels: torch.Tensor, count: int) -> torch.Tensor:
    """Indices (count,) of the first pictures of each class in `labels`, ordered so that place i has class i % 10.

    `count` is a multiple of 10, and every class has at least count / 10 pictures.
    """
    each = [torch.nonzero(labels == c).flatten()[: count // CLASSES] for c in range(CLASSES)]
    return torch.stack(each, dim=1).flatten()


def kept(path: Path, make: Callable[[], Described]) -> Described:
    """What `make` made in an earlier run and `path` (.npz) holds, else what it makes now, kept there."""
    if not path.exists():
        made = make()
        content = io.BytesIO()
        np.savez_compressed(content, features=made.features.numpy(), predicted=made.predicted.numpy())
        files.write(path, content.getvalue(), overwrite=False)
    with np.load(path) as found:
        return Described(torch.from_numpy(found["features"]), torch.from_numpy(found["predicted"]))
