"""The Frechet distance between sets of pictures, in the features of the bundled family's classifier."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from tstitch_cli import files
from tstitch_cli.classifier import FEATURES, Classifier
from tstitch_cli.zoo.registry import BUNDLED

CLASSES = 10
AT_ONCE = 500


@dataclass(frozen=True)
class Described:
    """What the classifier makes of N pictures: `features` (N, 64) float64, `predicted` (N,) int64 class numbers."""

    features: torch.Tensor
    predicted: torch.Tensor


class _AsGiven(nn.Identity):
    """The feature extractor for what are features already."""

    num_features = FEATURES


def load_classifier() -> Classifier:
    """The bundled classifier, in float64: its features then hold for any batch size and number of threads."""
    model = Classifier()
    model.load_state_dict(load_file(BUNDLED / "fashion" / "classifier" / "model.safetensors"))
    return model.double().eval().requires_grad_(False)


@torch.inference_mode()
def describe(classifier: Classifier, pixels: torch.Tensor) -> Described:
    """Describes `pixels` (N, 1, 32, 32) uint8, which the classifier sees in [-1, 1]."""
    blocks = (pixels[first : first + AT_ONCE] for first in range(0, len(pixels), AT_ONCE))
    features = torch.cat([classifier.features(block.double() / 127.5 - 1.0) for block in blocks])
    return Described(features, classifier.to_logits(features).argmax(1))


def pixels_of(images: Sequence[Image.Image]) -> torch.Tensor:
    """Grey 8-bit pictures as (N, 1, H, W) uint8."""
    return torch.from_numpy(np.stack([np.array(image.convert("L")) for image in images]))[:, None]


def distance(real: torch.Tensor, drawn: torch.Tensor) -> float:
    """The Frechet distance between two sets of features, (N, 64) and (M, 64), as torchmetrics computes it.

    |mu_1 - mu_2|^2 + trace(S_1 + S_2 - 2 (S_1 S_2)^(1/2)) of their means and covariances (Heusel et al., 2017).
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(feature=_AsGiven())
    metric.update(real.double(), real=True)
    metric.update(drawn.double(), real=False)
    return float(metric.compute())


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
