"""How sure a plan is: the interval of every row's predicted loss, and whether the next best row is really worse."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from tstitch_cli.allocation import Allocation
from tstitch_cli.confidence import student_t
from tstitch_cli.planning.objectives import least_loss, picture_losses
from tstitch_cli.quality.metrics import METRICS
from tstitch_cli.schema import Agreement, Plan, Profile, Row, RunnerUp

RESAMPLES = 1000
SPAN = (0.025, 0.975)
FEW = 8
"""Pictures below which the bootstrap makes too much of them."""
AT_ONCE = 2000
"""Rows whose resamples are held at one time."""

Floats = npt.NDArray[np.float64]


def losses_of(agreement: Agreement, names: Sequence[str], allocations: Iterable[Allocation]) -> Floats:
    """(N, P): the predicted loss of every allocation, in any order, for every picture that was measured."""
    place = {name: np.int16(k) for k, name in enumerate(names)}
    # As numbers: the names of ten thousand rows of a thousand steps would fill the memory.
    taken = np.array([np.repeat([place[n] for n, _ in runs], [steps for _, steps in runs]) for runs in allocations])
    return sum((taken == place[n]) @ picture_losses(agreement, n, taken.shape[1]).T for n in names)


def interval(values: Floats) -> Floats | None:
    """(N, 2): the ends of the 95 % interval of the mean of `values` (N, P) over the P pictures.

    By the bootstrap; by Student's t where the pictures are too few to stand for all; None of a single one, which tells
    nothing.
    """
    pictures = values.shape[1]
    if pictures < 2:
        return None
    if pictures < FEW:
        mean = values.mean(axis=1, keepdims=True)
        half = student_t(pictures) * values.std(axis=1, ddof=1, keepdims=True) / pictures**0.5
        return np.concatenate([mean - half, mean + half], axis=1)
    drawn = _resampled(pictures)
    blocks = [values[first : first + AT_ONCE] @ drawn for first in range(0, len(values), AT_ONCE)]
    return np.concatenate([np.quantile(block, SPAN, axis=1).T for block in blocks])


def with_sureness(plan: Plan, profile: Profile) -> Plan:
    """`plan` with the interval of every row's loss and the runner-up of the chosen row.

    Two losses are held against each other picture by picture; a measured metric by the intervals it came with.
    """
    if profile.agreement is None:
        return replace(plan, runner_up=_runner_up(plan, None))
    names = [denoiser.name for denoiser in plan.denoisers]
    losses = losses_of(profile.agreement, names, (row.allocation for row in plan.rows))
    rows, ends = plan.rows, interval(losses)
    if ends is not None:
        # A loss is a distance, below which there is nothing.
        within = np.round(np.maximum(ends, 0.0), 12).tolist()
        rows = tuple(replace(row, loss_within=(low, high)) for row, (low, high) in zip(rows, within, strict=True))
    return replace(plan, rows=rows, runner_up=_runner_up(plan, losses), compared=losses.shape[1])


def judged(plan: Plan, row: Row) -> float | None:
    """What `plan` judges `row` by, higher being better; None where the row lacks it."""
    if plan.objective == least_loss.__name__:
        return None if row.loss is None else -row.loss
    if (metric := METRICS.get(plan.objective)) is not None:
        found = row.measured.get(plan.objective)
        return None if found is None else found.value if metric.higher_is_better else -found.value
    return row.quality.get(plan.objective, row.compute)


def _runner_up(plan: Plan, losses: Floats | None) -> RunnerUp | None:
    others = {
        index: value
        for index, row in enumerate(plan.rows)
        if row.feasible and index != plan.chosen and (value := judged(plan, row)) is not None
    }
    by_loss = plan.objective == least_loss.__name__ and losses is not None
    if not others or not (by_loss or plan.objective in METRICS):
        return None
    following = max(others, key=lambda index: (others[index], -index))
    if by_loss and losses is not None:
        apart = interval((losses[following] - losses[plan.chosen])[None])
        return RunnerUp(following, None if apart is None else bool(apart[0, 0] <= 0.0 <= apart[0, 1]))
    mine, theirs = (plan.rows[index].measured[plan.objective] for index in (plan.chosen, following))
    return RunnerUp(following, mine.low <= theirs.high and theirs.low <= mine.high)


def _resampled(count: int) -> Floats:
    """(P, RESAMPLES): how much every picture weighs in each resample, always the same ones."""
    drawn = np.random.default_rng(0).integers(count, size=(RESAMPLES, count))
    return np.stack([np.bincount(each, minlength=count) for each in drawn], axis=1) / count
