"""Sheets of pictures for each part: prompts down, what draws them across."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from PIL import Image

from tests.benchmarks.report import draw
from tests.benchmarks.report.engine import SEED, evaluations_of
from tests.benchmarks.report.figure import Figure
from tests.benchmarks.text.bench import Bench
from tstitch_cli.allocation import Allocation, per_evaluation
from tstitch_cli.clocks import HostClock
from tstitch_cli.denoisers import Family
from tstitch_cli.images import contact_sheet, save_sheet
from tstitch_cli.inputs import NOTHING, Given
from tstitch_cli.trajectory import Batch, run

FAMILIAR = (
    "a red sneaker on a yellow background",
    "two green bags on a white background",
    "a pink dress on a blue background",
)
HELD_OUT = (
    "a blue sneaker on a white background",
    "an orange pullover on a purple background",
    "two pairs of yellow trousers on a black background",
)
"""Of combinations that training never shows."""
PROMPTS = FAMILIAR + HELD_OUT
Pictures = Sequence[Image.Image]
"""One of each prompt."""


def drawn(family: Family, row: Allocation, prompts: Sequence[str] = PROMPTS, given: Given = NOTHING) -> Pictures:
    """A picture of each of `prompts` as `row` draws it, the same noise in every row."""
    batch = Batch(tuple(prompts), tuple(range(len(prompts))), SEED, given=given)
    return run(family, batch, per_evaluation(row, evaluations_of(family)), HostClock()).images


def with_sheet(
    bench: Bench, figure: Figure, columns: Mapping[str, Pictures], prompts: Sequence[str] = PROMPTS
) -> Figure:
    """`figure` with its own picture and, below, a sheet of the `columns`, each with a picture of every prompt."""
    own, name = f"{figure.name}.png", f"{figure.name}-sheet.png"
    draw.png(figure, bench.out / own)
    labels = [f"{prompt} (never seen)" if prompt in HELD_OUT else prompt for prompt in prompts]
    rows = list(zip(*columns.values(), strict=True))
    save_sheet(bench.out / name, contact_sheet(rows, labels, list(columns)), overwrite=True)
    return replace(figure, pictures=(own, name))
