"""Intervals of predicted losses, and whether the next best row is really worse."""

from __future__ import annotations

import numpy as np
import pytest

from tests.builders import agreeing, measured, planned
from tstitch_cli.formats.consistency import faults_of_plan
from tstitch_cli.plan import make_plan
from tstitch_cli.planning.objectives import loss_of
from tstitch_cli.planning.sureness import interval, losses_of
from tstitch_cli.quantities import parse_budget

HALF = parse_budget("50%")


def test_the_interval_is_that_of_the_mean() -> None:
    values = np.random.default_rng(1).normal(10.0, 1.0, size=(300, 40))
    ends = interval(values)
    assert ends is not None
    low, high = ends.T
    assert ((low < values.mean(axis=1)) & (values.mean(axis=1) < high)).all()
    # 2 x 1.96 / sqrt(40), and it holds the truth about as often as it says.
    assert (high - low).mean() == pytest.approx(0.62, rel=0.05)
    assert 0.9 <= ((low < 10) & (high > 10)).mean() <= 0.97
    assert interval(np.full((2, 5), 3.0)) == pytest.approx(3.0)


def test_losses_are_those_of_the_objective_picture_by_picture() -> None:
    profile = agreeing(measured())
    assert profile.agreement is not None
    allocations = ((("small", 5), ("large", 10), ("base", 5)), (("large", 20),))
    found = losses_of(profile.agreement, ["small", "base", "large"], allocations)
    for row, allocation in zip(found, allocations, strict=True):
        assert row == pytest.approx(loss_of(profile.agreement, allocation))


def test_every_row_has_its_interval_and_the_next_best_is_told() -> None:
    plan = make_plan(agreeing(measured()), budget=HALF)
    for row in plan.rows:
        assert row.loss is not None
        assert row.loss_within is not None
        assert row.loss_within[0] <= row.loss + 1e-9
        assert row.loss <= row.loss_within[1] + 1e-9
    assert plan.runner_up is not None
    others = [row.loss for i, row in enumerate(plan.rows) if row.feasible and i != plan.chosen and row.loss is not None]
    assert plan.rows[plan.runner_up.row].loss == min(others)


def test_pictures_that_agree_make_sure_and_pictures_that_do_not_make_noise() -> None:
    sure = make_plan(agreeing(measured(), noise=0.0), budget=HALF)
    assert sure.runner_up is not None
    assert not sure.runner_up.within_noise
    profile = agreeing(measured(step_s=(0.0299, 0.03, 0.1)), 0.1, 0.1, noise=0.3)
    noisy = make_plan(profile, budget=HALF)
    assert noisy.runner_up is not None
    assert noisy.runner_up.within_noise


def test_compute_has_no_interval() -> None:
    plan = planned()
    assert plan.runner_up is None
    assert all(row.loss_within is None for row in plan.rows)


def test_one_picture_tells_nothing_and_two_tell_little() -> None:
    assert interval(np.array([[1.0], [2.0]])) is None
    ends = interval(np.array([[1.0, 1.2]]))
    # Student's t of one degree of freedom: 12.706 times the standard error, 0.1.
    assert ends is not None
    assert ends[0] == pytest.approx([1.1 - 1.2706, 1.1 + 1.2706])


@pytest.mark.parametrize(("pictures", "verdict"), [(1, None), (2, True), (8, False)])
def test_how_sure_a_plan_is_depends_on_how_many_pictures_were_compared(pictures: int, verdict: bool | None) -> None:
    profile = agreeing(measured(step_s=(0.0299, 0.03, 0.1)), 0.11, 0.1, pictures=pictures, noise=0.05)
    plan = make_plan(profile, budget=HALF)
    assert plan.compared == pictures
    assert plan.runner_up is not None
    assert plan.runner_up.within_noise is verdict
    assert all((row.loss_within is None) == (pictures == 1) for row in plan.rows)
    assert not list(faults_of_plan(plan))
