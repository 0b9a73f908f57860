"""What the report says of pictures: Frechet distances from groups of features, and intervals by leaving groups out.

A study's pictures are dealt into groups in turn, so that every group has as many pictures of each class. Sums over
groups add up to sums over all, so that leaving a group out costs nothing but one more distance. The 95 % intervals are
those of the jackknife over groups (Efron & Stein, 1981): with G groups and theta_g what is found without group g,

    theta +- t(0.975, G - 1) sqrt((G - 1) / G  sum (theta_g - mean)^2)

All rows of a study share their noise, so what is compared is left out together, and a difference of two rows is known
better than either of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from tests.benchmarks.common import Estimate

Floats = npt.NDArray[np.float64]
GROUPS = 20
RESAMPLES = 200


@dataclass(frozen=True)
class Sums:
    """Sums over the pictures of each group: how many (G,), their features (G, F), the products of those (G, F, F)."""

    counts: Floats
    features: Floats
    products: Floats

    @classmethod
    def of(cls, features: npt.NDArray[np.floating], groups: int = GROUPS) -> Sums:
        """Of features (N, F); picture i is in group (i // 10) % G, so that groups have whole rounds of the classes."""
        values = np.asarray(features, dtype=np.float64)
        each = [values[(np.arange(len(values)) // 10) % groups == g] for g in range(groups)]
        return cls(
            np.array([len(some) for some in each], dtype=np.float64),
            np.stack([some.sum(axis=0) for some in each]),
            np.stack([some.T @ some for some in each]),
        )

    def moments(self, weights: Floats) -> tuple[Floats, Floats]:
        """Mean (F,) and covariance (F, F) with group g taken `weights`[g] times."""
        count = weights @ self.counts
        mean = (weights @ self.features) / count
        products = np.tensordot(weights, self.products, axes=1)
        return mean, (products - count * np.outer(mean, mean)) / (count - 1)


class Reference:
    """The pictures that distances are measured from."""

    def __init__(self, features: npt.NDArray[np.floating]) -> None:
        values = np.asarray(features, dtype=np.float64)
        self.mean = values.mean(axis=0)
        self.covariance = np.cov(values.T)
        levels, axes = np.linalg.eigh(self.covariance)
        self.root = (axes * np.sqrt(np.clip(levels, 0.0, None))) @ axes.T

    def distance(self, mean: Floats, covariance: Floats) -> float:
        """The Frechet distance |m - m_r|^2 + tr(S + S_r - 2 (S_r^1/2 S S_r^1/2)^1/2) (Heusel et al., 2017)."""
        levels = np.linalg.eigvalsh(self.root @ covariance @ self.root)
        offset = float(np.square(mean - self.mean).sum())
        traces = float(np.trace(covariance) + np.trace(self.covariance))
        return offset + traces - 2.0 * float(np.sqrt(np.clip(levels, 0.0, None)).sum())


def replicas(sums: Sums, reference: Reference) -> Floats:
    """(1 + G,): the distance of all pictures, then without each group."""
    groups = len(sums.counts)
    weights = np.vstack([np.ones(groups), 1.0 - np.eye(groups)])
    return np.array([reference.distance(*sums.moments(each)) for each in weights])


def interval(replicated: Floats) -> Estimate:
    """The first of (1 + G,) with its 95 % interval from the others."""
    value, left_out = float(replicated[0]), replicated[1:]
    groups = len(left_out)
    deviation = float(np.sqrt((groups - 1) / groups * np.square(left_out - left_out.mean()).sum()))
    half = float(stats.t.ppf(0.975, groups - 1)) * deviation
    return Estimate(value, value - half, value + half)


def compared(statistic: Callable[..., Floats], *replicated: Floats) -> Estimate:
    """`statistic` of distances (1 + G,) of several rows of one study, elementwise, with its interval."""
    return interval(np.asarray(statistic(*replicated)))


def shares(hits: npt.NDArray[np.bool_], groups: int = GROUPS) -> Estimate:
    """The share of hits (N,), with its interval over the same groups."""
    group = (np.arange(len(hits)) // 10) % groups
    kept = [hits] + [hits[group != g] for g in range(groups)]
    return interval(np.array([each.mean() for each in kept]))


def resampled(rows: Sequence[Sums], reference: Reference, resamples: int = RESAMPLES) -> Floats:
    """(resamples, rows): distances with groups drawn with replacement, the same ones for all rows."""
    groups = len(rows[0].counts)
    draw = np.random.default_rng(0)
    drawn = [np.bincount(draw.integers(groups, size=groups), minlength=groups) for _ in range(resamples)]
    return np.array([[reference.distance(*row.moments(w.astype(float))) for row in rows] for w in drawn])


def rank_correlation(predicted: Sequence[float], rows: Sequence[Sums], reference: Reference) -> Estimate:
    """Spearman's, of predicted losses with the distances of as many rows; bootstrap interval over groups."""
    found = np.array([reference.distance(*row.moments(np.ones(len(row.counts)))) for row in rows])
    value = float(stats.spearmanr(predicted, found).statistic)
    again = [float(stats.spearmanr(predicted, each).statistic) for each in resampled(rows, reference)]
    low, high = np.quantile(again, [0.025, 0.975])
    return Estimate(value, float(low), float(high))
