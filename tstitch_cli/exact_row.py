"""Adds to a plan the row that is the best of all assignments of denoisers to steps, in any order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tstitch_cli.allocation import expand
from tstitch_cli.costs import CostModel
from tstitch_cli.errors import UsageError
from tstitch_cli.exact import Optimum, optimum
from tstitch_cli.objectives import compute_of, least_loss, losses
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
    if any(denoiser.cached_s or denoiser.course_s for denoiser in profile.denoisers):
        raise UsageError(
            "--exact needs steps that cost the same after any switch, which those of a cache do not",
            hint="leave --exact out, or profile without the cache",
        )
    model = CostModel(profile)
    found = _optimum(profile, model, plan.budget.plannable_s / model.ratio(plan.budget.quantile) - model.fixed_s)
    if found is None:
        return plan
    bounded = replace(plan, least_loss=found.bound)
    chosen = plan.rows[plan.chosen]
    if chosen.loss is not None and found.loss >= chosen.loss - BETTER:
        return bounded
    return _with_row(bounded, _row(profile, model, plan, found))


def _optimum(profile: Profile, model: CostModel, limit_s: float) -> Optimum | None:
    assert profile.agreement is not None
    loss = np.stack([losses(profile.agreement, name, profile.setting.taken) for name in model.names])
    step_s = np.diff(model.elapsed_s, axis=1)
    for k, denoiser in enumerate(profile.denoisers):
        if denoiser.knows is not None:
            # What takes longer than there is is never taken.
            step_s[k, : denoiser.knows[0] - 1] = step_s[k, denoiser.knows[1] :] = 2 * limit_s
    return optimum(model.names, loss, step_s, np.array([d.switch_s.mean for d in profile.denoisers]), limit_s)


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
    )


def _with_row(plan: Plan, row: Row) -> Plan:
    """`plan` with `row` where its time puts it, as the chosen one; rows that it beats are no Pareto rows any more."""
    at = sum(other.time_s.mean <= row.time_s.mean for other in plan.rows)
    rows = [replace(other, pareto=other.pareto and not _beats(row, other)) for other in plan.rows]
    rows.insert(at, row)
    others = tuple(index + (index >= at) for index in plan.alternatives)
    kept = (at, *others[: max(0, len(others) - 1)])
    return replace(plan, rows=tuple(rows), chosen=at, alternatives=kept)


def _beats(row: Row, other: Row) -> bool:
    return (
        other.loss is not None
        and row.loss is not None
        and (other.time_s.mean >= row.time_s.mean and other.loss > row.loss)
    )
