"""Which denoiser takes each step: fractions to whole steps, steps to runs, runs to evaluations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import groupby
from math import floor

from tstitch_cli.errors import UsageError

Allocation = tuple[tuple[str, int], ...]
"""(denoiser, steps) runs, noisiest first."""


def whole_steps(fractions: Sequence[float], total: int) -> tuple[int, ...]:
    """Rounds shares of `total` steps to whole steps that sum to `total`, by largest remainder.

    `fractions` (K,) need only be proportional to the shares, so integer units of an increment serve as well and are
    exact. Equal remainders go to the later denoiser, which is the larger one where they stand small to large.

    Raises:
        UsageError: a share is negative, or all are zero.
    """
    # 0.1 is meant as one tenth, not as the nearest binary number, or ties would be decided by float noise.
    shares = [Fraction(share).limit_denominator(1_000_000) for share in fractions]
    whole = sum(shares)
    if whole <= 0 or min(shares) < 0:
        raise UsageError(f"fractions must be at least 0 and not all 0, got {', '.join(map(str, fractions))}")
    exact = [share * total / whole for share in shares]
    steps = [floor(share) for share in exact]
    by_remainder = sorted(range(len(exact)), key=lambda k: (exact[k] - steps[k], k), reverse=True)
    for k in by_remainder[: total - sum(steps)]:
        steps[k] += 1
    return tuple(steps)


def runs(names: Sequence[str], steps: Sequence[int]) -> Allocation:
    """The allocation in the order of `names` (small to large by default); denoisers without steps are left out."""
    return tuple((name, int(count)) for name, count in zip(names, steps, strict=True) if count)


def expand(allocation: Iterable[tuple[str, int]]) -> tuple[str, ...]:
    """The denoiser of every step, noisiest first."""
    return tuple(name for name, steps in allocation for _ in range(steps))


def collapse(names_per_step: Iterable[str]) -> Allocation:
    """The inverse of `expand`."""
    return tuple((name, sum(1 for _ in run)) for name, run in groupby(names_per_step))


def per_evaluation(allocation: Iterable[tuple[str, int]], evaluations_per_step: Sequence[int]) -> tuple[str, ...]:
    """The denoiser of every evaluation; those of one step share theirs, so a second-order pair is never split.

    Raises:
        ValueError: the allocation does not cover exactly the steps of `evaluations_per_step` (T,).
    """
    steps = expand(allocation)
    return tuple(name for name, n in zip(steps, evaluations_per_step, strict=True) for _ in range(n))


def units_of(increment: float) -> int:
    """How many increments make 1.

    Raises:
        UsageError: `increment` does not divide 1, or is finer than 0.001.
    """
    units = round(1 / increment) if 0.0009 < increment <= 1 else 0
    # Some slack lets a third be written 0.3333: fractions are counted in whole units anyway.
    if not units or abs(units * increment - 1) > 1e-3 / units:
        near = sorted({1 / max(1, units + d) for d in (0, 1)}) if units else [0.05, 0.1, 0.2]
        raise UsageError(
            f"the increment {increment:g} does not divide 1 into equal parts",
            hint=f"use a whole part of 1 between 0.001 and 1, such as {', '.join(f'{n:.4g}' for n in near)}",
        )
    return units
