"""In which order denoisers take their steps: small to large and the alternatives of the paper's table 7."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

SMALL_TO_LARGE = "small to large"
LARGE_TO_SMALL = "large to small"
INTERLEAVED = "interleaved"
DECREASING = "decreasing"
ORDERS = (SMALL_TO_LARGE, LARGE_TO_SMALL, INTERLEAVED, DECREASING)
"""`small to large` and `large to small`: one interval each. `interleaved`: the steps of each spread evenly.
`decreasing`: at random, the smaller the likelier, with a probability that falls evenly to 0 at the last step."""
EXACT = "exact"
"""The order of a row that was not enumerated: the best of all assignments, see `exact`."""
_SEED = 0

Taken = npt.NDArray[np.int16]


def arranged(order: str, steps: npt.NDArray[np.integer]) -> Taken:
    """(N, T): who takes each step, where the denoisers take `steps` (N, K), cheapest first, in `order`.

    Every row of `steps` sums to T. The same steps always come to the same arrangement.
    """
    count = steps.shape[1]
    if order == DECREASING:
        return _decreasing(steps)
    columns = range(count) if order != LARGE_TO_SMALL else range(count - 1, -1, -1)
    rows = [[(k, int(n)) for k, n in zip(columns, row[list(columns)], strict=True)] for row in steps]
    place = _evenly if order == INTERLEAVED else _in_turn
    return np.array([place(row) for row in rows], dtype=np.int16)


def _in_turn(row: list[tuple[int, int]]) -> list[int]:
    return [k for k, n in row for _ in range(n)]


def _evenly(row: list[tuple[int, int]]) -> list[int]:
    """The i-th of a denoiser's n steps is due at (i + 1/2) / n of all; of two, the smaller first."""
    return [k for _, k in sorted(((i + 0.5) / n, k) for k, n in row for i in range(n))]


def _decreasing(steps: npt.NDArray[np.integer]) -> Taken:
    """Each denoiser in turn, from the smallest, draws its steps of those left, without replacement.

    A step's weight w falls evenly from the first to the last; the n steps with the largest u^(1/w), u uniform, are
    such a draw (Efraimidis & Spirakis, 2006).
    """
    total, count = int(steps[0].sum()), steps.shape[1]
    weight = 1.0 - (np.arange(total) + 0.5) / total
    keys = np.log(np.random.default_rng(_SEED).random((count, total))) / weight
    taken = np.full((len(steps), total), count - 1, dtype=np.int16)
    for row, counts in zip(taken, steps, strict=True):
        free = np.ones(total, dtype=bool)
        for k in range(count - 1):
            left = np.flatnonzero(free)
            drawn = left[np.argsort(-keys[k, left], kind="stable")[: counts[k]]]
            row[drawn], free[drawn] = k, False
    return taken
