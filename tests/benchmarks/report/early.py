"""The small model trained for less: the package's own training, its schedule shortened, decay of the rate included.

The same by hand: `tstitch train fashion-s --shorten 0.1 --no-fast --out early`
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from tests.benchmarks.common import SMALL
from tstitch_cli.commands.edge import talk
from tstitch_cli.training.family import Family
from tstitch_cli.training.fashion_mnist import Pictures
from tstitch_cli.zoo.entry import Entry
from tstitch_cli.zoo.registry import BUNDLED, Zoo

NAME = f"{SMALL}-early"


def train(data: Path, folder: Path, share: float, pictures: int) -> None:
    """Trains the small model for `share` of its schedule into `folder` unless that is done; goes on where it was.

    It sees the first `pictures` training pictures.
    """
    if not (folder / SMALL / "training.yaml").is_file():
        shutil.copytree(BUNDLED / "fashion" / "vae", folder / "vae", dirs_exist_ok=True)

        def progress(done: int, total: int, loss: float) -> None:
            if done % max(1, total // 10) == 0:
                talk.print(f"training {NAME}: batch {done} of {total}, loss {loss:.4f}")

        family = Family(data, folder, folder / "work", fast=False, shorten=share)
        some = family.pictures
        # Their latents are made first, which takes longer than a short training.
        family.pictures = Pictures(some.pixels[:pictures], some.labels[:pictures])
        family.train([SMALL], lambda part: progress)


def entry(folder: Path) -> Entry:
    """The zoo's entry of the model trained into `folder`."""
    return replace(Zoo.load().resolve(SMALL), name=NAME, source=f"folder:{(folder / SMALL).resolve()}")
