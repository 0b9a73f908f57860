"""Puts a row that was not enumerated into a plan's table, as the one that is chosen."""

from __future__ import annotations

from dataclasses import replace

from tstitch_cli.planning.sureness import judged
from tstitch_cli.schema import Plan, Row


def with_row(plan: Plan, row: Row) -> Plan:
    """`plan` with `row` where its time puts it, as the chosen one; rows that it beats are no Pareto rows any more."""
    at = sum(other.time_s.mean <= row.time_s.mean for other in plan.rows)
    rows = [replace(other, pareto=other.pareto and not _beats(plan, row, other)) for other in plan.rows]
    rows.insert(at, row)
    others = tuple(index + (index >= at) for index in plan.alternatives)
    kept = (at, *others[: max(0, len(others) - 1)])
    return replace(plan, rows=tuple(rows), chosen=at, alternatives=kept)


def _beats(plan: Plan, row: Row, other: Row) -> bool:
    mine, theirs = judged(plan, row), judged(plan, other)
    return row.time_s.mean <= other.time_s.mean and mine is not None and theirs is not None and mine > theirs
