"""Whether calls take another time than was predicted for them, beyond what chance explains. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist, fmean

from tstitch_cli.schema import Times

TOLERATED = 0.05
FIRST = 10
"""Calls by which a run is compared with its prediction."""


def drift_of(predicted: Times, seconds: Sequence[float]) -> float | None:
    """By which share the first FIRST of these warm calls with full batches took longer than predicted, or less long.

    None where that is at most TOLERATED, or no more than the spread that the profile measured explains: the mean of n
    calls lies within 1.96 standard errors of the predicted one in 95 % of all runs, the standard deviation of a call
    being told by the prediction's own p95.
    """
    first = seconds[:FIRST]
    if not first:
        return None
    off = fmean(first) / predicted.mean - 1.0
    normal = NormalDist()
    deviation = max(0.0, predicted.p95 / predicted.mean - 1.0) / normal.inv_cdf(0.95)
    by_chance = normal.inv_cdf(0.975) * deviation / len(first) ** 0.5
    return off if abs(off) > max(TOLERATED, by_chance) else None


def warning(predicted: Times, seconds: Sequence[float]) -> str | None:
    """What to tell of `drift_of`, and what to do about it; None where there is nothing to tell."""
    off = drift_of(predicted, seconds)
    if off is None:
        return None
    calls = min(FIRST, len(seconds))
    which = "the first call" if calls == 1 else f"the first {calls} calls"
    than = "longer than predicted, so the machine is slower" if off > 0 else "less than predicted, so it is faster"
    return (
        f"{which} took {abs(off):.0%} {than} than when it was profiled: `tstitch verify` tells whether the plan "
        "still holds, `tstitch profile` and `tstitch plan` make a new one"
    )
