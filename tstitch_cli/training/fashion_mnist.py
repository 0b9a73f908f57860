"""Reads Fashion-MNIST (Xiao et al., 2017, MIT licence) from its four IDX files."""

from __future__ import annotations

import gzip
import math
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tstitch_cli.errors import BadFileError, UsageError

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
SIDE = 28
MOST = 1_000_000
"""Pictures of a split; there are 60,000."""
_HINT = "download it again"
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
    """Reads one split ("train", 60,000 pictures; "test", 10,000); raises BadFileError where a file is not its own."""
    stem = {"train": "train", "test": "t10k"}[split]
    of_pictures, of_labels = folder / f"{stem}-images-idx3-ubyte.gz", folder / f"{stem}-labels-idx1-ubyte.gz"
    pixels, labels = torch.from_numpy(_idx(of_pictures, (SIDE, SIDE))), torch.from_numpy(_idx(of_labels, ()))
    if len(labels) != len(pixels):
        raise BadFileError(f"{of_labels}: has {len(labels)} labels of {len(pixels)} pictures", hint=_HINT)
    if int(labels.max()) >= len(CLASSES):
        raise BadFileError(f"{of_labels}: has the label {int(labels.max())} of {len(CLASSES)} classes", hint=_HINT)
    padded = torch.nn.functional.pad(pixels, (PADDING,) * 4)
    return Pictures(padded[:, None].contiguous(), labels.long())


def _idx(path: Path, each: tuple[int, ...]) -> np.ndarray:
    """Parses one gzipped IDX file of unsigned bytes, each of its items of shape `each` (yann.lecun.com/exdb/mnist)."""
    dimensions = 1 + len(each)
    try:
        with gzip.open(path) as file:
            head = file.read(4 + 4 * dimensions)
            if head[:4] != bytes((0, 0, 8, dimensions)) or len(head) != 4 + 4 * dimensions:
                raise BadFileError(f"{path}: is no IDX file of {dimensions} dimensions of bytes", hint=_HINT)
            shape = tuple(int(length) for length in np.frombuffer(head, ">u4", offset=4))
            if shape[1:] != each or not 0 < shape[0] <= MOST:
                raise BadFileError(f"{path}: is of {' x '.join(map(str, shape))} bytes", hint=_HINT)
            data = file.read(math.prod(shape))
    except (OSError, EOFError, zlib.error) as error:
        raise BadFileError(f"{path}: cannot be read: {str(error)[:200]}", hint=_HINT) from error
    if len(data) != math.prod(shape):
        raise BadFileError(f"{path}: ends too early", hint=_HINT)
    return np.frombuffer(data, np.uint8).reshape(shape).copy()
