"""The best row to the step, beside a table in steps of 10 %."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.builders import measured
from tests.unit.test_exact import agreeing
from tstitch_cli.formats.consistency import faults_of_plan
from tstitch_cli.plan import make_plan
from tstitch_cli.planning import refined_row
from tstitch_cli.planning.orders import SMALL_TO_LARGE
from tstitch_cli.planning.refined_row import with_refined
from tstitch_cli.quantities import parse_budget
from tstitch_cli.schema import Plan, Profile


def plans(profile: Profile, asked: str, order: str = SMALL_TO_LARGE, top: int = 1) -> tuple[Plan, Plan]:
    """The plan of the table alone, and the refined one."""
    budget = parse_budget(asked)
    table = make_plan(profile, budget=budget, order=order, top=top)
    return table, with_refined(table, profile, budget=budget, objective=None, order=order)


@pytest.mark.parametrize("asked", ["25%", "33%", "47%", "71%", "93%"])
@pytest.mark.parametrize("profile", [measured(50, (0.01, 0.1)), measured(35), agreeing(20)], ids=["pair", "35", "loss"])
def test_it_is_the_best_of_all_whole_steps(profile: Profile, asked: str) -> None:
    table, refined = plans(profile, asked)
    finest = make_plan(profile, budget=parse_budget(asked), increment=1 / profile.setting.steps)
    best, row = finest.rows[finest.chosen], refined.rows[refined.chosen]
    assert row.steps == best.steps
    assert row.time_s.within <= refined.budget.seconds
    assert len(refined.rows) - len(table.rows) == (row.steps != table.rows[table.chosen].steps)
    assert [each.time_s.mean for each in refined.rows] == sorted(each.time_s.mean for each in refined.rows)
    assert list(faults_of_plan(refined)) == []


def test_it_uses_what_ten_percent_leave() -> None:
    table, refined = plans(measured(50, (0.01, 0.1)), "27%")
    before, after = (plan.rows[plan.chosen].time_s.within / plan.budget.seconds for plan in (table, refined))
    assert before < 0.75 < 0.95 < after <= 1


def test_rows_that_it_beats_are_no_longer_on_the_front() -> None:
    table, refined = plans(agreeing(20), "25%", top=2)
    row = refined.rows[refined.chosen]
    beaten = {r.allocation for r in refined.rows if r.time_s.mean >= row.time_s.mean and r.loss > row.loss}  # type: ignore[operator]
    assert beaten & {r.allocation for r in table.rows if r.pareto}
    assert not beaten & {r.allocation for r in refined.rows if r.pareto}
    assert row.pareto
    assert refined.alternatives[0] == refined.chosen
    assert len(refined.alternatives) == 2


def test_the_margin_is_kept() -> None:
    profile = replace(measured(50), steady=False, drift=0.2)
    _, refined = plans(profile, "60%")
    assert refined.rows[refined.chosen].time_s.within <= refined.budget.seconds / 1.2


def test_a_table_that_has_all_steps_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    table, refined = plans(measured(10), "60%")
    assert refined is table
    monkeypatch.setattr(refined_row, "MOST", 60)  # too many combinations for any increment
    table, refined = plans(measured(50), "60%")
    assert refined is table
