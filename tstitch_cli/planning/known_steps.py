"""Which steps of a trajectory each denoiser knows the noise of, and which allocations that rules out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from tstitch_cli.errors import UsageError
from tstitch_cli.planning.combinations import intervals
from tstitch_cli.schema import DenoiserProfile, PlannedDenoiser

Known = tuple[int, int] | None
"""The first and the last known step, counted from 1; None for all of them."""


def of(denoisers: Iterable[DenoiserProfile | PlannedDenoiser]) -> dict[str, Known]:
    """What each of `denoisers` knows, by name."""
    return {denoiser.name: denoiser.knows for denoiser in denoisers}


def mask(steps: npt.NDArray[np.integer], knows: Sequence[Known]) -> npt.NDArray[np.bool_]:
    """Which rows of `steps` (N, K), taken in order, give every denoiser only steps it knows; returns (N,)."""
    good = np.ones(len(steps), dtype=bool)
    for known, (before, after) in zip(knows, intervals(steps), strict=True):
        if known is not None:
            good &= (before == after) | ((before >= known[0] - 1) & (after <= known[1]))
    return good


def broken(allocation: Iterable[tuple[str, int]], knows: Mapping[str, Known]) -> str | None:
    """Why an allocation is ruled out, as a sentence; None where it is not."""
    before = 0
    for name, count in allocation:
        known, after = knows.get(name), before + count
        if known is not None and count and not (known[0] <= before + 1 and after <= known[1]):
            given = f"step {after}" if count == 1 else f"steps {before + 1} to {after}"
            return f"{name} knows the noise of {said(known)}, not of {given}"
        before = after
    return None


def refuse_broken(allocation: Iterable[tuple[str, int]], denoisers: Iterable[PlannedDenoiser]) -> None:
    """Raises UsageError where `allocation` gives one of `denoisers` a step whose noise level it does not know."""
    reason = broken(allocation, of(denoisers))
    if reason is not None:
        raise UsageError(
            f"this allocation cannot be drawn: {reason}", hint="plan again, or take a row that the plan does not refuse"
        )


def said(known: tuple[int, int]) -> str:
    """A range of steps for people."""
    return f"step {known[0]}" if known[0] == known[1] else f"steps {known[0]} to {known[1]}"
