"""What is measured of pictures, from sums over them that merge, and how sure it is.

Of N pictures with features f_i (D) and class probabilities p_i (C), the sums of 1, f, f f^T, p and p log p are kept
in float64. Sums of disjoint sets add up to those of their union, and give

    Frechet distance |m - m_r|^2 + tr(S + S_r - 2 (S_r^(1/2) S S_r^(1/2))^(1/2))     (Heusel et al., 2017)
    Inception score  exp(1/N sum_i sum_c p_ic log p_ic - sum_c q_c log q_c), q the mean of p   (Salimans et al., 2016;
                     over all pictures at once, not over ten splits, whose mean would depend on their size)

with m, S the mean and covariance (N - 1 in the denominator). The trace is computed from the eigenvalues of a symmetric
matrix, which are real and not negative, and equals that of (S S_r)^(1/2).

How sure: the Frechet distance of a sample is biased upward by about b / N, so the values of small subsets are about
something else, and their mean is not the value of all. The pictures are therefore cut into G disjoint subsets, and
the value is computed G times with one of them left out, t_1 ... t_G, each of N (1 - 1/G) pictures. These all have the
same bias, which drops out of their differences. A statistic of N independent pictures is to first order a constant
plus a mean over them, t = c + (a_1 + ... + a_G) / G with a_g the mean of subset g; then t_g - mean t =
(mean a - a_g) / (G - 1), so that the variance of t, that of the a_g over G, is estimated by (Tukey's jackknife)

    v = (G - 1) / G  sum_g (t_g - mean t)^2

The interval is the value of all N pictures -+ t_{G-1} sqrt(v), t_{G-1} Student's 97.5 % quantile: it holds what
repeating the whole evaluation with N other pictures would give, and is comparable between rows of the same N.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import add
from typing import TypeVar

import torch

from tstitch_cli.schema import Measured

SUBSETS = 10
STUDENT_T = 2.262
"""The 97.5 % quantile of Student's t for SUBSETS - 1 degrees of freedom."""
FEWEST = 2 * SUBSETS
"""Pictures below which nothing is measured."""

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Described:
    """What is known of each of B pictures; what was not measured has no columns."""

    features: torch.Tensor
    """(B, D) float32."""
    probabilities: torch.Tensor
    """(B, C) float32, of the classes."""
    clip: torch.Tensor
    """(B, 1) float32, the CLIP score in [0, 100], or (B, 0)."""
    hits: torch.Tensor
    """(B, metrics of the extractor's judge) float32, see `judging.Judge.hits`."""

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, which: slice) -> Described:
        return Described(self.features[which], self.probabilities[which], self.clip[which], self.hits[which])


def joined(parts: Sequence[Described]) -> Described:
    """The pictures of all parts, in order."""
    columns = ("features", "probabilities", "clip", "hits")
    return Described(*(torch.cat([getattr(part, column) for part in parts]) for column in columns))


@dataclass(frozen=True, eq=False)
class Sums:
    """Sums over N pictures, float64."""

    count: int
    features: torch.Tensor
    """(D,) sum of f."""
    products: torch.Tensor
    """(D, D) sum of f f^T."""
    probabilities: torch.Tensor
    """(C,) sum of p."""
    information: float
    """Sum of p log p over pictures and classes, in nats."""

    @classmethod
    def of(cls, described: Described) -> Sums:
        """Of the pictures `described`."""
        features, probabilities = described.features.double(), described.probabilities.double()
        return cls(
            count=len(described),
            features=features.sum(0),
            products=features.T @ features,
            probabilities=probabilities.sum(0),
            information=float(torch.xlogy(probabilities, probabilities).sum()),
        )

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            self.count + other.count,
            self.features + other.features,
            self.products + other.products,
            self.probabilities + other.probabilities,
            self.information + other.information,
        )

    @property
    def gaussian(self) -> Gaussian:
        """Mean and covariance of the features."""
        mean = self.features / self.count
        scatter = self.products - self.count * torch.outer(mean, mean)
        return Gaussian(mean, scatter / (self.count - 1))

    @property
    def inception_score(self) -> float:
        """How sure and how various the classes are; from 1 to their number."""
        mean = self.probabilities / self.count
        return math.exp(self.information / self.count - float(torch.xlogy(mean, mean).sum()))


@dataclass(frozen=True, eq=False)
class Gaussian:
    """The mean (D,) and covariance (D, D) of features, float64."""

    mean: torch.Tensor
    covariance: torch.Tensor

    @cached_property
    def root(self) -> torch.Tensor:
        """(D, D), the symmetric square root of the covariance."""
        values, vectors = torch.linalg.eigh(self.covariance)
        return (vectors * values.clamp(min=0.0).sqrt()) @ vectors.T


def frechet(reference: Gaussian, drawn: Gaussian) -> float:
    """The Frechet distance between two Gaussians; the reference's root is computed once."""
    product = reference.root @ drawn.covariance @ reference.root
    mixed = torch.linalg.eigvalsh((product + product.T) / 2).clamp(min=0.0).sqrt().sum()
    apart = (reference.mean - drawn.mean).square().sum()
    return float(apart + reference.covariance.trace() + drawn.covariance.trace() - 2.0 * mixed)


def subsets(count: int) -> list[slice]:
    """SUBSETS blocks of consecutive pictures, as equal as can be: prompts come in turn, so each has all of them."""
    ends = [count * g // SUBSETS for g in range(SUBSETS + 1)]
    return [slice(a, b) for a, b in itertools.pairwise(ends)]


def without_each(parts: Sequence[Sums]) -> list[Sums]:
    """The sums of all parts but the first, all but the second, and so on."""
    return [reduce(add, [*parts[:g], *parts[g + 1 :]]) for g in range(len(parts))]


def interval(value: float, left_out: Sequence[float], least: float = -math.inf, most: float = math.inf) -> Measured:
    """`value` with its 95 % interval from the SUBSETS values `left_out`, within what is possible; see the module."""
    value = min(max(value, least), most)  # rounding may leave a distance of 0 below it
    mean = math.fsum(left_out) / len(left_out)
    variance = (len(left_out) - 1) / len(left_out) * math.fsum((each - mean) ** 2 for each in left_out)
    half = STUDENT_T * math.sqrt(variance)
    return Measured(value, max(least, value - half), min(most, value + half))


def jackknifed(
    parts: Sequence[Sums], statistic: Callable[[Sums], float], least: float = -math.inf, most: float = math.inf
) -> Measured:
    """`statistic` of all parts together, with its interval."""
    return interval(statistic(reduce(add, parts)), [statistic(sums) for sums in without_each(parts)], least, most)


def mean(values: torch.Tensor, least: float = -math.inf, most: float = math.inf) -> Measured:
    """The mean of `values` (N,), at least SUBSETS of them, one of each picture, with its interval."""
    exact = values.double()
    left_out = [torch.cat([exact[: part.start], exact[part.stop :]]) for part in subsets(len(exact))]
    return interval(float(exact.mean()), [float(each.mean()) for each in left_out], least, most)
