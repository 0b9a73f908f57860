"""Plans over several settings at once: the best row of each, on one scale, and of these the best."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import hypot

from tstitch_cli.errors import InfeasibleError, TstitchError, UsageError
from tstitch_cli.measuring.steadiness import margin
from tstitch_cli.planning.costs import CostModel
from tstitch_cli.planning.objectives import least_loss
from tstitch_cli.planning.siblings import Found, finest
from tstitch_cli.quantities import Quantity
from tstitch_cli.schema import Plan, Rival
from tstitch_cli.zoo.typed import as_typed

Planner = Callable[[Found, Quantity], Plan]
"""Makes the plan of one setting within a budget; raises what `make_plan` raises."""


@dataclass(frozen=True)
class Joint:
    """The plan of the winning setting, its profile, and why settings were left out."""

    plan: Plan
    winner: Found
    standard: Found
    """The setting whose largest denoiser alone a share or a speed-up is of."""
    left_out: tuple[tuple[Found, str], ...]


def total(coarseness: float | None, loss: float | None) -> float | None:
    """The distance from the common reference that a row comes to; see `tstitch_cli.measuring.coarseness`."""
    return None if coarseness is None or loss is None else round(hypot(coarseness, loss), 12)


def choose(found: Sequence[Found], budget: Quantity, quantile: float | None, plan: Planner) -> Joint:
    """The best row of all settings of `found`; a share or speed-up is of the largest denoiser in the finest of them.

    Raises:
        UsageError: none of the settings can be compared with another.
        InfeasibleError: no row of any setting fits the budget.
    """
    comparable = _comparable(found)
    standard = finest(comparable)
    alone_s = CostModel(standard.profile).largest_alone_s(quantile) * (1.0 + margin(standard.profile))
    within = Quantity(budget.asked, budget.seconds(alone_s), "seconds")
    plans: list[tuple[Found, Plan]] = []
    left_out = [(each, "it shares no reference with the others") for each in found if each not in comparable]
    failures: list[TstitchError] = []
    for each in comparable:
        try:
            made = plan(each, within)
        except (InfeasibleError, UsageError) as error:
            left_out.append((each, error.message))
            failures.append(error)
            continue
        if made.objective != least_loss.__name__:
            left_out.append((each, "its predicted loss is not known"))
            continue
        plans.append((each, replace(made, total=total(each.coarseness, made.rows[made.chosen].loss))))
    if not plans:
        raise failures[0] if failures else _nothing(found)
    winner, best = min(plans, key=lambda pair: (pair[1].total, pair[1].rows[pair[1].chosen].time_s.mean))
    rivals = sorted((_rival(each, made) for each, made in plans if each is not winner), key=lambda r: r.loss or 0.0)
    return Joint(replace(best, rivals=tuple(rivals)), winner, standard, tuple(left_out))


def _rival(found: Found, plan: Plan) -> Rival:
    row = plan.rows[plan.chosen]
    return Rival("other setting", plan.setting, row.allocation, row.time_s, plan.total, plan.profile, wins=False)


def _comparable(found: Sequence[Found]) -> list[Found]:
    """The settings that share a reference, the most that do."""
    digests = [each.reference for each in found if each.reference is not None]
    if not digests:
        raise _nothing(found)
    shared = max(dict.fromkeys(digests), key=digests.count)
    return [each for each in found if each.reference == shared]


def _nothing(found: Sequence[Found]) -> UsageError:
    if not found:
        return UsageError(
            "no profile beside this one is of a setting that is asked for",
            hint="profile it, such as `tstitch profile DENOISER DENOISER --steps 10,20,50`, or ask for `any`",
        )
    names = shlex.join(as_typed(found[0].profile.denoisers))
    return UsageError(
        f"{', '.join(each.path.name for each in found)}: profiled by itself, so not to be held against other settings",
        hint=f"profile them together, such as `tstitch profile {names} --steps 10,20,50`",
    )
