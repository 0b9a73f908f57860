"""Which rows of a lookup table are the best, which no other beats, and which are kept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tstitch_cli.planning.table import MAX_ROWS, Floats, Table

MAX_PARETO_ROWS = 2_000
"""Rows that are kept of a table of more than MAX_ROWS."""


def best(table: Table, quality: Floats, candidates: npt.NDArray[np.intp], top: int) -> list[int]:
    """The `top` best of the candidates, best first; equal ones by the steps of the largest denoiser, and so on."""
    if top < len(candidates):
        values = quality[candidates]
        candidates = candidates[values >= np.partition(values, -top)[-top]]
    # Its last key decides first; of one row in several orders, the usual one stands first.
    order = np.lexsort((-candidates, *table.steps[candidates].T, quality[candidates]))
    return [int(index) for index in candidates[order[::-1][:top]]]


def front(table: Table, quality: Floats) -> npt.NDArray[np.intp]:
    """The Pareto front of the allowed rows, fastest first: each row better than all faster ones.

    One row stands for equal ones.
    """
    order = np.argsort(table.mean_s)
    order = order[table.allowed[order]]
    # First, cheaply, those better than all before them; ties in time then want an exact order, of these few alone.
    few = order[_improves(quality[order])]
    few = few[np.lexsort((-quality[few], table.mean_s[few]))]
    return few[_improves(quality[few])]


def _improves(quality: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Which values are above all before them."""
    better: npt.NDArray[np.bool_] = quality > np.concatenate(([-np.inf], np.maximum.accumulate(quality)[:-1]))
    return better


def on_front(
    table: Table, quality: Floats, front: npt.NDArray[np.intp], rows: npt.NDArray[np.intp]
) -> npt.NDArray[np.bool_]:
    """Which rows no other row beats: they are on the front, or as fast and as good as one that is."""
    at = np.searchsorted(table.mean_s[front], table.mean_s[rows])
    same = front[np.minimum(at, len(front) - 1)]
    unbeaten: npt.NDArray[np.bool_] = table.mean_s[same] == table.mean_s[rows]
    unbeaten &= quality[same] == quality[rows]
    unbeaten &= table.allowed[rows]
    return unbeaten


def kept(rows: int, front: npt.NDArray[np.intp], always: Sequence[int]) -> npt.NDArray[np.intp]:
    """All rows, or of a huge table its Pareto rows, thinned evenly, with those that are kept always."""
    if rows <= MAX_ROWS:
        return np.arange(rows)
    if len(front) > MAX_PARETO_ROWS:
        front = front[np.linspace(0, len(front) - 1, MAX_PARETO_ROWS).round().astype(np.intp)]
    return np.union1d(front, np.array(always, dtype=np.intp))
