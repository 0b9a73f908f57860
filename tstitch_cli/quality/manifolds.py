"""Precision and recall of pictures by nearest neighbours in feature space (Kynkäänniemi et al., 2019).

A set of points is taken for the union of balls around them, each reaching to its point's K-th nearest neighbour.
Precision is the share of the pictures inside the reference's balls, recall the share of the reference inside the
pictures' balls. Distances are computed in blocks, so that memory does not grow with the square of the numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from tstitch_cli.quality.statistics import interval
from tstitch_cli.schema import Measured

NEAREST = 3
MOST_POINTS = 10_000
"""Points beyond which more would only take time; Kynkäänniemi et al. take 50,000, ADM's tables 10,000 of each."""
_BLOCK = 1000


@dataclass(frozen=True, eq=False)
class Manifold:
    """Points (M, D) float32 and the balls around them."""

    points: torch.Tensor

    @cached_property
    def radii(self) -> torch.Tensor:
        """(M,): the distance from each point to its NEAREST-th nearest neighbour."""
        return torch.cat([_nearest(block, NEAREST)[:, -1] for _, block in _to_others(self.points)])


def precision_and_recall(
    reference: Manifold, points: torch.Tensor, parts: Sequence[slice]
) -> tuple[Measured, Measured]:
    """Of `points` (N, D), with intervals by the disjoint `parts` that they are made of; see `statistics`."""
    radii = _radii_without_each(points, parts)
    inside = torch.zeros(len(points), dtype=torch.bool)
    covered = torch.zeros(len(radii), len(reference.points), dtype=torch.bool)
    for start in range(0, len(reference.points), _BLOCK):
        rows = slice(start, start + _BLOCK)
        distances = torch.cdist(reference.points[rows], points)  # (block, N)
        inside |= (distances <= reference.radii[rows, None]).any(dim=0)
        for which, each in enumerate(radii):
            covered[which, rows] = (distances <= each).any(dim=1)
    kept = [torch.cat([inside[: part.start], inside[part.stop :]]) for part in parts]
    precisions, recalls = [_share(each) for each in kept], [_share(each) for each in covered]
    return interval(_share(inside), precisions, 0.0, 1.0), interval(recalls[0], recalls[1:], 0.0, 1.0)


def _radii_without_each(points: torch.Tensor, parts: Sequence[slice]) -> torch.Tensor:
    """(1 + parts, N): the radii of all points, then of those without each part, whose own are below every distance.

    The neighbours among all but one part are among the nearest ones of each part, so distances are looked at once.
    """
    radii = torch.full((1 + len(parts), len(points)), -1.0)
    for rows, distances in _to_others(points):
        near = [_nearest(distances[:, part], NEAREST) for part in parts]
        radii[0, rows] = _nearest(torch.cat(near, dim=1), NEAREST)[:, -1]
        for g in range(len(parts)):
            others = torch.cat(near[:g] + near[g + 1 :], dim=1)
            radii[1 + g, rows] = _nearest(others, NEAREST)[:, -1]
    for g, part in enumerate(parts):
        radii[1 + g, part] = -1.0
    return radii


def _to_others(points: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
    """Blocks of rows and their distances (block, N) to all points, to themselves infinite."""
    for start in range(0, len(points), _BLOCK):
        rows = slice(start, min(start + _BLOCK, len(points)))
        distances = torch.cdist(points[rows], points)
        own = torch.arange(start, rows.stop)
        distances[own - start, own] = torch.inf
        yield rows, distances


def _nearest(distances: torch.Tensor, count: int) -> torch.Tensor:
    """The `count` least distances of every row, ascending, or as many as there are."""
    return distances.topk(min(count, distances.shape[1]), dim=1, largest=False).values


def _share(flags: torch.Tensor) -> float:
    return float(flags.double().mean())
