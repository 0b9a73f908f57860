"""Draws the sheet of a sweep: what sample --sweep and demo share."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tstitch_cli.commands.drawing import HERE, SWEEP, loaded, order_of, refuse
from tstitch_cli.commands.edge import out, steps_bar
from tstitch_cli.jobs.request import Request
from tstitch_cli.schema import Plan, Row

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image

    from tstitch_cli.sample import Column


def draw_sweep(plan: Plan, row: Row, request: Request, *, allow_stale: bool = False) -> None:
    """The paper's figure: prompts down, fraction of the small denoiser across, the same noise in every column."""
    from tstitch_cli.images import save_sheet
    from tstitch_cli.sample import sweep

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
        bar(f"{small} for the first 0 %", 0.0)
        for column in sweep(family, order.work, batches, clock, request.given):
            columns.append(column)
            bar(f"{small} for the first {column.fraction:.0%}", len(columns) / 11)
    prompts = [picture.prompt for pictures in batches for picture in pictures]
    path = request.folder / SWEEP
    save_sheet(path, sheet_of(columns, prompts, small, large), overwrite=request.overwrite)
    out.print(str(path), markup=False)


def sheet_of(columns: Sequence[Column], prompts: Sequence[str], small: str, large: str) -> Image:
    """The sheet of a sweep from `small` to `large`, with a row for each of `prompts`."""
    from tstitch_cli.images import contact_sheet

    rows = [[column.images[p] for column in columns] for p in range(len(prompts))]
    labels = [f"{column.fraction:.0%}" for column in columns]
    seconds = [f"{column.seconds:.2f} s" for column in columns]
    title = f"{small}, then {large}: share of the first steps that {small} takes, and the time of the call"
    return contact_sheet(rows, prompts, labels, seconds, title)
