"""Trains the classifier of captioned pictures."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from tstitch_cli.quality.attributes import HEADS, AttributeClassifier
from tstitch_cli.training.captioned import Captioned
from tstitch_cli.training.loop import Schedule

LABEL_SMOOTHING = 0.05


class AttributesRecipe:
    """Cross-entropy with smoothed labels, summed over the attributes; every other picture is an inked one.

    A judge must not know which combinations of garment and colour a generator is trained on, or it would hold every
    other one for unlikely: `photos` and `inked` are to show all of them.
    """

    name = "tiny-sd-classifier"

    def __init__(self, photos: Captioned, inked: Captioned, schedule: Schedule) -> None:
        self.photos, self.inked, self.schedule, self.examples = photos, inked, schedule, len(photos)
        torch.manual_seed(0)
        self.model = AttributeClassifier()

    def compile(self) -> None:
        """Does nothing: drawing the pictures takes as long as the model."""

    def loss(self, indices: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
        """See `Recipe`."""
        some, others = indices[::2], indices[1::2]
        logits = self.model(torch.cat([self.photos.batch(some), self.inked.batch(others)]))
        both = [answers(self.photos, some), answers(self.inked, others)]
        wanted = {name: torch.cat([each[name] for each in both]) for name in HEADS}
        losses = [F.cross_entropy(logits[name], wanted[name], label_smoothing=LABEL_SMOOTHING) for name in HEADS]
        return torch.stack(losses).sum()


def answers(pictures: Captioned, indices: torch.Tensor) -> dict[str, torch.Tensor]:
    """The right answer (B,) to each attribute of HEADS for the pictures at `indices`."""
    shown = [pictures.scene(i).answers | {"style": int(pictures.inked)} for i in indices.tolist()]
    return {name: torch.tensor([each[name] for each in shown]) for name in HEADS}


@torch.no_grad()
def accuracy(model: AttributeClassifier, pictures: Captioned, count: int = 2000) -> dict[str, float]:
    """The share of right answers to each attribute on the first `count` of `pictures`."""
    right = dict.fromkeys(HEADS, 0.0)
    for indices in torch.arange(min(count, len(pictures))).split(200):
        logits = model(pictures.batch(indices))
        wanted = answers(pictures, indices)
        for name in HEADS:
            right[name] += (logits[name].argmax(1) == wanted[name]).sum().item()
    return {name: round(hits / min(count, len(pictures)), 4) for name, hits in right.items()}
