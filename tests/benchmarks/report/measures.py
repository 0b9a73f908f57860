"""What the report says of pictures: Frechet distances of rows that share their noise, and intervals of comparisons.

The intervals are those of `tstitch_cli.statistics`: the jackknife over subsets. Rows of one study draw the same
pictures from the same noise, so what is compared is left out together, and the ratio of two rows is known better than
either of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from operator import add

import numpy as np
import numpy.typing as npt
from scipy import stats

from tstitch_cli.schema import Measured
from tstitch_cli.statistics import Described, Gaussian, Sums, frechet, interval, subsets, without_each

Floats = npt.NDArray[np.float64]
RESAMPLES = 200


def sums(described: Described) -> list[Sums]:
    """Of each subset of the pictures."""
    return [Sums.of(described[part]) for part in subsets(len(described))]


def replicas(reference: Gaussian, parts: Sequence[Sums]) -> Floats:
    """(1 + G,): the distance of all pictures, then without each of the G subsets."""
    return np.array([frechet(reference, each.gaussian) for each in (reduce(add, parts), *without_each(parts))])


def compared(statistic: Callable[..., Floats], *replicated: Floats) -> Measured:
    """`statistic` of the `replicas` of several rows of one study, elementwise, with its 95 % interval."""
    found = np.asarray(statistic(*replicated))
    return interval(float(found[0]), [float(each) for each in found[1:]])


def distance(replicated: Floats) -> Measured:
    """The distance of one row, with its 95 % interval."""
    return compared(np.asarray, replicated)


def rank_correlation(predicted: Sequence[float], reference: Gaussian, rows: Sequence[Sequence[Sums]]) -> Measured:
    """Spearman's, of predicted losses with the distances of as many rows, each by the sums of its subsets.

    The 95 % interval is the bootstrap's: subsets are drawn with replacement, the same ones for all rows.
    """
    draw = np.random.default_rng(0)

    def correlation(subset: Sequence[int]) -> float:
        found = [frechet(reference, reduce(add, [row[g] for g in subset]).gaussian) for row in rows]
        return float(stats.spearmanr(predicted, found).statistic)

    count = len(rows[0])
    again = [correlation(draw.integers(count, size=count).tolist()) for _ in range(RESAMPLES)]
    low, high = np.quantile(again, [0.025, 0.975])
    return Measured(correlation(range(count)), float(low), float(high))
