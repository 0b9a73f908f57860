"""Reads Fashion-MNIST (Xiao et al., 2017, MIT licence) from its four IDX files."""

from __future__ import annotations

import gzip
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tstitch_cli.errors import UsageError

CLASSES = (
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
PLACES = ("/usr/share/datasets/fashion-mnist", "~/.cache/fashion-mnist")
PADDING = 2  # 28 px pictures on a 32 px canvas, so that two halvings of the side leave 8


@dataclass(frozen=True)
class Pictures:
    """A split of the data set: `pixels` (N, 1, 32, 32) uint8, `labels` (N,) int64."""

    pixels: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: torch.Tensor) -> torch.Tensor:
        """The pictures at `indices` as (B, 1, 32, 32) float32 in [-1, 1]."""
        return self.pixels[indices].float() / 127.5 - 1.0


def find(folder: str | None = None) -> Path:
    """The folder that holds the IDX files: the one given, TSTITCH_DATA, or a usual place.

    Raises UsageError with how to get the data when there is none.
    """
    asked = folder or os.environ.get("TSTITCH_DATA")
    for place in (asked,) if asked else PLACES:
        path = Path(place).expanduser()
        if (path / "train-images-idx3-ubyte.gz").is_file():
            return path
    raise UsageError(
        f"no Fashion-MNIST in {asked or ' or '.join(PLACES)}",
        hint="install Debian's package dataset-fashion-mnist, or put the four .gz files of "
        "github.com/zalandoresearch/fashion-mnist in a folder and give it with --data",
    )


def load(folder: Path, split: str) -> Pictures:
    """Reads one split ("train", 60,000 pictures; "test", 10,000)."""
    stem = {"train": "train", "test": "t10k"}[split]
    pixels = torch.from_numpy(_idx(folder / f"{stem}-images-idx3-ubyte.gz", 3))
    labels = torch.from_numpy(_idx(folder / f"{stem}-labels-idx1-ubyte.gz", 1))
    padded = torch.nn.functional.pad(pixels, (PADDING,) * 4)
    return Pictures(padded[:, None].contiguous(), labels.long())


def _idx(path: Path, dimensions: int) -> np.ndarray:
    """Parses one gzipped IDX file of unsigned bytes (format: yann.lecun.com/exdb/mnist)."""
    with gzip.open(path) as file:
        data = file.read()
    if data[:4] != bytes((0, 0, 8, dimensions)):
        raise UsageError(f"{path} is not an IDX file of {dimensions} dimensions of bytes")
    shape = np.frombuffer(data, ">u4", count=dimensions, offset=4).astype(int)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions).reshape(shape).copy()
