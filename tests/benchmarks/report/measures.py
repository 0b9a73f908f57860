"""What the report says of pictures: Frechet distances of rows that share their noise, and intervals of comparisons.

The intervals are those of `tstitch_cli.quality.statistics`: the jackknife over subsets. Rows of one study draw the same
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

from tstitch_cli.quality.statistics import Described, Gaussian, Sums, frechet, interval, subsets, without_each
from tstitch_cli.schema import Measured

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


def resampled(reference: Gaussian, rows: Sequence[Sequence[Sums]]) -> Floats:
    """(1 + RESAMPLES, rows): the distances of rows given by the sums of their subsets, then with subsets drawn anew.

    The subsets are drawn with replacement, the same ones for all rows.
    """
    draw = np.random.default_rng(0)
    count = len(rows[0])
    drawn = [range(count), *(draw.integers(count, size=count).tolist() for _ in range(RESAMPLES))]
    return np.array(
        [[frechet(reference, reduce(add, [row[g] for g in some]).gaussian) for row in rows] for some in drawn]
    )


def rank_correlation(predicted: Sequence[float], distances: Floats) -> Measured:
    """Spearman's, of predicted losses (rows) with `resampled` distances; the 95 % interval is the bootstrap's."""
    return _bootstrapped(_ranks(predicted, distances))


def correlation_lead(one: Sequence[float], other: Sequence[float], distances: Floats) -> Measured:
    """By how much `one` ranks the rows better than `other`, both held against the same resampled distances."""
    return _bootstrapped(_ranks(one, distances) - _ranks(other, distances))


def _ranks(predicted: Sequence[float], distances: Floats) -> Floats:
    """(1 + RESAMPLES,) Spearman's rank correlations."""
    return np.array([float(stats.spearmanr(predicted, each).statistic) for each in distances])


def _bootstrapped(found: Floats) -> Measured:
    low, high = np.quantile(found[1:], [0.025, 0.975])
    return Measured(float(found[0]), float(low), float(high))
