"""Networks whose features pictures are compared in: the bundled families' classifiers, and Inception-v3."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file
from torch import nn

from tstitch_cli.errors import UsageError
from tstitch_cli.quality.attributes import HEADS, AttributeClassifier
from tstitch_cli.quality.classifier import Classifier
from tstitch_cli.quality.judging import Judge, told_by_caption, told_by_class
from tstitch_cli.zoo.registry import BUNDLED

INCEPTION = "inception"
LUMINANCE = (19595, 38470, 7471)
"""Shares of red, green and blue in grey, in 1/65536, as Pillow converts (ITU-R 601-2)."""


@dataclass(frozen=True, eq=False)
class Features:
    """What a network makes of B pictures."""

    features: torch.Tensor
    """(B, D) float."""
    probabilities: torch.Tensor | None
    """(B, C) float, of the classes it tells apart; None where it tells none."""
    answers: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """(B,) int64 by attribute: what the pictures are taken to show."""


class Extractor(Protocol):
    """A network that pictures are compared by."""

    @property
    def name(self) -> str:
        """What `Evaluation.features` calls it."""

    @property
    def digest(self) -> str:
        """Of its weights: features are comparable only where it is the same."""

    @property
    def side(self) -> int:
        """The height and width of the pictures it looks at."""

    @property
    def classes(self) -> int:
        """How many classes it tells apart, 0 where none."""

    @property
    def judge(self) -> Judge:
        """What it can tell of pictures and their prompts."""

    def __call__(self, pictures: torch.Tensor) -> Features:
        """The features of `pictures` (B, 3, H, W) uint8; raises UsageError where it cannot take their size."""


@dataclass(frozen=True)
class _Network:
    """A bundled classifier: its class and what it looks at."""

    model: Callable[[], nn.Module]
    side: int
    coloured: bool
    classes: int
    heads: Mapping[str, str]
    """Attributes, and the layer that tells each from the features; the first tells the classes."""
    judge: Judge


_SCENE = ("garment", "colour", "background", "count")
_NETWORKS = {
    "fashion": _Network(
        Classifier,
        side=32,
        coloured=False,
        classes=10,
        heads={"class": "to_logits"},
        judge=Judge({"accuracy": ("class",)}, told_by_class),
    ),
    # Of what it tells of a captioned picture, the kinds of garments are the classes.
    "tiny-sd": _Network(
        AttributeClassifier,
        side=64,
        coloured=True,
        classes=HEADS["garment"],
        heads={name: f"heads.{name}" for name in HEADS},
        judge=Judge({name: (name,) for name in _SCENE} | {"alignment": _SCENE, "style": ("style",)}, told_by_caption),
    ),
}


class ClassifierFeatures:
    """The classifier of a bundled family, in float64: its features then hold for any batch size and thread count."""

    def __init__(self, family: str, device: torch.device | str = "cpu", file: Path | None = None) -> None:
        """The weights are those in `file`, else those that ship with `family`; UsageError where there are none."""
        file = file or _classifier_file(family)
        if family not in _NETWORKS or not file.is_file():
            raise UsageError(
                f"the family {family} has no classifier of its own", hint=f"there are {', '.join(classifiers())}"
            )
        self._network = network = _NETWORKS[family]
        self.name, self.digest = family, digest_of_file(file)
        self.side, self.classes, self.judge = network.side, network.classes, network.judge
        # Apple's GPUs have no float64; the classifier is small enough for the processor.
        self._device = torch.device("cpu" if torch.device(device).type == "mps" else device)
        model = network.model()
        model.load_state_dict(load_file(file))
        self.model: Any = model.double().eval().requires_grad_(False).to(self._device)

    @torch.inference_mode()
    def __call__(self, pictures: torch.Tensor) -> Features:
        """Features (B, 64) and probabilities (B, 10) of `pictures` (B, 3, side, side) uint8."""
        if pictures.shape[-2:] != (self.side, self.side):
            height, width = pictures.shape[-2:]
            raise UsageError(
                f"the classifier of {self.name} takes pictures of {self.side} x {self.side} px, not {width} x {height}",
                hint="compare in other features: --features inception",
            )
        seen = pictures if self._network.coloured else grey(pictures)
        features = self.model.features(seen.to(self._device).double() / 127.5 - 1.0)
        logits = {name: self.model.get_submodule(layer)(features) for name, layer in self._network.heads.items()}
        first = next(iter(logits.values()))
        return Features(features, first.softmax(1), {name: each.argmax(1) for name, each in logits.items()})


def grey(pictures: torch.Tensor) -> torch.Tensor:
    """(B, 3, H, W) uint8 to (B, 1, H, W) uint8 as Pillow does it: what is grey already stays exactly as it is."""
    weights = torch.tensor(LUMINANCE, dtype=torch.int32, device=pictures.device).view(1, 3, 1, 1)
    return (((pictures.int() * weights).sum(1, keepdim=True) + 0x8000) >> 16).to(torch.uint8)


def classifiers() -> list[str]:
    """The bundled families that have a classifier."""
    return [family for family in _NETWORKS if _classifier_file(family).is_file()]


def named(name: str, device: torch.device | str = "cpu") -> Extractor:
    """The extractor called `name`: `inception` or a bundled family.

    Raises:
        UsageError: there is none of that name.
        BadFileError: its weights are not here; the hint is the command that fetches them.
    """
    if name in classifiers():
        return ClassifierFeatures(name, device)
    if name == INCEPTION:
        from tstitch_cli.quality.inception import InceptionFeatures

        return InceptionFeatures(device)
    raise UsageError(f"there are no features called {name!r}", hint=f"there are {', '.join(names())}")


def names() -> list[str]:
    """What `named` takes."""
    return [*classifiers(), INCEPTION]


def digest_of_file(file: Path) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]


def _classifier_file(family: str) -> Path:
    return BUNDLED / family / "classifier" / "model.safetensors"
