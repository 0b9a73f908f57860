"""The lookup table of a plan as people read it: which rows of it are shown, and their columns."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rich import box
from rich.markup import escape
from rich.table import Table

from tstitch_cli.commands import measured_words
from tstitch_cli.planning.orders import DECREASING, SMALL_TO_LARGE
from tstitch_cli.quantities import shown_s

if TYPE_CHECKING:
    from tstitch_cli.schema import Plan

ROWS_SHOWN = 70
"""A table up to this long is printed whole."""
NEAR_SHOWN = 30
"""Pareto rows that are printed of a longer one."""


def lookup_table(made: Plan) -> Table:
    """Each of the shown rows: who takes how many steps, its time, and all that it can be judged by."""
    names = [denoiser.name for denoiser in made.denoisers]
    rows = [made.rows[index] for index in shown_rows(made)]
    most = max(row.compute for row in made.rows)
    other = made.budget.quantile not in (None, 0.95)
    seconds, unit = _clock(max(row.time_s.mean for row in rows))
    headings = ["row", *map(escape, names), f"mean {unit}", f"p95 {unit}"]
    headings += [f"{bound_words(made)} {unit}"] if other else []
    table = Table(title=_fits(made), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    with_loss = all(row.loss is not None for row in rows)
    headings += ["loss"] if with_loss else []
    metrics = measured_words.present(rows)
    headings += map(measured_words.heading, metrics)
    ordered = any(row.order for row in made.rows)
    for heading in (*headings, "compute", "fits", "Pareto", *["order"] * ordered):
        table.add_column(heading, justify="right", no_wrap=True)
    for index, row in zip(shown_rows(made), rows, strict=True):
        chosen = index == made.chosen
        cells = [f"{'> ' if chosen else ''}{index}"]
        for name in names:
            taken = row.steps.get(name, 0)
            cells.append(f"{taken} ({row.fractions.get(name, 0.0):.3g})" if taken else "-")
        cells += [seconds(row.time_s.mean), seconds(row.time_s.p95)]
        cells += [seconds(row.time_s.within)] if other else []
        cells += [f"{row.loss:.3f}"] if with_loss else []
        cells += [measured_words.cell(name, row.measured.get(name)) for name in metrics]
        cells.append(f"{row.compute / most:.0%}" if most else "-")
        fits = "refused" if row.refused is not None else "yes" if row.feasible else "no"
        cells += [fits, "yes" if row.pareto else "no", *[row.order or SMALL_TO_LARGE] * ordered]
        style = "bold green" if chosen else "cyan" if index in made.alternatives else "" if row.feasible else "dim"
        table.add_row(*cells, style=style)
    if any(row.order == DECREASING for row in rows):
        table.caption = f"{DECREASING}: one draw of the steps at random, always the same; others may do better or worse"
    return table


def _fits(made: Plan) -> str:
    """The title: what a row's time may come to."""
    return f"fits: {bound_words(made)} up to {shown_s(made.budget.plannable_s)}"


def _clock(longest_s: float) -> tuple[Callable[[float], str], str]:
    """How to write the seconds of one column, in one unit and with as many digits as its longest needs."""
    scale, unit = (1.0, "s") if longest_s >= 1 else (1e3, "ms")
    decimals = 3 if longest_s * scale < 10 else 2 if longest_s * scale < 100 else 1
    return lambda seconds: f"{seconds * scale:.{decimals}f}", unit


def bound_words(made: Plan) -> str:
    """Which time of a call the budget bounds: `mean`, `p95`."""
    return "mean" if made.budget.quantile is None else f"p{made.budget.quantile * 100:g}"


def shown_rows(made: Plan) -> list[int]:
    """All rows of a short table; of a long one the Pareto rows nearest to the budget, and the chosen ones."""
    if len(made.rows) <= ROWS_SHOWN:
        return list(range(len(made.rows)))
    front = [index for index, row in enumerate(made.rows) if row.pareto]
    near = sorted(front, key=lambda index: abs(made.rows[index].time_s.within - made.budget.seconds))[:NEAR_SHOWN]
    return sorted({*near, *made.alternatives[:NEAR_SHOWN]})
