"""Whether pictures show what was asked for: what prompts tell, attribute by attribute, and what a classifier sees."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from tstitch_cli.quality import captions
from tstitch_cli.zoo.entry import Entry, class_numbers

UNASKED = -1.0
INKED = 1
"""The answer of `quality.attributes` to the style of a drawing in ink."""

Told = Mapping[str, int]
"""Attributes, and the right answer to each."""


def told_by_none(entry: Entry, prompts: Sequence[str]) -> list[Told]:
    """What a network that tells no attributes understands of `prompts`."""
    return [{} for _ in prompts]


def told_by_class(entry: Entry, prompts: Sequence[str]) -> list[Told]:
    """The class that each of `prompts` names, where `entry` draws by class; raises UsageError where one is none."""
    if entry.conditioning.kind != "class":
        return told_by_none(entry, prompts)
    return [{"class": number} for number in class_numbers(entry, prompts)]


def told_by_caption(entry: Entry, prompts: Sequence[str]) -> list[Told]:
    """What captions tell of their pictures, and the style, which is looked for whatever the prompt."""
    return [captions.told(prompt) | {"style": INKED} for prompt in prompts]


@dataclass(frozen=True)
class Judge:
    """What a classifier can tell of pictures and their prompts."""

    metrics: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Metrics of `metrics.METRICS`, each with the attributes that have to be right, as far as a prompt tells them."""
    told: Callable[[Entry, Sequence[str]], Sequence[Told]] = told_by_none
    """What each prompt tells; nothing where it is not understood."""

    def asking(self, entry: Entry, prompts: Sequence[str]) -> dict[str, int]:
        """How many of `prompts` ask for something that each of the metrics looks at."""
        told = self.told(entry, prompts)
        return {
            metric: sum(any(name in each for name in attributes) for each in told)
            for metric, attributes in self.metrics.items()
        }

    def hits(self, entry: Entry, prompts: Sequence[str], seen: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """(B, metrics) float32: 1 where a picture shows what its prompt asks for, 0 where not, UNASKED.

        `seen` are the answers (B,) of the classifier to each attribute.
        """
        answers = {name: found.tolist() for name, found in seen.items()}
        rows = [
            [_hit(told, {name: answers[name][i] for name in attributes}) for attributes in self.metrics.values()]
            for i, told in enumerate(self.told(entry, prompts))
        ]
        return torch.tensor(rows, dtype=torch.float32).view(len(rows), len(self.metrics))


def _hit(told: Told, seen: Told) -> float:
    asked = [name for name in seen if name in told]
    return float(all(told[name] == seen[name] for name in asked)) if asked else UNASKED
