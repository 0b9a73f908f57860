"""Networks whose features pictures are compared in: the bundled families' classifiers, and Inception-v3."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file
from torch import nn

from tstitch_cli.errors import UsageError
from tstitch_cli.quality.attributes import AttributeClassifier
from tstitch_cli.quality.classifier import Classifier
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
    def classes_asked(self) -> bool:
        """Whether its classes are those of the prompts, so that it can tell if what was asked for was drawn."""

    def __call__(self, pictures: torch.Tensor) -> Features:
        """The features of `pictures` (B, 3, H, W) uint8; raises UsageError where it cannot take their size."""


@dataclass(frozen=True)
class _Network:
    """A bundled classifier: its class and what it looks at."""

    model: Callable[[], nn.Module]
    side: int
    coloured: bool
    classes: int
    classes_asked: bool
    head: Callable[[nn.Module], nn.Module]
    """Its last layer, from features to the logits of the classes."""


_NETWORKS = {
    "fashion": _Network(Classifier, 32, False, 10, True, lambda model: model.get_submodule("to_logits")),
    # Of what it tells of a captioned picture, the kinds of garments are the classes.
    "tiny-sd": _Network(AttributeClassifier, 64, True, 10, False, lambda model: model.get_submodule("heads.garment")),
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
        self.side, self.classes, self.classes_asked = network.side, network.classes, network.classes_asked
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
        return Features(features, self._network.head(self.model)(features).softmax(1))


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
