"""The stage that decides: a profile and a budget -> the lookup table and the rows chosen for it.

Appendix A.1 of T-Stitch (arXiv 2402.14167): maximise M(r_1 .. r_K) subject to sum r_k C_k <= C_R and sum r_k = 1, by
enumerating all fractions. Here the left side of the constraint is what `costs` predicts for the whole steps that
the fractions come to, and M is an `Objective`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tstitch_cli import known_steps
from tstitch_cli.allocation import runs, units_of
from tstitch_cli.combinations import combinations, whole_steps_of_units
from tstitch_cli.costs import P95, CostModel
from tstitch_cli.errors import InfeasibleError, UsageError
from tstitch_cli.objectives import Objective, best_known, least_loss, most_compute
from tstitch_cli.quantities import Quantity, shown_s
from tstitch_cli.schema import Budget, Plan, PlannedDenoiser, Profile, Row, Times
from tstitch_cli.steadiness import margin

MAX_ROWS = 10_000
"""Distinct rows up to which all of them are kept."""
MAX_PARETO_ROWS = 2_000
"""Rows that are kept of a larger table."""
EQUAL = 1e-12
"""Relative difference within which two floats are the same number, reached in two ways."""


@dataclass(frozen=True)
class _Table:
    """Every distinct row: increments (N, K), whole steps (N, K), mean seconds (N,) and the objective (N,).

    `allowed` (N,) are those that give every denoiser only steps whose noise level it knows.
    """

    units: npt.NDArray[np.int16]
    steps: npt.NDArray[np.int16]
    mean_s: npt.NDArray[np.float64]
    quality: npt.NDArray[np.float64]
    allowed: npt.NDArray[np.bool_]


def make_plan(
    profile: Profile,
    *,
    budget: Quantity,
    quantile: float | None = P95,
    increment: float = 0.1,
    objective: Objective | None = None,
    top: int = 1,
    profile_path: str = "",
    digest: str = "",
) -> Plan:
    """Chooses, of all fraction combinations in steps of `increment`, the best by `objective` within the budget.

    The budget bounds a call's time at `quantile` (None: the mean), with the margin that an unsteady profile asks for.
    `top` best rows are kept as alternatives. Rows of equal whole steps are merged; equal objectives go to the row with
    more steps of the larger denoisers. Without an `objective` the best that the profile has the measurements for is
    taken: least predicted loss, else most compute.

    Raises:
        InfeasibleError: no row fits; names the smallest budget that one fits.
        UsageError: the increment does not divide 1, the quantile lies outside of the measured ones, or `top` < 1.
    """
    if quantile is not None and not 0.5 <= quantile <= 0.99:
        raise UsageError(f"the quantile {quantile:g} was not measured", hint="use 0.5 to 0.99, or mean")
    if top < 1:
        raise UsageError(f"{top} rows cannot be kept", hint="use --top 1 or more")
    objective = objective or best_known(profile)
    model = CostModel(profile)
    table, enumerated = _enumerate(profile, model, increment, objective)
    bound = Budget(budget.asked, budget.seconds(model.largest_alone_s(quantile)), quantile, margin(profile))
    if not table.allowed.any():
        raise _all_refused(profile, table)
    feasible = table.allowed & (table.mean_s * model.ratio(quantile) <= bound.plannable_s * (1 + EQUAL))
    if not feasible.any():
        raise _infeasible(profile, model, float(table.mean_s[table.allowed].min()), bound, budget)
    best = _best(table, np.flatnonzero(feasible), top)
    front = _front(table)
    kept = _kept(len(table.steps), front, best)
    # By time, so that the table reads from the fastest row to the best.
    kept = kept[np.lexsort((table.quality[kept], table.mean_s[kept]))]
    at = {int(index): position for position, index in enumerate(kept)}
    pareto = _on_front(table, front, kept)
    compute = table.quality if objective is most_compute else most_compute(profile, table.steps)
    loss = None if profile.agreement is None else 0.0 - least_loss(profile, table.steps)
    return Plan(
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
        combinations=enumerated,
        chosen=at[best[0]],
        alternatives=tuple(at[index] for index in best),
        rows=tuple(
            _row(
                model,
                table,
                int(index),
                quantile,
                compute=float(compute[index]),
                loss=None if loss is None else float(loss[index]),
                quality=_named(objective, float(table.quality[index])),
                feasible=bool(feasible[index]),
                pareto=bool(on_front),
                knows=known_steps.of(profile.denoisers),
            )
            for index, on_front in zip(kept, pareto, strict=True)
        ),
    )


def _enumerate(profile: Profile, model: CostModel, increment: float, objective: Objective) -> tuple[_Table, int]:
    """The table of distinct rows, and how many combinations there were before equal rows were merged."""
    total = profile.setting.taken
    units = combinations(len(profile.denoisers), increment)
    enumerated = len(units)
    steps = whole_steps_of_units(units, total)
    # Where an increment is a whole number of steps, no two combinations come to the same steps.
    if total % units_of(increment):
        distinct = _distinct(units, steps, total)
        units, steps = units[distinct], steps[distinct]
    allowed = known_steps.mask(steps, [denoiser.knows for denoiser in profile.denoisers])
    return _Table(units, steps, model.mean_s_of_steps(steps), objective(profile, steps), allowed), enumerated


def _distinct(units: npt.NDArray[np.int16], steps: npt.NDArray[np.int16], total: int) -> npt.NDArray[np.intp]:
    """One row of every group of equal steps: the one whose fractions are nearest to what the steps come to."""
    whole, count = int(units[0].sum()), steps.shape[1]
    off = np.zeros(len(steps), dtype=np.int64)
    for k in range(count):
        off += np.abs(units[:, k].astype(np.int64) * total - steps[:, k].astype(np.int64) * whole)
    # The last denoiser's steps follow from the others', so these digits in base T + 1 name a row of steps.
    columns = [steps[:, k].astype(np.int64) for k in range(count - 1)]
    span = int(off.max()) + 1
    if (total + 1) ** len(columns) * span < 2**62:
        key = np.zeros(len(steps), dtype=np.int64)
        for column in columns:
            key = key * (total + 1) + column
        order = np.argsort(key * span + off, kind="stable")
    else:
        order = np.lexsort((off, *reversed(columns)))
    ordered = steps[order]
    first = np.ones(len(order), dtype=bool)
    first[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    return np.sort(order[first])


def _best(table: _Table, candidates: npt.NDArray[np.intp], top: int) -> list[int]:
    """The `top` best of the candidates, best first; equal ones by the steps of the largest denoiser, and so on."""
    if top < len(candidates):
        quality = table.quality[candidates]
        candidates = candidates[quality >= np.partition(quality, -top)[-top]]
    # Its last key decides first.
    order = np.lexsort((*table.steps[candidates].T, table.quality[candidates]))
    return [int(index) for index in candidates[order[::-1][:top]]]


def _front(table: _Table) -> npt.NDArray[np.intp]:
    """The Pareto front of the allowed rows, fastest first: each row better than all faster ones.

    One row stands for equal ones.
    """
    order = np.argsort(table.mean_s)
    order = order[table.allowed[order]]
    # First, cheaply, those better than all before them; ties in time then want an exact order, of these few alone.
    few = order[_improves(table.quality[order])]
    few = few[np.lexsort((-table.quality[few], table.mean_s[few]))]
    return few[_improves(table.quality[few])]


def _improves(quality: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Which values are above all before them."""
    better: npt.NDArray[np.bool_] = quality > np.concatenate(([-np.inf], np.maximum.accumulate(quality)[:-1]))
    return better


