"""Adds to a plan the row that is the best of all assignments of denoisers to steps, in any order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tstitch_cli.allocation import expand
from tstitch_cli.errors import UsageError
from tstitch_cli.planning.added_row import with_row
from tstitch_cli.planning.assignments import PerStep
from tstitch_cli.planning.costs import CostModel
from tstitch_cli.planning.exact import Optimum, optimum
from tstitch_cli.planning.objectives import compute_of, least_loss
from tstitch_cli.planning.orders import EXACT
from tstitch_cli.planning.sureness import with_sureness
from tstitch_cli.schema import Plan, Profile, Row

BETTER = 1e-9
"""Difference in loss below which two rows are as good as each other."""


def with_optimum(plan: Plan, profile: Profile) -> Plan:
    """`plan` with the assignment of least predicted loss within its budget as a row, chosen where it is the better one.

    Every denoiser is given only steps whose noise it knows, and every switch is charged.

    Raises:
        UsageError: the profile has no agreement, or its steps have no cost of their own because they are cached.
    """
    if profile.agreement is None:
        raise UsageError(
            "without agreement there is no predicted loss to be exact about",
            hint="profile with real weights and without --no-agreement, or leave --exact out",
        )
    if plan.objective != least_loss.__name__:
        raise UsageError(
            "--exact seeks the least predicted loss and nothing else", hint="leave --maximize or --exact out"
        )
    steps, model = PerStep.of(profile, "--exact"), CostModel(profile)
    found = _optimum(steps, model.names, plan.budget.plannable_s / model.ratio(plan.budget.quantile) - model.fixed_s)
    if found is None:
        return plan
    bounded = replace(plan, least_loss=found.bound)
    chosen = plan.rows[plan.chosen]
    if chosen.loss is not None and found.loss >= chosen.loss - BETTER:
        return bounded
    return with_sureness(with_row(bounded, _row(profile, model, plan, found)), profile)


def _optimum(steps: PerStep, names: tuple[str, ...], limit_s: float) -> Optimum | None:
    assert steps.loss is not None
    # What takes longer than there is is never taken.
    step_s = np.where(steps.known, steps.step_s, 2 * limit_s)
    return optimum(names, steps.loss.mean(axis=1), step_s, steps.switch_s, limit_s)


def _row(profile: Profile, model: CostModel, plan: Plan, found: Optimum) -> Row:
    taken = expand(found.allocation)
    steps = {name: taken.count(name) for name in model.names}
    return Row(
        fractions={name: count / len(taken) for name, count in steps.items()},
        steps=steps,
        allocation=found.allocation,
        time_s=model.times(found.allocation, plan.budget.quantile),
        compute=compute_of(profile, found.allocation),
        quality={},
        feasible=True,
        pareto=True,
        loss=round(found.loss, 12),
        order=EXACT,
    )
