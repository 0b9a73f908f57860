"""How much longer than predicted the next call may take, told from calls that were made. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, stdev

import numpy as np

from tstitch_cli.confidence import quantile_of_t


def spread(ratios: Sequence[float], quantiles: Sequence[float]) -> dict[str, float]:
    """{"p95": ratio, ...}: what a share `quantile` of the calls to come stay within.

    `ratios` (n,) are times of calls over what was predicted for them. Of n calls, the k-th fastest bounds the next one
    with probability k / (n + 1), so a quantile q is found at place q (n + 1) of them (Weibull's; the plain empirical
    quantile would be kept less often than q). Where that is beyond the slowest, as p95 is of fewer than 19 calls,
    Student's prediction interval tells, mean + t s sqrt(1 + 1 / n), and the slowest call is the least.
    """
    return {f"p{round(q * 100)}": _next_within(ratios, q) for q in quantiles}


def _next_within(ratios: Sequence[float], q: float) -> float:
    n = len(ratios)
    among = float(np.quantile(ratios, q, method="weibull"))
    if n < 2 or q * (n + 1) <= n:
        return among
    return max(among, fmean(ratios) + quantile_of_t(q, n - 1) * stdev(ratios) * (1 + 1 / n) ** 0.5)
