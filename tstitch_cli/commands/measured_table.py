"""What was measured of a plan's rows as people read it: one table, or several where the terminal is too narrow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len
from rich.markup import escape
from rich.table import Table

from tstitch_cli.commands.edge import out, talk
from tstitch_cli.commands.measured_words import cell, heading, in_words, present
from tstitch_cli.commands.terminal import SafeConsole, printable
from tstitch_cli.planning.orders import SMALL_TO_LARGE
from tstitch_cli.quantities import shown_s
from tstitch_cli.schema import Plan

_BETWEEN, _EDGES = 3, 2
"""Characters between two columns of the box that is drawn, and at its two sides together."""


@dataclass(frozen=True)
class _Column:
    title: str
    cells: Sequence[str]
    """One for each row that is shown."""

    @property
    def width(self) -> int:
        return max(map(cell_len, (self.title, *self.cells)))


def show(plan: Plan, numbers: Sequence[int]) -> None:
    """Prints what was measured of the rows `numbers` on stdout, and on stderr what it holds for.

    What is no terminal gets one table, however wide.
    """
    for table, width in tables(plan, numbers, out.width if out.is_terminal else None):
        # A table that cannot be made narrow enough runs on into the next line rather than losing its figures.
        SafeConsole(width=max(out.width, width), highlight=False).print(table)
    if plan.evaluation is not None:
        talk.print(f"{in_words(plan.evaluation)}; ± is half of the 95 % interval", markup=False)


def tables(plan: Plan, numbers: Sequence[int], most: int | None) -> Iterator[tuple[Table, int]]:
    """Tables of the rows `numbers`, and the width of each in characters: up to `most` unless one metric takes more.

    Each can be read alone: it has the rows' numbers, steps and, where some differ in it, order. `most` None is any.
    """
    rows = [plan.rows[number] for number in numbers]
    first = [_Column("row", [f"{'> ' if number == plan.chosen else ''}{number}" for number in numbers])]
    for name in (denoiser.name for denoiser in plan.denoisers):
        first.append(_Column(printable(name), [str(row.steps.get(name, 0) or "-") for row in rows]))
    values = [_Column("mean", [shown_s(row.time_s.mean) for row in rows])]
    for name in present(plan.rows):
        values.append(_Column(heading(name), [cell(name, row.measured.get(name)) for row in rows]))
    ordered = any(row.order for row in plan.rows)
    last = [_Column("order", [row.order or SMALL_TO_LARGE for row in rows])] * ordered
    for part in _parts(values, None if most is None else most - _width([*first, *last]) - _BETWEEN):
        columns = [*first, *part, *last]
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for column in columns:
            table.add_column(escape(column.title), justify="right", no_wrap=True)
        for index, number in enumerate(numbers):
            cells = (column.cells[index] for column in columns)
            table.add_row(*cells, style="bold green" if number == plan.chosen else "")
        yield table, _width(columns)


def _parts(columns: Sequence[_Column], most: int | None) -> list[list[_Column]]:
    """`columns` in turn, as many together as take up to `most` characters, and one at least."""
    parts: list[list[_Column]] = []
    for column in columns:
        if parts and (most is None or _width([*parts[-1], column]) - _EDGES <= most):
            parts[-1].append(column)
        else:
            parts.append([column])
    return parts


def _width(columns: Sequence[_Column]) -> int:
    """Characters of a table of `columns`."""
    return sum(column.width for column in columns) + _BETWEEN * (len(columns) - 1) + _EDGES
