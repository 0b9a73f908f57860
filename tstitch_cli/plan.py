"""The stage that decides: a profile and a budget -> the lookup table and the rows chosen for it.

Appendix A.1 of T-Stitch (arXiv 2402.14167): maximise M(r_1 .. r_K) subject to sum r_k C_k <= C_R and sum r_k = 1, by
enumerating all fractions. Here the left side of the constraint is what `costs` predicts for the whole steps that
the fractions come to, and M is an `Objective`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from tstitch_cli.errors import InfeasibleError, UsageError
from tstitch_cli.measuring.steadiness import margin
from tstitch_cli.planning import known_steps, ranking
from tstitch_cli.planning.costs import P95, CostModel
from tstitch_cli.planning.objectives import Best, Objective, best_known, least_loss, most_compute
from tstitch_cli.planning.orders import SMALL_TO_LARGE
from tstitch_cli.planning.sureness import with_sureness
from tstitch_cli.planning.table import Floats, Table, enumerated, orders_named
from tstitch_cli.quality.metrics import METRICS
from tstitch_cli.quantities import Quantity, shown_s
from tstitch_cli.schema import Budget, Measured, Plan, PlannedDenoiser, Profile, Row, Times

EQUAL = 1e-12
"""Relative difference within which two floats are the same number, reached in two ways."""


def make_plan(
    profile: Profile,
    *,
    budget: Quantity,
    quantile: float | None = P95,
    increment: float = 0.1,
    objective: Objective | Best | None = None,
    top: int = 1,
    order: str = SMALL_TO_LARGE,
    measured: Plan | None = None,
    profile_path: str = "",
    digest: str = "",
) -> Plan:
    """Chooses, of all fraction combinations in steps of `increment`, the best by `objective` within the budget.

    The budget bounds a call's time at `quantile` (None: the mean), with the margin that an unsteady profile asks for.
    `top` best rows are kept as alternatives. Rows of equal whole steps are merged; equal objectives go to the row with
    more steps of the larger denoisers. `order` is one of `orders.ORDERS`, or `any` for all of them. `measured` is an
    earlier plan whose measured metrics still hold, see `measurements`: those rows stand in the table, whatever
    `increment` and `order` are.

    Without an `objective` the best is taken that is known of every row within the budget: a measured metric, else the
    least predicted loss, else the most compute.

    Raises:
        InfeasibleError: no row fits; names the smallest budget that one fits.
        UsageError: the increment does not divide 1, the quantile lies outside of the measured ones, `top` < 1, or
            nothing is known of any row within the budget by which the objective or the order could be judged.
    """
    if quantile is not None and not 0.5 <= quantile <= 0.99:
        raise UsageError(f"the quantile {quantile:g} was not measured", hint="use 0.5 to 0.99, or mean")
    if top < 1:
        raise UsageError(f"{top} rows cannot be kept", hint="use --top 1 or more")
    model = CostModel(profile)
    table = enumerated(profile, model, increment, orders_named(order))
    table, known = _with_measured(table, profile, model, measured)
    room = margin(profile)
    # A share of the largest denoiser's time is one of the time that it is taken to need, as the rows' times are.
    bound = Budget(budget.asked, budget.seconds(model.largest_alone_s(quantile) * (1.0 + room)), quantile, room)
    if not table.allowed.any():
        raise _all_refused(profile, table)
    feasible = table.allowed & (table.mean_s * model.ratio(quantile) <= bound.plannable_s * (1 + EQUAL))
    if not feasible.any():
        raise _infeasible(profile, model, float(table.mean_s[table.allowed].min()), bound, budget)
    objective = objective or _best_known(profile, known, feasible)
    quality = _quality(profile, table, objective, known)
    candidates = np.flatnonzero(feasible & np.isfinite(quality))
    if not len(candidates):
        raise UsageError(
            f"no row within the budget has {objective.__name__} measured",
            hint="fill it in with `tstitch evaluate`, or leave --maximize out",
        )
    best = ranking.best(table, quality, candidates, top)
    front = ranking.front(table, quality)
    kept = ranking.kept(len(table.steps), front, [*best, *known])
    # By time, so that the table reads from the fastest row to the best.
    kept = kept[np.lexsort((quality[kept], table.mean_s[kept]))]
    at = {int(index): position for position, index in enumerate(kept)}
    pareto = ranking.on_front(table, quality, front, kept)
    knows = known_steps.of(profile.denoisers)
    rows = tuple(
        _row(
            model,
            table,
            int(index),
            quantile,
            quality=_named(objective, float(quality[index])),
            feasible=bool(feasible[index]),
            pareto=bool(on_front),
            knows=knows,
            measured=known.get(int(index), {}),
        )
        for index, on_front in zip(kept, pareto, strict=True)
    )
    plan = Plan(
        profile=profile_path,
        profile_digest=digest,
        family=profile.family,
        setting=profile.setting,
        evaluations=profile.evaluations,
        denoisers=tuple(PlannedDenoiser(d.name, d.source, d.revision, d.knows, d.embedding) for d in profile.denoisers),
        fingerprint=profile.fingerprint,
        budget=bound,
        objective=objective.__name__,
        increment=increment,
        combinations=table.enumerated,
        chosen=at[best[0]],
        alternatives=tuple(at[index] for index in best),
        rows=rows,
        evaluation=measured.evaluation if measured is not None and known else None,
    )
    return with_sureness(plan, profile)


def _with_measured(
    table: Table, profile: Profile, model: CostModel, measured: Plan | None
) -> tuple[Table, dict[int, dict[str, Measured]]]:
    """`table` with a row for everything that is measured, and what is measured of rows, by their index."""
    if measured is None:
        return table, {}
    rows = {row.allocation: row for row in measured.rows if row.measured}
    at = {allocation: table.find(allocation) for allocation in rows}
    beyond = [allocation for allocation, index in at.items() if index is None]
    at |= {allocation: len(table.steps) + i for i, allocation in enumerate(beyond)}
    table = table.with_rows(profile, model, [(allocation, rows[allocation].order) for allocation in beyond])
    return table, {index: rows[each].measured for each, index in at.items() if index is not None}


def _best_known(
    profile: Profile, known: Mapping[int, Mapping[str, Measured]], feasible: npt.NDArray[np.bool_]
) -> Objective | Best:
    """The first metric that every feasible row has, else what the profile has the measurements for."""
    if known:
        wanted = np.flatnonzero(feasible).tolist()
        for metric in METRICS:
            if all(metric in known.get(index, {}) for index in wanted):
                return Best(metric)
    return best_known(profile)


def _quality(
    profile: Profile, table: Table, objective: Objective | Best, known: Mapping[int, Mapping[str, Measured]]
) -> Floats:
    """(N,): the objective of every row, higher is better; of what is measured, minus infinity where it is not."""
    if isinstance(objective, Best):
        sign = 1.0 if METRICS[objective.metric].higher_is_better else -1.0
        quality = np.full(len(table.steps), -np.inf)
        for index, metrics in known.items():
            if objective.metric in metrics:
                quality[index] = sign * metrics[objective.metric].value
        return quality
    if objective is least_loss and table.loss is not None:
        return -table.loss
    if table.orders:
        raise UsageError(
            f"{objective.__name__.replace('_', ' ')} cannot tell one order from another",
            hint="profile with real weights and without --no-agreement, or leave --order out",
        )
    if objective is most_compute:
        return table.compute
    # It is told the steps alone, so it cannot tell what stands in another order.
    unusual = [table.order(index) is not None for index in range(len(table.steps) - len(table.added), len(table.steps))]
    quality = np.array(objective(profile, table.steps), dtype=float)
    quality[len(table.steps) - len(table.added) :][unusual] = -np.inf
    return quality


def _row(
    model: CostModel,
    table: Table,
    index: int,
    quantile: float | None,
    *,
    quality: dict[str, float],
    feasible: bool,
    pareto: bool,
    knows: Mapping[str, known_steps.Known],
    measured: dict[str, Measured],
) -> Row:
    units, steps, mean = table.units[index].tolist(), table.steps[index].tolist(), float(table.mean_s[index])
    whole, allocation = sum(units), table.allocation(index)
    return Row(
        fractions={name: unit / whole for name, unit in zip(model.names, units, strict=True)},
        steps=dict(zip(model.names, steps, strict=True)),
        allocation=allocation,
        time_s=Times(mean, model.at_quantile(mean, P95), model.at_quantile(mean, quantile)),
        compute=float(table.compute[index]),
        loss=None if table.loss is None else float(table.loss[index]),
        quality=quality,
        feasible=feasible,
        pareto=pareto,
        refused=None if table.allowed[index] else known_steps.broken(allocation, knows),
        measured=measured,
        order=table.order(index),
    )


def _all_refused(profile: Profile, table: Table) -> InfeasibleError:
    knows = known_steps.of(profile.denoisers)
    return InfeasibleError(
        f"no allocation can be drawn: {known_steps.broken(table.allocation(0), knows)}",
        hint="no row of the table gives every denoiser noise that it knows; profile others together",
    )


def _named(objective: Objective | Best, value: float) -> dict[str, float]:
    """The objective's value by its name, unless the row has it in a column of its own."""
    return {} if isinstance(objective, Best) or objective in (most_compute, least_loss) else {objective.__name__: value}


