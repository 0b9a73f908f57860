"""How large the report is, and the settings and rows of every study in it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tests.benchmarks.common import BASE, LARGE, SMALL
from tests.benchmarks.report.engine import Study
from tstitch_cli.allocation import Allocation, collapse, runs, whole_steps
from tstitch_cli.schema import Setting

ALL = (SMALL, BASE, LARGE)
FIFTHS = (0, 2, 4, 6, 8, 10)
"""Shares of the steps in tenths."""


@dataclass(frozen=True)
class Scale:
    """How many pictures, and how many steps."""

    rows_pictures: int
    """Of each of the 66 rows; a multiple of 200, as all."""
    pictures: int
    """Of every other row."""
    rows_steps: int
    base_steps: int
    """Where nothing else is said; a multiple of 10, as all steps here."""
    steps: tuple[int, ...]
    """Of figure 8; the base steps are among them."""
    sampler_steps: int
    """Of figure 9; among `steps`."""
    fewer: tuple[int, ...]
    """Steps that the large model takes alone in figure 15, besides `steps`."""
    guidances: tuple[float, ...]
    early: float
    """Share of its schedule that the small model of figure 18 is trained for."""
    early_pictures: int
    """Training pictures that it sees, from the first; all of them are 60,000."""
    profile_s: float
    """The most seconds that a profile takes."""
    analysed: int
    """Pictures of figures 3 and 11."""
    at_once: int


FULL = Scale(
    rows_pictures=1000,
    pictures=400,
    rows_steps=20,
    base_steps=20,
    steps=(10, 20, 50, 100),
    sampler_steps=20,
    fewer=(4, 6, 8, 12, 16),
    guidances=(1.5, 2.0, 3.0),
    early=0.1,
    early_pictures=60_000,
    profile_s=60.0,
    analysed=64,
    at_once=200,
)
QUICK = replace(
    FULL,
    rows_pictures=200,
    pictures=200,
    rows_steps=10,
    base_steps=10,
    steps=(10, 20),
    sampler_steps=10,
    fewer=(6,),
    early=0.01,
    early_pictures=6_000,
    profile_s=20.0,
    analysed=16,
)


def fraction(small: str, large: str, tenths: int, steps: int) -> Allocation:
    """`small` for the first `tenths` of the steps, then `large`."""
    return runs((small, large), whole_steps((tenths, 10 - tenths), steps))


def pair(name: str, setting: Setting, pictures: int, *, small: str = SMALL, large: str = LARGE) -> Study:
    """Fifths of the steps by `small`, the others by `large`."""
    rows = tuple(fraction(small, large, tenths, setting.steps) for tenths in FIFTHS)
    return Study(name, setting, (small, large), rows, pictures)


def table(setting: Setting, pictures: int) -> Study:
    """All 66 rows of three denoisers in tenths, small to large."""
    units = [(i, j, 10 - i - j) for i in range(11) for j in range(11 - i)]
    rows = tuple(runs(ALL, whole_steps(each, setting.steps)) for each in units)
    return Study("rows", setting, ALL, rows, pictures)


def orders(steps: int) -> dict[str, Allocation]:
    """Half of the steps each, in the four orders of the paper's table 7."""
    half = steps // 2
    return {
        "small to large": ((SMALL, half), (LARGE, steps - half)),
        "decreasing probability of the small": collapse(decreasing(steps)),
        "interleaved": collapse((SMALL, LARGE)[step % 2] for step in range(steps)),
        "large to small": ((LARGE, half), (SMALL, steps - half)),
    }


def decreasing(steps: int) -> Sequence[str]:
    """A small model whose probability falls linearly from 1 to 0, drawn until it has half of the steps."""
    draw = random.Random(0)
    while True:
        drawn = [SMALL if draw.random() > (step + 0.5) / steps else LARGE for step in range(steps)]
        if drawn.count(SMALL) == steps // 2:
            return drawn
