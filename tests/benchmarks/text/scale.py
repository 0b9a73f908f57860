"""How large the text report is."""

from __future__ import annotations

from dataclasses import dataclass, replace

TENTHS = tuple(tenths / 10 for tenths in range(11))
"""Shares of the steps, in table 2."""
SOME = (0.0, 0.3, 0.5, 0.7, 1.0)
"""Where a row is dear; the claim that the first 30 % cost nothing is among them."""


@dataclass(frozen=True)
class Scale:
    """How many pictures, steps and calls."""

    steps: int
    """A multiple of 10, and at least as many as a cache takes."""
    pictures: int
    """Of each row of table 2 and of each denoiser alone, of seen and of held-out combinations each."""
    fewer: int
    """Of each row of the stylised model, the caches and the outlines; at most `pictures`."""
    few: int
    """Of each row of 2 and 4 steps."""
    rounds: int
    """Timed calls of each row."""
    real: int
    """Test pictures that the judge is held against."""
    at_once: int


FULL = Scale(steps=50, pictures=400, fewer=200, few=500, rounds=8, real=1000, at_once=100)
QUICK = replace(FULL, steps=10, pictures=100, fewer=100, few=100, rounds=3, real=200, at_once=50)