def _infeasible(
    profile: Profile, model: CostModel, fastest_s: float, bound: Budget, budget: Quantity
) -> InfeasibleError:
    """Says what the smallest budget is, and what would reach the asked one."""
    ratio = model.ratio(bound.quantile) * (1.0 + bound.margin)
    smallest = min(model.names, key=model.trajectory_s)
    elapsed = model.elapsed_s[model.names.index(smallest)]
    left_s = bound.seconds / ratio - model.fixed_s
    steps = int(np.searchsorted(elapsed, left_s, side="right")) - 1
    if steps >= 1:
        ways = [f"fewer steps (profile with --steps {steps}: {smallest} alone would fit)"]
    elif left_s > 0:
        ways = [f"not fewer steps (one of {smallest} does not fit)"]
    else:
        ways = [f"not fewer steps (encoding, decoding and writing alone take {shown_s(model.fixed_s * ratio)})"]
    ways.append("a smaller model")
    if profile.setting.batch_size > 1:
        ways.append(f"fewer pictures at once (--batch-size below {profile.setting.batch_size})")
    if bound.margin:
        ways.append("profiling again on a quiet machine")
    asked = f"{budget.asked} is {shown_s(bound.seconds)}" if budget.kind != "seconds" else shown_s(bound.seconds)
    told = "the mean" if bound.quantile is None else f"p{bound.quantile * 100:g}"
    told += f" of {profile.setting.taken} step{'' if profile.setting.taken == 1 else 's'}"
    if bound.margin:
        told += f", with a margin of {bound.margin:.0%} as the machine was unsteady while it was profiled"
    return InfeasibleError(
        f"no allocation fits the budget ({asked}): the smallest possible one for this profile is "
        f"{shown_s(fastest_s * ratio, up=True)} ({told})",
        hint=f"what would reach it: {'; '.join(ways)}",
    )
