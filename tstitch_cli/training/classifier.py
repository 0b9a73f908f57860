"""Trains the small classifier whose features measure the bundled family's pictures."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from tstitch_cli.quality.classifier import Classifier
from tstitch_cli.training.fashion_mnist import Pictures
from tstitch_cli.training.loop import Schedule

LABEL_SMOOTHING = 0.05


class ClassifierRecipe:
    """Cross-entropy with smoothed labels, on pictures shifted by up to two pixels and mirrored."""

    name = "classifier"

    def __init__(self, pictures: Pictures, schedule: Schedule) -> None:
        self.pictures, self.schedule, self.examples = pictures, schedule, len(pictures)
        torch.manual_seed(0)
        self.model = Classifier()
        self._logits = self.model

    def compile(self) -> None:
        """See `Recipe`."""
        self._logits = torch.compile(self.model)  # type: ignore[assignment]

    def loss(self, indices: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
        """See `Recipe`."""
        x = self.pictures.batch(indices)
        mirrored = torch.rand(len(x), 1, 1, 1, generator=draw) < 0.5
        x = torch.where(mirrored, x.flip(-1), x)
        dx, dy = torch.randint(-2, 3, (2,), generator=draw).tolist()
        logits = self._logits(x.roll((dy, dx), (-2, -1)))
        return F.cross_entropy(logits, self.pictures.labels[indices], label_smoothing=LABEL_SMOOTHING)
