"""Draws the sheet of a sweep: what sample --sweep and demo share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tstitch_cli.commands.drawing import HERE, SWEEP, loaded, order_of, refuse
from tstitch_cli.commands.edge import out, steps_bar, talk
from tstitch_cli.jobs.request import Request
from tstitch_cli.schema import Plan, Row

if TYPE_CHECKING:
    from PIL.Image import Image

    from tstitch_cli.sample import Column


def draw_sweep(
    plan: Plan,
    row: Row,
    request: Request,
    *,
    allow_stale: bool = False,
    tenths: Sequence[int] | None = None,
    scale: int = 1,
) -> None:
    """The paper's figure: prompts down, fraction of the small denoiser across, the same noise in every column.

    Of the eleven fractions those of `tenths`, unless that is None; `scale` is that of `contact_sheet`.
    """
    from tstitch_cli import truncation
    from tstitch_cli.images import save_sheet
    from tstitch_cli.sample import TENTHS, sweep

    tenths = TENTHS if tenths is None else tenths
    entries = refuse(plan, row, request, sweep=True, allow_stale=allow_stale)
    small, large = plan.denoisers[0].name, plan.denoisers[-1].name
    batches = request.batches(plan.setting.batch_size)
    columns: list[Column] = []
    with steps_bar() as bar:
        bar("loading " + ", ".join(d.name for d in plan.denoisers), 0.0)
        order = order_of(plan, row, request, entries)
        HERE.identify(plan, order, allow_stale=allow_stale)
        ends = replace(order.work, allocation=((small, 1), (large, 1)))
        family, clock = loaded(replace(order, work=ends), batches[0], bar)
        for remark in truncation.remarks(family.pipeline, request.texts):
            talk.print(remark, style="yellow", markup=False)
        bar(f"{small} for the first {tenths[0] / 10:.0%}", 0.0)
        for column in sweep(family, order.work, batches, clock, request.given, tenths):
            columns.append(column)
            bar(f"{small} for the first {column.fraction:.0%}", len(columns) / len(tenths))
    prompts = [picture.prompt for pictures in batches for picture in pictures]
    path = request.folder / SWEEP
    save_sheet(path, sheet_of(columns, prompts, small, large, scale), overwrite=request.overwrite)
    out.print(str(path), markup=False)


def sheet_of(columns: Sequence[Column], prompts: Sequence[str], small: str, large: str, scale: int = 1) -> Image:
    """The sheet of a sweep from `small` to `large`, with a row for each of `prompts`; see `contact_sheet`."""
    from tstitch_cli.images import contact_sheet

    rows = [[column.images[p] for column in columns] for p in range(len(prompts))]
    labels = [f"{column.fraction:.0%}" for column in columns]
    seconds = [f"{column.seconds:.2f} s" for column in columns]
    title = f"{small}, then {large}: share of the first steps that {small} takes, and the time of the call"
    return contact_sheet(rows, prompts, labels, seconds, title, scale)
