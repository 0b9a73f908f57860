"""How far a mean of few values may be off: Student's t."""

from __future__ import annotations

from statistics import NormalDist

_TABLE = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""The 97.5 % quantile of Student's t for 1, 2 ... degrees of freedom."""


def student_t(count: int) -> float:
    """The 97.5 % quantile for the mean of `count` values, which are 2 at least.

    From a table, above it by `quantile_of_t`.
    """
    v = count - 1
    if v <= len(_TABLE):
        return _TABLE[v - 1]
    return quantile_of_t(0.975, v)


def quantile_of_t(q: float, v: int) -> float:
    """Quantile `q` of Student's t for `v` degrees of freedom.

    By the Cornish-Fisher expansion (Abramowitz & Stegun, 26.7.5).
    """
    z = NormalDist().inv_cdf(q)
    return z + (z**3 + z) / (4 * v) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
