"""Every combination of fractions at once, as arrays: A.1's enumeration, its whole steps and its intervals."""

from __future__ import annotations

from collections.abc import Iterator
from math import comb

import numpy as np
import numpy.typing as npt

from tstitch_cli.allocation import units_of
from tstitch_cli.errors import UsageError


def combinations(denoisers: int, increment: float) -> npt.NDArray[np.int16]:
    """Every way to share 1 among `denoisers` in steps of `increment`, zero shares included (A.1's enumeration).

    Returns (N, K) integer units of the increment, each row summing to 1 / increment, in lexicographic order;
    N = C(units + K - 1, K - 1), which is 66 for three denoisers at 0.1 and 4,598,126 for five at 0.01.

    Raises:
        UsageError: the increment does not divide 1, or there would be more than 20 million rows.
    """
    units = units_of(increment)
    count = comb(units + denoisers - 1, denoisers - 1)
    if count > 20_000_000:
        raise UsageError(
            f"{denoisers} denoisers at an increment of {increment:g} are {count:,} combinations",
            hint="use a coarser --increment or fewer denoisers",
        )
    # Column by column: each prefix with `left` units to give is repeated once for every share the next one can take.
    columns: list[npt.NDArray[np.int16]] = []
    left = np.array([units], dtype=np.int16)
    for _ in range(denoisers - 1):
        repeats = left.astype(np.int64) + 1
        starts = np.cumsum(repeats) - repeats
        share = (np.arange(repeats.sum()) - np.repeat(starts, repeats)).astype(np.int16)
        columns = [np.repeat(column, repeats) for column in columns]
        columns.append(share)
        left = np.repeat(left, repeats) - share
    columns.append(left)
    return np.stack(columns, axis=1)


def whole_steps_of_units(units: npt.NDArray[np.integer], total: int) -> npt.NDArray[np.int16]:
    """`whole_steps` of every row of `units` (N, K), integers with one common row sum; returns (N, K)."""
    denominator = int(units[0].sum())
    if total % denominator == 0:
        return (units * np.int16(total // denominator)).astype(np.int16, copy=False)
    count = units.shape[1]
    exact = [units[:, k].astype(np.int32) * np.int32(total) for k in range(count)]
    steps = [each // np.int32(denominator) for each in exact]
    # One integer orders by remainder and then by position, so that no sorting is needed.
    keys = [(exact[k] - steps[k] * np.int32(denominator)) * np.int32(count) + np.int32(k) for k in range(count)]
    left = np.int32(total) - sum(steps)
    rounded = np.empty(units.shape, dtype=np.int16)
    for k in range(count):
        ahead = np.zeros(len(units), dtype=np.int8)
        for other in range(count):
            if other != k:
                ahead += keys[other] > keys[k]
        rounded[:, k] = steps[k] + (ahead < left)
    return rounded


def intervals(steps: npt.NDArray[np.integer]) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
    """Yields, for each denoiser, the steps done before and after its interval: (N,) and (N,), of rows (N, K)."""
    before = np.zeros(len(steps), dtype=np.intp)
    for k in range(steps.shape[1]):
        after = before + steps[:, k]
        yield before, after
        before = after