def _on_front(table: _Table, front: npt.NDArray[np.intp], rows: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
    """Which rows no other row beats: they are on the front, or as fast and as good as one that is."""
    at = np.searchsorted(table.mean_s[front], table.mean_s[rows])
    same = front[np.minimum(at, len(front) - 1)]
    unbeaten: npt.NDArray[np.bool_] = table.mean_s[same] == table.mean_s[rows]
    unbeaten &= table.quality[same] == table.quality[rows]
    unbeaten &= table.allowed[rows]
    return unbeaten


def _kept(rows: int, front: npt.NDArray[np.intp], best: Sequence[int]) -> npt.NDArray[np.intp]:
    """All rows, or of a huge table its Pareto rows, thinned evenly, with the best ones."""
    if rows <= MAX_ROWS:
        return np.arange(rows)
    if len(front) > MAX_PARETO_ROWS:
        front = front[np.linspace(0, len(front) - 1, MAX_PARETO_ROWS).round().astype(np.intp)]
    return np.union1d(front, np.array(best, dtype=np.intp))


def _row(
    model: CostModel,
    table: _Table,
    index: int,
    quantile: float | None,
    *,
    compute: float,
    loss: float | None,
    quality: dict[str, float],
    feasible: bool,
    pareto: bool,
    knows: Mapping[str, known_steps.Known],
) -> Row:
    units, steps, mean = table.units[index].tolist(), table.steps[index].tolist(), float(table.mean_s[index])
    whole, allocation = sum(units), runs(model.names, steps)
    return Row(
        fractions={name: unit / whole for name, unit in zip(model.names, units, strict=True)},
        steps=dict(zip(model.names, steps, strict=True)),
        allocation=allocation,
        time_s=Times(mean, model.at_quantile(mean, P95), model.at_quantile(mean, quantile)),
        compute=compute,
        loss=loss,
        quality=quality,
        feasible=feasible,
        pareto=pareto,
        refused=None if table.allowed[index] else known_steps.broken(allocation, knows),
    )


def _all_refused(profile: Profile, table: _Table) -> InfeasibleError:
    knows = known_steps.of(profile.denoisers)
    last = runs(list(knows), table.steps[0].tolist())
    return InfeasibleError(
        f"no allocation can be drawn: {known_steps.broken(last, knows)}",
        hint="no order from small to large gives every denoiser noise that it knows; profile others together",
    )


def _named(objective: Objective, value: float) -> dict[str, float]:
    """The objective's value by its name, unless the row has it in a column of its own."""
    return {} if objective in (most_compute, least_loss) else {objective.__name__: value}


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
    told += f" of {profile.setting.taken} steps"
    if bound.margin:
        told += f", with a margin of {bound.margin:.0%} as the machine was unsteady while it was profiled"
    return InfeasibleError(
        f"no allocation fits the budget ({asked}): the smallest possible one for this profile is "
        f"{shown_s(fastest_s * ratio, up=True)} ({told})",
        hint=f"what would reach it: {'; '.join(ways)}",
    )
