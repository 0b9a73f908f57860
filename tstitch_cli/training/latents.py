"""The latents of a data set, encoded once and kept in a file from which training reads the few that it needs."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import ImageOps
from PIL.Image import Image, Resampling

from tstitch_cli.training.datasets import Dataset

AT_ONCE_PIXELS = 64 * 64 * 64
"""Pixels that are encoded at once, so that large pictures go one by one and small ones by the hundred."""
KEEP_SECONDS = 10.0


@dataclass(frozen=True)
class Latents:
    """Scaled latents of N pictures as the autoencoder's distributions, or as points where it knows no others."""

    moments: npt.NDArray[np.float16]
    """(N, 2, C, h, w), mean and deviation, or (N, 1, C, h, w); mapped from the file."""
    places: torch.Tensor | None = None
    """(M,) where the latent of each of the M pictures of a data set stands among the N; None where all stand in order.

    Pictures without one must not be drawn.
    """

    def __len__(self) -> int:
        return len(self.moments) if self.places is None else len(self.places)

    def draw(self, indices: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
        """(B, C, h, w) float32: a latent of each of the pictures at `indices` (B,)."""
        places = indices if self.places is None else self.places[indices]
        chosen = torch.from_numpy(self.moments[places.numpy()]).float()
        if chosen.shape[1] == 1:
            return chosen[:, 0]
        return chosen[:, 0] + chosen[:, 1] * torch.randn(chosen[:, 0].shape, generator=draw)


def encoded(
    data: Dataset,
    autoencoder: Any,
    size: int,
    scale: tuple[float, float],
    path: Path,
    progress: Callable[[int, int], None],
    some: torch.Tensor | None = None,
) -> Latents:
    """The latents of `data` at `size` pixels a side, from `path` where they were kept, else encoded and kept there.

    `scale` is (shift, factor): latents are (z - shift) x factor. An encoding that was interrupted goes on. Where `some`
    pictures (D,), ascending, are all that will be drawn, and no file has all of them, only those are encoded.

    Raises BadFileError where a picture cannot be read.
    """
    if path.exists():
        return Latents(np.load(path, mmap_mode="r"))
    if some is not None and len(some) < len(data):
        chosen = set(some.tolist())
        places = torch.full((len(data),), len(data))
        places[some] = torch.arange(len(some))

        def read() -> Iterator[Image]:
            last = int(some[-1])
            return (each for i, each in enumerate(islice(data.read(), last + 1)) if i in chosen)

        part = Dataset(tuple(data.captions[i] for i in some.tolist()), read, data.digest, data.words)
        known_by = hashlib.sha256(some.numpy().tobytes()).hexdigest()[:16]
        of_some = encoded(part, autoencoder, size, scale, path.with_name(f"{path.stem}-{known_by}.npy"), progress)
        return Latents(of_some.moments, places)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, counted = path.with_suffix(".partial.npy"), path.with_suffix(".count")
    done = int(counted.read_text()) if counted.exists() and partial.exists() else 0
    moments = np.load(partial, mmap_mode="r+") if done else None
    pictures, kept = islice(data.read(), done, None), time.monotonic()
    channels = int(autoencoder.config.get("in_channels", 3))
    progress(done, len(data))
    while done < len(data):
        batch = _tensor(list(islice(pictures, max(1, AT_ONCE_PIXELS // size**2))), size, channels)
        found = _encode(autoencoder, batch.to(autoencoder.device, autoencoder.dtype), scale).half().cpu().numpy()
        if moments is None:
            moments = np.lib.format.open_memmap(
                partial, mode="w+", dtype=np.float16, shape=(len(data), *found.shape[1:])
            )
        moments[done : done + len(found)] = found
        done += len(found)
        progress(done, len(data))
        if time.monotonic() - kept > KEEP_SECONDS:
            moments.flush()
            counted.write_text(str(done))
            kept = time.monotonic()
    assert moments is not None
    moments.flush()
    os.replace(partial, path)
    counted.unlink(missing_ok=True)
    return Latents(np.load(path, mmap_mode="r"))


def _tensor(pictures: list[Image], size: int, channels: int) -> torch.Tensor:
    """(B, channels, size, size) in [-1, 1]; of pictures that are no squares the middle is taken."""
    mode = "L" if channels == 1 else "RGB"
    fitted = [ImageOps.fit(each.convert(mode), (size, size), Resampling.LANCZOS) for each in pictures]
    pixels = np.stack([np.asarray(each).reshape(size, size, channels) for each in fitted])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1.0


@torch.no_grad()
def _encode(autoencoder: Any, pictures: torch.Tensor, scale: tuple[float, float]) -> torch.Tensor:
    """(B, 1 or 2, C, h, w): the scaled mean and deviation, or the scaled latent."""
    shift, factor = scale
    output = autoencoder.encode(pictures)
    if hasattr(output, "latent_dist"):
        mean, std = output.latent_dist.mean.float(), output.latent_dist.std.float()
        return torch.stack([(mean - shift) * factor, std * factor], dim=1)
    point = output.latents if hasattr(output, "latents") else output.latent
    return ((point.float() - shift) * factor)[:, None]
