"""The lookup table as columns: every distinct row's steps, time and what it is judged by, enumerated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tstitch_cli.allocation import Allocation, collapse, expand, runs, units_of
from tstitch_cli.errors import UsageError
from tstitch_cli.planning import known_steps
from tstitch_cli.planning.assignments import PerStep
from tstitch_cli.planning.combinations import combinations, whole_steps_of_units
from tstitch_cli.planning.costs import CostModel
from tstitch_cli.planning.objectives import compute_of, least_loss, loss_of, most_compute
from tstitch_cli.planning.orders import ORDERS, SMALL_TO_LARGE, arranged
from tstitch_cli.schema import Profile

MAX_ROWS = 10_000
"""Distinct rows up to which all of them are kept."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Table:
    """Every distinct row: increments (N, K), whole steps (N, K), mean seconds (N,), compute (N,) and loss (N,).

    `allowed` (N,) are those that give every denoiser only steps whose noise level it knows.
    """

    names: tuple[str, ...]
    units: npt.NDArray[np.int16]
    steps: npt.NDArray[np.int16]
    mean_s: Floats
    compute: Floats
    loss: Floats | None
    allowed: npt.NDArray[np.bool_]
    enumerated: int
    """Combinations there were before equal rows were merged."""
    orders: tuple[str, ...] = ()
    """(N,): each row's order where others than small to large were asked for."""
    taken: npt.NDArray[np.int16] | None = None
    """(N, T): who takes each step, where others than small to large were asked for."""
    added: tuple[tuple[Allocation, str | None], ...] = ()
    """The allocation and the order of the last rows, which were not enumerated but measured; `orders` and `taken` have
    no place for them."""

    @property
    def _own(self) -> int:
        """Rows that were enumerated."""
        return len(self.steps) - len(self.added)

    def allocation(self, index: int) -> Allocation:
        """Who takes which steps in a row."""
        if index >= self._own:
            return self.added[index - self._own][0]
        if self.taken is None:
            return runs(self.names, self.steps[index].tolist())
        return collapse(self.names[k] for k in self.taken[index])

    def order(self, index: int) -> str | None:
        """A row's order, None where it is small to large."""
        if index >= self._own:
            return self.added[index - self._own][1]
        return None if not self.orders or self.orders[index] == SMALL_TO_LARGE else self.orders[index]

    def find(self, allocation: Allocation) -> int | None:
        """The row with this allocation; None where none has it."""
        if self.taken is not None:
            same = self.taken == [self.names.index(name) for name in expand(allocation)]
        else:
            counts = dict(allocation)
            steps = [counts.get(name, 0) for name in self.names]
            if runs(self.names, steps) != allocation:
                return None
            same = self.steps == steps
        found = np.flatnonzero(same.all(axis=1))
        return int(found[0]) if len(found) else None

    def with_rows(self, profile: Profile, model: CostModel, rows: Sequence[tuple[Allocation, str | None]]) -> Table:
        """The table and, priced as its own rows are, those with these allocations and orders, of which it has none."""
        if not rows:
            return self
        taken = [expand(allocation) for allocation, _ in rows]
        steps = np.array([[each.count(name) for name in self.names] for each in taken], dtype=np.int16)
        knows = known_steps.of(profile.denoisers)
        loss, agreement = self.loss, profile.agreement
        if loss is not None and agreement is not None:
            theirs = [float(loss_of(agreement, allocation).mean()) for allocation, _ in rows]
            loss = np.append(loss, np.round(theirs, 12))
        return replace(
            self,
            # Of their own total, which is the number of steps.
            units=np.concatenate([self.units, steps]),
            steps=np.concatenate([self.steps, steps]),
            mean_s=np.append(self.mean_s, [model.mean_s(allocation) for allocation, _ in rows]),
            compute=np.append(self.compute, [compute_of(profile, allocation) for allocation, _ in rows]),
            loss=loss,
            allowed=np.append(self.allowed, [known_steps.broken(allocation, knows) is None for allocation, _ in rows]),
            added=tuple(rows),
        )


def enumerated(profile: Profile, model: CostModel, increment: float, orders: Sequence[str]) -> Table:
    """The table of all fractions in steps of `increment`, in each of `orders`; equal rows are one.

    Raises:
        UsageError: the increment does not divide 1, or other orders than small to large are asked for where steps are
            cached or the rows are too many.
    """
    total = profile.setting.taken
    units = combinations(len(profile.denoisers), increment)
    count = len(units)
    steps = whole_steps_of_units(units, total)
    # Where an increment is a whole number of steps, no two combinations come to the same steps.
    if total % units_of(increment):
        distinct = _distinct(units, steps, total)
        units, steps = units[distinct], steps[distinct]
    if tuple(orders) != (SMALL_TO_LARGE,):
        return _ordered(profile, model.names, units, steps, count, orders)
    return Table(
        model.names,
        units,
        steps,
        model.mean_s_of_steps(steps),
        most_compute(profile, steps),
        None if profile.agreement is None else 0.0 - least_loss(profile, steps),
        known_steps.mask(steps, [denoiser.knows for denoiser in profile.denoisers]),
        count,
    )


def _ordered(
    profile: Profile,
    names: tuple[str, ...],
    units: npt.NDArray[np.int16],
    steps: npt.NDArray[np.int16],
    count: int,
    orders: Sequence[str],
) -> Table:
    """The rows in each of `orders`; what comes to the same allocation stands under the first of them."""
    per_step = PerStep.of(profile, "--order")
    if len(steps) > MAX_ROWS:
        raise UsageError(
            f"{len(steps):,} rows are too many to look at in other orders", hint="use a coarser --increment"
        )
    every = np.concatenate([arranged(order, steps) for order in orders])
    _, first = np.unique(every, axis=0, return_index=True)
    first.sort()
    taken, of = every[first], first % len(steps)
    return Table(
        names,
        units[of],
        steps[of],
        per_step.mean_s_of(taken),
        per_step.compute_of(taken),
        per_step.loss_of(taken),
        per_step.known_of(taken),
        count * len(orders),
        tuple(orders[index // len(steps)] for index in first),
        taken,
    )


def orders_named(name: str) -> tuple[str, ...]:
    """The orders that `--order` names, of `any` all of them; raises UsageError with all names otherwise."""
    known = {order: (order,) for order in ORDERS} | {"any": ORDERS}
    if (spelled := name.strip().lower().replace("-", " ")) not in known:
        raise UsageError(
            f"{name[:40]!r} is no order", hint=f"use {', '.join(each.replace(' ', '-') for each in known)}"
        )
    return known[spelled]


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
