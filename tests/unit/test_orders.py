"""Rows in other orders than small to large: what they are, what they cost, and that the best is chosen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.builders import agreeing, measured
from tstitch_cli.allocation import collapse
from tstitch_cli.errors import UsageError
from tstitch_cli.formats.consistency import faults_of_plan
from tstitch_cli.plan import make_plan
from tstitch_cli.planning import known_steps
from tstitch_cli.planning.assignments import PerStep
from tstitch_cli.planning.costs import CostModel
from tstitch_cli.planning.exact_row import with_optimum
from tstitch_cli.planning.objectives import compute_of, loss_of, most_compute
from tstitch_cli.planning.orders import DECREASING, EXACT, INTERLEAVED, LARGE_TO_SMALL, ORDERS, SMALL_TO_LARGE, arranged
from tstitch_cli.quantities import parse_budget
from tstitch_cli.schema import Closeness, Profile

STEPS = np.array([[8, 4, 8], [0, 10, 10], [20, 0, 0], [1, 18, 1], [7, 7, 6]])
HALF = parse_budget("50%")


@pytest.mark.parametrize("order", ORDERS)
def test_every_order_gives_each_denoiser_its_steps(order: str) -> None:
    taken = arranged(order, STEPS)
    assert taken.shape == (5, 20)
    assert [np.bincount(row, minlength=3).tolist() for row in taken] == STEPS.tolist()
    assert (taken == arranged(order, STEPS)).all()


def test_the_orders_are_what_they_are_called() -> None:
    steps = np.array([[4, 0, 4]])
    assert arranged(SMALL_TO_LARGE, steps).tolist() == [[0, 0, 0, 0, 2, 2, 2, 2]]
    assert arranged(LARGE_TO_SMALL, steps).tolist() == [[2, 2, 2, 2, 0, 0, 0, 0]]
    assert arranged(INTERLEAVED, steps).tolist() == [[0, 2, 0, 2, 0, 2, 0, 2]]
    assert arranged(INTERLEAVED, np.array([[2, 6]])).tolist() == [[1, 0, 1, 1, 1, 0, 1, 1]]


def test_the_smaller_one_becomes_less_likely_evenly() -> None:
    (small,) = arranged(DECREASING, np.array([[2000, 2000]])) == 0
    quarters = small.reshape(4, 1000).mean(axis=1)
    assert (np.diff(quarters) < -0.1).all()
    assert quarters == pytest.approx([0.80, 0.63, 0.41, 0.16], abs=0.06)
    # A draw, and no interval.
    assert len(collapse(map(str, small))) > 1000


def profile(steps: int = 12) -> Profile:
    pndm = ((2, 1), (1, steps - 1))
    return agreeing(measured(steps, evaluations=pndm))


def test_any_assignment_costs_and_loses_what_costs_and_objectives_say() -> None:
    given = profile()
    given = replace(given, denoisers=(replace(given.denoisers[0], knows=(3, 9)), *given.denoisers[1:]))
    taken = np.random.default_rng(0).integers(3, size=(50, 12))
    shares, model = PerStep.of(given, "--order"), CostModel(given)
    assert given.agreement is not None
    loss = shares.loss_of(taken)
    assert loss is not None
    rows = zip(taken, shares.mean_s_of(taken), loss, shares.compute_of(taken), shares.known_of(taken), strict=True)
    for row, seconds, lost, compute, known in rows:
        allocation = collapse(model.names[k] for k in row)
        assert seconds == pytest.approx(model.mean_s(allocation), abs=1e-9)
        assert lost == pytest.approx(loss_of(given.agreement, allocation).mean())
        assert compute == pytest.approx(compute_of(given, allocation))
        assert known == (known_steps.broken(allocation, known_steps.of(given.denoisers)) is None)


def test_all_orders_are_in_the_table_and_each_row_says_its_own() -> None:
    plan = make_plan(profile(), budget=HALF, order="any")
    usual = make_plan(profile(), budget=HALF)
    assert {row.order for row in plan.rows} == {None, LARGE_TO_SMALL, INTERLEAVED, DECREASING}
    assert len({row.allocation for row in plan.rows}) == len(plan.rows)
    assert {row.allocation for row in usual.rows} <= {row.allocation for row in plan.rows}
    assert plan.combinations == 4 * usual.combinations
    assert all(row.order is None for row in usual.rows)
    model = CostModel(profile())
    for row in plan.rows:
        assert row.time_s.mean == pytest.approx(model.mean_s(row.allocation), abs=1e-9)
    losses = [row.loss for row in plan.rows if row.feasible and row.loss is not None]
    assert plan.rows[plan.chosen].loss == min(losses)
    assert not list(faults_of_plan(plan))


def test_the_other_order_wins_where_it_is_the_better_one() -> None:
    given = profile()
    assert given.agreement is not None

    def turned(close: Closeness) -> Closeness:
        return replace(close, rms=tuple(row[::-1] for row in close.rms))

    late = replace(given.agreement, denoisers={n: turned(c) for n, c in given.agreement.denoisers.items()})
    early = make_plan(given, budget=HALF, order="any")
    other = make_plan(replace(given, agreement=late), budget=HALF, order="any")
    assert early.rows[early.chosen].order is None
    assert other.rows[other.chosen].order == LARGE_TO_SMALL
    single = make_plan(replace(given, agreement=late), budget=HALF, order="large-to-small")
    assert single.rows[single.chosen].allocation == other.rows[other.chosen].allocation


def test_rows_in_any_order_give_only_known_noise() -> None:
    given = profile()
    limited = replace(given, denoisers=(replace(given.denoisers[0], knows=(4, 12)), *given.denoisers[1:]))
    plan = make_plan(limited, budget=parse_budget("70%"), order="any")
    knows = known_steps.of(limited.denoisers)
    assert any(row.refused for row in plan.rows)
    assert any(row.steps["small"] and not row.refused for row in plan.rows)
    for row in plan.rows:
        assert row.refused == known_steps.broken(row.allocation, knows)
    assert plan.rows[plan.chosen].refused is None


def test_with_exact_the_best_of_all_is_chosen() -> None:
    given = profile()
    assert given.agreement is not None
    uneven = replace(given.agreement, weights=tuple(0.1 if t % 5 else 1.0 for t in range(12)))
    given = replace(given, agreement=uneven)
    table = make_plan(given, budget=HALF, order="any")
    exact = with_optimum(table, given)
    row, before = exact.rows[exact.chosen], table.rows[table.chosen]
    assert row.order == EXACT
    assert row.loss is not None
    assert before.loss is not None
    assert row.loss < before.loss
    assert row.loss_within is not None
    assert row.loss_within[0] <= row.loss <= row.loss_within[1]
    assert exact.runner_up is not None
    assert exact.rows[exact.runner_up.row].allocation == before.allocation
    assert not list(faults_of_plan(exact))


def test_what_orders_cannot_be_told_apart_by_is_refused() -> None:
    cached = replace(profile(), denoisers=tuple(replace(d, cached_s=d.steady_s) for d in profile().denoisers))
    with pytest.raises(UsageError, match="cache"):
        make_plan(cached, budget=HALF, order="any")
    with pytest.raises(UsageError, match="most compute cannot tell"):
        make_plan(profile(), budget=HALF, order="any", objective=most_compute)
    with pytest.raises(UsageError, match="most compute cannot tell"):
        make_plan(measured(), budget=HALF, order="interleaved")
    with pytest.raises(UsageError, match="no order"):
        make_plan(profile(), budget=HALF, order="random")
    with pytest.raises(UsageError, match="too many"):
        make_plan(agreeing(measured(200)), budget=HALF, order="any", increment=0.005)
