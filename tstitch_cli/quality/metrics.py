"""The metrics a row's pictures can be measured by: their names, what they are, and which way is better."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A measure of pictures."""

    words: str
    higher_is_better: bool


METRICS = {
    "fid": Metric("Fréchet distance of the features from the reference's (Heusel et al., 2017)", False),
    "is": Metric("Inception score: how sure and how various the classes are (Salimans et al., 2016)", True),
    "precision": Metric("share of the pictures that lie among the reference's (Kynkäänniemi et al., 2019)", True),
    "recall": Metric("share of the reference that lies among the pictures (Kynkäänniemi et al., 2019)", True),
    "clip": Metric("CLIP score: how well a picture fits its prompt (Hessel et al., 2021)", True),
    "accuracy": Metric("share of the pictures that a classifier takes for what was asked for", True),
}
"""By the name that `--maximize` and a plan know them by."""
