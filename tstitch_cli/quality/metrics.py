"""The metrics a row's pictures can be measured by: their names, what they are, which way is better, what they take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A measure of pictures."""

    words: str
    higher_is_better: bool
    takes: str
    """What it is measured with."""
    share: bool = False
    """Whether it is a share of 1, which is said in per cent."""


_POINTS = "a --reference of single pictures, not of their mean and covariance alone"
_CAPTIONS = "prompts that are captions of a bundled family, and this family's own classifier, see --features"

METRICS = {
    "fid": Metric(
        "Fréchet distance of the features from the reference's (Heusel et al., 2017)", False, takes="a --reference"
    ),
    "is": Metric(
        "Inception score: how sure and how various the classes are (Salimans et al., 2016)",
        True,
        takes="a network that tells classes, see --features",
    ),
    "precision": Metric(
        "share of the pictures that lie among the reference's (Kynkäänniemi et al., 2019)", True, _POINTS, share=True
    ),
    "recall": Metric(
        "share of the reference that lies among the pictures (Kynkäänniemi et al., 2019)", True, _POINTS, share=True
    ),
    "clip": Metric(
        "CLIP score: how well a picture fits its prompt (Hessel et al., 2021)",
        True,
        takes="a family that is drawn from prompts, not by class",
    ),
    "accuracy": Metric(
        "share of the pictures that a classifier takes for the class asked for",
        True,
        takes="a family that is drawn by class, and a bundled family's own classifier, see --features",
        share=True,
    ),
    "alignment": Metric("share of the pictures that show all that their prompt tells", True, _CAPTIONS, share=True),
    "garment": Metric("share of the pictures that show the garment asked for", True, _CAPTIONS, share=True),
    "colour": Metric("share of the pictures whose garment has the colour asked for", True, _CAPTIONS, share=True),
    "background": Metric("share of the pictures that have the background asked for", True, _CAPTIONS, share=True),
    "count": Metric("share of the pictures that show as many garments as asked for", True, _CAPTIONS, share=True),
    "style": Metric(
        "share of the pictures that are drawn in ink, the style of the bundled stylised model",
        True,
        takes="the classifier of captioned pictures, see --features",
        share=True,
    ),
}
"""By the name that `--maximize` and a plan know them by."""
