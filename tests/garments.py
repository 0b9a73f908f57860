"""A stand-in for Fashion-MNIST: files in its form, with noise or with blocks for garments."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt


def fashion_mnist_of_noise(folder: Path) -> Path:
    """40 + 20 pictures of noise in ten classes."""
    pixels = np.random.default_rng(0)
    return _write(folder, lambda count: pixels.integers(0, 256, (count, 28, 28), dtype=np.uint8))


def fashion_mnist_of_blocks(folder: Path) -> Path:
    """40 + 20 pictures of one grey rectangle each, in ten classes."""

    def blocks(count: int) -> npt.NDArray[np.uint8]:
        images = np.zeros((count, 28, 28), np.uint8)
        for i, image in enumerate(images):
            image[4 + i % 3 : 24, 6 : 20 + i % 5] = 120 + i
        return images

    return _write(folder, blocks)


def _write(folder: Path, images_of: Callable[[int], npt.NDArray[np.uint8]]) -> Path:
    folder.mkdir()
    for stem, count in (("train", 40), ("t10k", 20)):
        header = struct.pack(">HBB3I", 0, 8, 3, count, 28, 28)
        (folder / f"{stem}-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + images_of(count).tobytes()))
        labels = np.arange(count, dtype=np.uint8) % 10
        header = struct.pack(">HBBI", 0, 8, 1, count)
        (folder / f"{stem}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(header + labels.tobytes()))
    return folder
