"""By which rules the text report says that something holds: intervals leave no doubt, else it is not decided.

Rows of one study draw the same captions from the same noise, so shares of pictures are compared picture by picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from tests.benchmarks.report.figure import FREE, Verdict, surely
from tests.benchmarks.report.measures import Floats, compared
from tstitch_cli.quality.statistics import mean
from tstitch_cli.schema import Measured

UP_TO = 0.3
"""The share of the first steps that the paper's small model takes at no cost."""
FREE_START = "the first 30 % of the steps cost nothing"
MARGIN = 0.05
"""Shares of the pictures that are apart by less are as good as the same."""
UNSEEN_OF = 3.0
"""Of N pictures without a difference: 3 / N may still differ of all there are, at 95 % (the rule of three)."""


def part(hits: torch.Tensor) -> Measured:
    """The share of pictures that are hits (N,), with its 95 % interval."""
    return mean(hits, 0.0, 1.0)


def gain(hits: torch.Tensor, over: torch.Tensor) -> Measured:
    """By how much the share of `hits` (N,) is above that of `over` (N,), of the same captions and noise."""
    found, least = mean(hits.double() - over.double()), UNSEEN_OF / len(hits)
    return Measured(found.value, min(found.low, found.value - least), max(found.high, found.value + least))


def gain_apart(hits: torch.Tensor, over: torch.Tensor) -> Measured:
    """The same of pictures that have nothing in common, as many or not."""
    one, other = part(hits), part(over)
    # Half widths of independent intervals add like standard deviations.
    half = ((one.high - one.low) ** 2 + (other.high - other.low) ** 2) ** 0.5 / 2
    half = max(half, UNSEEN_OF / min(len(hits), len(over)))
    value = one.value - other.value
    return Measured(value, value - half, value + half)


def ratio(distances: Floats, under: Floats) -> Measured:
    """Of the distances (1 + G,) of two rows of as many pictures."""
    return compared(np.divide, distances, under)


def above(found: Measured, least: float = 0.0) -> bool | None:
    """Whether something is surely above `least`, surely not, or neither."""
    return surely(found.low > least, found.high <= least)


def below(found: Measured, most: float = 1.0) -> bool | None:
    """Whether something is surely below `most`, surely not, or neither."""
    return surely(found.high < most, found.low >= most)


def no_worse(found: Measured) -> bool | None:
    """Whether a gain is surely no loss of MARGIN or more, surely one, or neither."""
    return surely(found.low > -MARGIN, found.high <= -MARGIN)


def as_near(found: Measured) -> bool | None:
    """Whether a ratio of distances is surely no more than FREE, surely more, or neither."""
    return surely(found.high <= FREE, found.low > FREE)


def all_of(found: Sequence[bool | None]) -> bool | None:
    """Whether all hold; not so where one does not."""
    return surely(all(each is True for each in found), any(each is False for each in found))


def some(hits: torch.Tensor) -> bool:
    """Whether so many of `hits` (N,) are 1 that some can be lost."""
    return float(hits.mean()) > 2 * MARGIN


def kept_up(name: str, hits: Mapping[float, torch.Tensor], up_to: float = UP_TO, about: str = FREE_START) -> Verdict:
    """Whether every row of a share up to `up_to` has as many hits as that of share 0, where that has some to lose.

    `hits` (N,) by share of the first steps, from the same captions and noise.
    """
    gains = {share: gain(hits[share], hits[0.0]) for share in sorted(hits) if 0 < share <= up_to + 1e-9}
    if not gains:
        return Verdict(None, f"{name}: no share of the steps up to {up_to:.0%} was drawn.", about)
    worst = min(gains, key=lambda share: gains[share].value)
    return Verdict(
        all_of([no_worse(each) for each in gains.values()]) if some(hits[0.0]) else None,
        f"{name}: up to {up_to:.0%} of the steps it changes by {points(gains[worst])} at the worst ({worst:.0%} of the "
        f"steps), from {percent(part(hits[0.0]))}.",
        about,
    )


def percent(found: Measured) -> str:
    """A share to read: `81.2 % (78.0 to 84.4)`."""
    return f"{100 * found.value:.1f} % ({100 * found.low:.1f} to {100 * found.high:.1f})"


def points(found: Measured) -> str:
    """A difference of shares to read, in percentage points: `-1.2 points (-3.0 to +0.6)`."""
    return f"{100 * found.value:+.1f} points ({100 * found.low:+.1f} to {100 * found.high:+.1f})"


def said(found: Measured, digits: int = 2) -> str:
    """A number to read: `1.02 (0.98 to 1.06)`."""
    return f"{found.value:.{digits}f} ({found.low:.{digits}f} to {found.high:.{digits}f})"
