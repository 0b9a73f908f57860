"""Simple alternatives to a plan's choice: the largest denoiser in fewer steps or with a cache, the smallest alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from tstitch_cli.evaluations import run_lengths
from tstitch_cli.planning import known_steps
from tstitch_cli.planning.costs import CostModel
from tstitch_cli.planning.joint import total
from tstitch_cli.planning.objectives import least_loss
from tstitch_cli.planning.siblings import Found
from tstitch_cli.quality.metrics import METRICS
from tstitch_cli.schema import Plan, Profile, Rival

CLOSE = 1e-9
"""Relative difference below which two losses are the same."""


def with_rivals(plan: Plan, base: Found, siblings: Sequence[Found], path: Callable[[Found], str]) -> Plan:
    """`plan`, made of `base`, with what is simpler than its choice, as far as it fits the budget, and with its total.

    `siblings` are the profiles in other settings, `path` how the plan refers to one. A rival within the budget wins
    that is better than the choice by what the plan seeks, which is not known of all.
    """
    whole = replace(plan, total=total(base.coarseness, plan.rows[plan.chosen].loss))
    simple = [_largest(whole, base, siblings, path), _smallest(whole, base, path)]
    simple += _cached(whole, base, siblings, path)
    # Of several settings the best row of one may be the largest alone: that stands among the rivals already.
    there = {(rival.setting, rival.allocation) for rival in plan.rivals}
    others = [rival for rival in simple if rival is not None and (rival.setting, rival.allocation) not in there]

    def judged(rival: Rival) -> Rival:
        fits = rival.time_s.within <= plan.budget.plannable_s * (1 + CLOSE)
        return replace(rival, wins=fits and _better(whole, rival))

    return replace(whole, rivals=(*map(judged, others), *plan.rivals))


def _better(plan: Plan, rival: Rival) -> bool:
    """Whether a rival is better by the plan's objective, as far as that is known of it.

    Compute, which stands in for quality among rows of one setting, tells nothing across settings.
    """
    row = plan.rows[plan.chosen]
    if (metric := METRICS.get(plan.objective)) is not None:
        theirs, mine = rival.measured.get(plan.objective), row.measured.get(plan.objective)
        if theirs is None or mine is None:
            return False
        return theirs.value > mine.value if metric.higher_is_better else theirs.value < mine.value
    if plan.objective != least_loss.__name__:
        return False
    loss = row.loss if plan.total is None else plan.total
    return rival.loss is not None and loss is not None and rival.loss < loss * (1 - CLOSE)


def _largest(plan: Plan, base: Found, siblings: Sequence[Found], path: Callable[[Found], str]) -> Rival | None:
    """The largest denoiser alone in as many steps as fit: those of a profile, else a number that the costs tell."""
    setting = plan.setting
    fit = [
        rival
        for each in siblings
        if (each.profile.setting.scheduler, each.profile.setting.accelerate) == (setting.scheduler, setting.accelerate)
        and each.path != base.path
        and (rival := _alone("largest alone", plan, base, each, path)) is not None
    ]
    if fit:
        return min(fit, key=lambda rival: (rival.loss is None, rival.loss or 0.0, -rival.setting.steps))
    if setting.strength is not None or any(d.course_s for d in base.profile.denoisers):
        return None
    for steps in range(setting.steps - 1, 0, -1):
        shorter = _shortened(base.profile, steps)
        if (rival := _alone("largest alone", plan, base, Found(base.path, shorter), path)) is not None:
            return replace(rival, loss=None, profile=None)
    return None


def _smallest(plan: Plan, base: Found, path: Callable[[Found], str]) -> Rival | None:
    """The smallest denoiser alone, where it is not the choice."""
    smallest = plan.denoisers[0].name
    row = next((row for row in plan.rows if row.steps.get(smallest) == plan.setting.taken), None)
    if row is None or row.refused is not None or row is plan.rows[plan.chosen]:
        return None
    loss = row.loss if plan.total is None else total(base.coarseness, row.loss)
    return Rival(
        "smallest alone", plan.setting, row.allocation, row.time_s, loss, path(base), wins=False, measured=row.measured
    )


def _cached(plan: Plan, base: Found, siblings: Sequence[Found], path: Callable[[Found], str]) -> list[Rival]:
    """The largest denoiser alone with each acceleration that was profiled and fits."""
    mine = plan.setting
    if mine.accelerate:
        return []
    settings = [(each, each.profile.setting) for each in siblings]
    like = [each for each, of in settings if of.accelerate and (of.steps, of.scheduler) == (mine.steps, mine.scheduler)]
    return [rival for each in like if (rival := _alone("cache", plan, base, each, path)) is not None]


def _alone(kind: str, plan: Plan, base: Found, of: Found, path: Callable[[Found], str]) -> Rival | None:
    """The largest denoiser alone in the setting of `of`; None where that does not fit the budget or may not be drawn.

    Its loss is its coarseness, which is on the plan's scale where the reference is the same.
    """
    model, agreement = CostModel(of.profile), of.profile.agreement
    allocation = model.alone(model.names[-1] if agreement is None else agreement.largest)
    times = model.times(allocation, plan.budget.quantile)
    if times.within > plan.budget.plannable_s or known_steps.broken(allocation, known_steps.of(of.profile.denoisers)):
        return None
    loss = of.coarseness if base.reference is not None and base.reference == of.reference else None
    return Rival(kind, of.profile.setting, allocation, times, loss, path(of), wins=False)


def _shortened(profile: Profile, steps: int) -> Profile:
    """`profile` as it would be for fewer steps: those in the middle left out."""
    counts = profile.evaluations_per_step()
    kept = counts[: steps - 1] + counts[-1:]
    return replace(profile, setting=replace(profile.setting, steps=steps), evaluations=run_lengths(kept))
