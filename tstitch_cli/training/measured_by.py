"""What the tiny Stable Diffusion is measured by: captions of pictures of garments never trained on, and statistics."""

from __future__ import annotations

from pathlib import Path

import torch

from tstitch_cli import files
from tstitch_cli.quality import references
from tstitch_cli.quality.captions import whole_wordings
from tstitch_cli.quality.features import Extractor
from tstitch_cli.training.captioned import SEEN, UNSEEN, Captioned

PICTURES = 10_000
"""That the statistics are of, as many as Fashion-MNIST's test pictures, of which their garments are."""
POINTS = 5000
"""Features that are kept of them, for precision and recall."""
CAPTIONS = 1000
AT_ONCE = 100


def write(data: Path, out: Path, extractor: Extractor, most: int = PICTURES) -> None:
    """Writes the captions and statistics that `tstitch evaluate` finds by name into `out`, of `most` pictures at most.

    The captions seen and unseen are of combinations of garment and colour that training shows and never shows. The
    statistics of the former are the family's usual ones; there are those of the latter, and of drawings in ink.
    """
    for name in (SEEN, UNSEEN):
        pictures = Captioned(data, "test", min(PICTURES, most), combinations=name)
        text = "".join(f"{line}\n" for line in captions(pictures))
        files.write(out / f"captions-{name}.txt", text.encode(), overwrite=True)
        _write_statistics(out / ("reference.npz" if name == SEEN else f"reference-{name}.npz"), pictures, extractor)
    inked = Captioned(data, "test", min(PICTURES, most), inked=True)
    _write_statistics(out / "reference-ink.npz", inked, extractor)


def captions(pictures: Captioned) -> list[str]:
    """A caption that tells all of it for each of the first CAPTIONS pictures, the wordings in turn."""
    found = []
    for i in range(min(CAPTIONS, len(pictures))):
        whole = whole_wordings(pictures.scene(i))
        found.append(whole[i % len(whole)])
    return found


def _write_statistics(path: Path, pictures: Captioned, extractor: Extractor) -> None:
    described = [extractor(pictures.pixels(some)).features.cpu() for some in torch.arange(len(pictures)).split(AT_ONCE)]
    reference = references.of_features(torch.cat(described))
    references.write(path, reference, extractor, points=POINTS, overwrite=True)
