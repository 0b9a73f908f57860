"""Adds to a plan the best row to the step, where steps of 10 % leave a part of the budget unused."""

from __future__ import annotations

from dataclasses import replace
from math import comb

from tstitch_cli.allocation import units_of
from tstitch_cli.plan import make_plan
from tstitch_cli.planning.added_row import with_row
from tstitch_cli.planning.objectives import Best, Objective
from tstitch_cli.planning.sureness import judged, with_sureness
from tstitch_cli.planning.table import orders_named
from tstitch_cli.quality.metrics import METRICS
from tstitch_cli.quantities import Quantity
from tstitch_cli.schema import Plan, Profile

MOST = 6_000
"""Combinations that are looked at for it, so that planning takes no time to speak of."""
COARSER = (0.01, 0.02, 0.05)
"""Increments for long trajectories of many denoisers, of which single steps would be too many combinations."""
BETTER = 1e-9
"""Difference below which two rows are as good as each other."""


def with_refined(
    plan: Plan, profile: Profile, *, budget: Quantity, objective: Objective | Best | None, order: str
) -> Plan:
    """`plan` with the best row of whole steps in its order, chosen where it is better than the table's best.

    `budget`, `objective` and `order` are those that `plan` was made with. Where it goes by a measured metric there is
    nothing to add, for other rows have not been measured.
    """
    increment = _increment(plan, max(1, len(orders_named(order))))
    if plan.objective in METRICS or increment is None:
        return plan
    finer = make_plan(
        profile,
        budget=budget,
        quantile=plan.budget.quantile,
        increment=increment,
        objective=objective,
        order=order,
    )
    row = finer.rows[finer.chosen]
    looked = replace(plan, combinations=plan.combinations + finer.combinations)
    found, best = judged(plan, row), judged(plan, plan.rows[plan.chosen])
    if found is None or best is None or found <= best + BETTER * abs(best):
        return looked
    return with_sureness(with_row(looked, row), profile)


def _increment(plan: Plan, orders: int) -> float | None:
    """One step, or what is nearest to it with few enough combinations; None where the table has all that already."""
    taken, parts = plan.setting.taken, len(plan.denoisers)
    table = units_of(plan.increment)
    for increment in (1 / taken, *COARSER):
        units = round(1 / increment)
        if units <= 1000 and orders * comb(units + parts - 1, parts - 1) <= MOST:
            return None if table % units == 0 else increment
    return None
