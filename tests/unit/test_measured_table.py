"""The table that `tstitch evaluate` prints: whole where there is room, in parts that fit where there is not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.cells import cell_len

from tests.builders import NAMES, planned
from tstitch_cli.commands import measured_table
from tstitch_cli.commands.measured_words import cell, heading
from tstitch_cli.commands.terminal import SafeConsole
from tstitch_cli.quality.metrics import METRICS
from tstitch_cli.schema import Measured, Plan

OF_TEXT = [name for name in METRICS if name != "accuracy"]
"""All that is measured of a bundled family that is drawn from sentences."""
ROWS = (0, 3, 39)


@pytest.fixture
def plan() -> Plan:
    """Every row has all of these metrics, no value twice; the last of ROWS is the chosen one."""
    made = planned()
    assert made.chosen == ROWS[-1]

    def measured(number: int) -> dict[str, Measured]:
        values = {name: 0.001 * number + 0.05 * (1 + column) for column, name in enumerate(OF_TEXT)}
        return {name: Measured(value, value - 0.02, value + 0.01) for name, value in values.items()}

    return replace(made, rows=tuple(replace(row, measured=measured(i)) for i, row in enumerate(made.rows)))


def printed(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int, terminal: bool = True
) -> list[list[str]]:
    """The lines of each table that is printed, its heading first, without the rule below that."""
    out = SafeConsole(width=width, force_terminal=terminal)
    monkeypatch.setattr(measured_table, "out", out)
    measured_table.show(plan, ROWS)
    tables: list[list[str]] = []
    for line in capsys.readouterr().out.splitlines():
        if line.split()[:1] == ["row"]:
            tables.append([])
        if line.strip(" ─"):
            tables[-1].append(line)
    return tables


@pytest.mark.parametrize(
    ("width", "widths"),
    [(100, [98, 88, 74]), (98, [98, 88, 74]), (97, [83, 88, 89]), (60, [54, 58, 58, 59, 59, 59])],
)
def test_a_terminal_too_narrow_for_all_metrics_gets_tables_that_fit(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int, widths: list[int]
) -> None:
    tables = printed(plan, monkeypatch, capsys, width)
    assert [{cell_len(line) for line in table} for table in tables] == [{each} for each in widths]
    for table in tables:
        assert table[0].split()[:4] == ["row", *NAMES]
        for number, line in zip(ROWS, table[1:], strict=True):
            steps = [str(plan.rows[number].steps.get(name, 0) or "-") for name in NAMES]
            assert line.removeprefix(" >").split()[:4] == [str(number), *steps]
    # Side by side they are all there is, in the order of METRICS.
    headings = " ".join(" ".join(table[0].split()[4:]) for table in tables)
    assert headings == " ".join(["mean", *map(heading, OF_TEXT)])
    for index, number in enumerate(ROWS, start=1):
        values = " ".join(" ".join(table[index].removeprefix(" >").split()[4:]) for table in tables)
        assert values.endswith(" ".join(cell(name, plan.rows[number].measured[name]) for name in OF_TEXT))


@pytest.mark.parametrize(("width", "terminal"), [(202, True), (300, True), (80, False)])
def test_there_is_one_table_where_there_is_room_and_for_what_is_no_terminal(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int, terminal: bool
) -> None:
    (table,) = printed(plan, monkeypatch, capsys, width, terminal)
    assert len(table) == 1 + len(ROWS)
    assert all(heading(name) in table[0] for name in OF_TEXT)


def test_where_one_metric_takes_more_than_there_is_nothing_is_lost(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = printed(plan, monkeypatch, capsys, 20)
    assert len(tables) == 1 + len(OF_TEXT)
    assert not any("…" in line for table in tables for line in table)
    assert cell("style", plan.rows[3].measured["style"]) in tables[-1][2]


def test_the_order_of_rows_that_differ_in_nothing_else_is_in_every_table(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    turned = replace(plan.rows[3], order="large to small")
    tables = printed(replace(plan, rows=(*plan.rows[:3], turned, *plan.rows[4:])), monkeypatch, capsys, 100)
    assert len(tables) > 1
    for table in tables:
        assert [line.rstrip().endswith(("order", "large")) for line in table] == [True, True, False, True]
        assert table[2].rstrip().endswith("large to small")
        assert max(map(cell_len, table)) <= 100
