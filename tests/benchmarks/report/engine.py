"""Draws the pictures of a study and keeps what the classifier makes of them; a run that was cut goes on from there."""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from tests.benchmarks import frechet
from tests.benchmarks.report.measures import Sums
from tstitch_cli import files
from tstitch_cli.allocation import Allocation
from tstitch_cli.classifier import Classifier
from tstitch_cli.commands.edge import talk
from tstitch_cli.denoisers import Family
from tstitch_cli.schema import Setting
from tstitch_cli.trajectory import Batch


@dataclass(frozen=True)
class Study:
    """Rows that are drawn from the same noise in one setting."""

    name: str
    setting: Setting
    denoisers: tuple[str, ...]
    """Smallest first."""
    allocations: tuple[Allocation, ...]
    pictures: int
    """Of every row: picture i is of class i % 10, its noise from (SEED, i)."""


@dataclass(frozen=True)
class Described:
    """What the classifier makes of a row's N pictures."""

    features: npt.NDArray[np.float32]
    """(N, F)"""
    predicted: npt.NDArray[np.uint8]
    """(N,) class numbers."""

    def first(self, count: int) -> Described:
        """Of the first `count` pictures."""
        return Described(self.features[:count], self.predicted[:count])

    def sums(self) -> Sums:
        """Sums by groups, for distances."""
        return Sums.of(self.features)

    def right(self) -> npt.NDArray[np.bool_]:
        """(N,): whether a picture is taken for the class that was asked for."""
        found: npt.NDArray[np.bool_] = self.predicted == np.arange(len(self.predicted)) % frechet.CLASSES
        return found


Draw = Callable[[Family, Batch, Sequence[Allocation]], Iterator[tuple[Allocation, Sequence[Image.Image]]]]
"""Draws one batch by each of many allocations, in any order of them."""


class Describe(Protocol):
    """Features and classes of pictures (N, 1, H, W) uint8."""

    def __call__(self, pixels: torch.Tensor, /) -> Described: ...


def describe_with(classifier: Classifier) -> Describe:
    """The bundled classifier's features, in its own precision."""

    @torch.inference_mode()
    def described(pixels: torch.Tensor, /) -> Described:
        found = []
        for block in pixels.split(frechet.AT_ONCE):
            features = classifier.features(block.float() / 127.5 - 1.0)
            found.append((features, classifier.to_logits(features).argmax(1)))
        features, classes = (torch.cat(each) for each in zip(*found, strict=True))
        return Described(features.numpy(), classes.numpy().astype(np.uint8))

    return described


class Store:
    """What every study's pictures are like, under one folder: a file for each batch of a study."""

    def __init__(
        self,
        folder: Path,
        load: Callable[[tuple[str, ...], Setting], Family],
        draw: Draw,
        describe: Describe,
        *,
        seed: int,
        at_once: int,
    ) -> None:
        """`load` makes the family of named denoisers in a setting, whose batch size is `at_once`."""
        self.folder, self.load, self.draw, self.describe = folder, load, draw, describe
        self.seed, self.at_once = seed, at_once
        self.spent_s = 0.0

    def described(self, study: Study) -> dict[Allocation, Described]:
        """Of every allocation of `study`; batches that an earlier run finished are read."""
        family = self.load(study.denoisers, study.setting)
        folder = self.folder / f"{study.name}-{self._key(study, family)}"
        batches = [
            self._batch(study, family, folder, range(first, min(first + self.at_once, study.pictures)))
            for first in range(0, study.pictures, self.at_once)
        ]
        return {
            allocation: Described(
                np.concatenate([features[row] for features, _ in batches]),
                np.concatenate([predicted[row] for _, predicted in batches]),
            )
            for row, allocation in enumerate(study.allocations)
        }

    def _key(self, study: Study, family: Family) -> str:
        """A digest of all that the pictures depend on but their number."""
        decides = {
            "setting": asdict(study.setting),
            "allocations": study.allocations,
            "weights": family.weights,
            "seed": self.seed,
        }
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:12]

    def _batch(
        self, study: Study, family: Family, folder: Path, indices: range
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
        """Features (rows, n, F) and classes (rows, n) of the pictures `indices`."""
        path = folder / f"{indices.start:06d}-{indices.stop:06d}.npz"
        if not path.exists():
            began = time.perf_counter()
            batch = Batch(family.example_prompts(len(indices), indices.start), tuple(indices), self.seed)
            found = {
                allocation: self.describe(frechet.pixels_of(images))
                for allocation, images in self.draw(family, batch, study.allocations)
            }
            content = io.BytesIO()
            np.savez_compressed(
                content,
                features=np.stack([found[each].features for each in study.allocations]),
                predicted=np.stack([found[each].predicted for each in study.allocations]),
            )
            files.write(path, content.getvalue(), overwrite=False)
            spent = time.perf_counter() - began
            self.spent_s += spent
            talk.print(f"{study.name}: {indices.stop} of {study.pictures} pictures, {spent:.0f} s", markup=False)
        with np.load(path) as kept:
            return kept["features"], kept["predicted"]
