"""The stage that measures a plan's rows anew, by calls such as `sample` makes."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from tstitch_cli.clocks import Clock
from tstitch_cli.denoisers import Family
from tstitch_cli.inputs import blank
from tstitch_cli.measuring import fingerprint
from tstitch_cli.sample import Work, check_fingerprint, warm_up, work_of, write
from tstitch_cli.schema import RANDOM_WEIGHTS, Plan
from tstitch_cli.trajectory import Batch, run
from tstitch_cli.zoo.controls import Control, weights_name
from tstitch_cli.zoo.entry import Entry

FEWEST_CALLS = 3


def check_machine(plan: Plan, entries: Sequence[Entry], control: Control | None) -> None:
    """Raises StaleError where the plan's times are not of this machine, these versions or weights.

    A plan made with random weights is of the machine alone, for nothing is drawn with it.
    """
    if plan.fingerprint is None or not plan.fingerprint.random:
        check_fingerprint(plan, entries, control, plan.setting.device)
        return
    weights = {entry.name: RANDOM_WEIGHTS for entry in entries}
    if control is not None:
        weights[weights_name(control.name)] = RANDOM_WEIGHTS
    here = fingerprint.take(torch.device(plan.setting.device), weights)
    fingerprint.require_same(plan.fingerprint, here, "the plan", to_draw=False)


def measure(
    family: Family,
    plan: Plan,
    rows: Sequence[int],
    clock: Clock,
    *,
    calls: int,
    max_time_s: float,
    seed: int = 0,
    progress: Callable[[str, float], None] = lambda doing, share: None,
    now: Callable[[], float] = time.perf_counter,
) -> dict[int, list[float]]:
    """Seconds of `calls` warm calls of each of `rows`, writing included, by the row's index.

    Rows are interleaved in rounds of random order. No round is begun that would end after `max_time_s`, once there
    are FEWEST_CALLS of them. Raises what `trajectory.run` raises.
    """
    batch = _batch(family, plan, seed)
    works = {index: work_of(plan, plan.rows[index]) for index in rows}
    everyone = tuple((denoiser.name, 1) for denoiser in plan.denoisers)
    progress("warming up", 0.0)
    warm_up(family, replace(work_of(plan, plan.rows[0]), allocation=everyone), batch, clock)
    for work in works.values():
        _call(family, work, batch, clock, now)
    seconds: dict[int, list[float]] = {index: [] for index in works}
    order, began, longest = random.Random(seed), now(), 0.0
    for turn in range(calls):
        before = now()
        if turn >= FEWEST_CALLS and before - began + longest > max_time_s:
            break
        for index in order.sample(list(works), len(works)):
            progress(f"call {turn + 1} of {calls} of row {index}", max(turn / calls, (now() - began) / max_time_s))
            seconds[index].append(_call(family, works[index], batch, clock, now))
        longest = max(longest, now() - before)
    return seconds


def _batch(family: Family, plan: Plan, seed: int) -> Batch:
    prompts = family.example_prompts(plan.setting.batch_size)
    return Batch(prompts, tuple(range(len(prompts))), seed, given=blank(plan.setting))


def _call(family: Family, work: Work, batch: Batch, clock: Clock, now: Callable[[], float]) -> float:
    trajectory = run(family, batch, work.turns(), clock, strict=False)
    with tempfile.TemporaryDirectory() as folder:
        began = now()
        write(family, work, batch, trajectory, Path(folder), overwrite=False)
        return trajectory.total_s + now() - began
