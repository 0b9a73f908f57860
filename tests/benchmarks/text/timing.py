"""Seconds a call, all rows interleaved, and their ratios."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

from tests.benchmarks.common import estimate, interleaved, ratio_of_means
from tests.benchmarks.report.engine import evaluations_of
from tstitch_cli.allocation import Allocation, per_evaluation
from tstitch_cli.clocks import clock_for
from tstitch_cli.denoisers import Family
from tstitch_cli.schema import Measured
from tstitch_cli.trajectory import Batch, run

K = TypeVar("K")
Seconds = tuple[float, ...]
"""Of one row's calls, round by round."""


def calls(family: Family, rows: Mapping[K, Allocation], prompts: tuple[str, ...]) -> dict[K, Callable[[], float]]:
    """For each of `rows` what makes a call of the setting's batch and tells its seconds, the pictures included."""
    size = family.setting.batch_size
    batch = Batch(tuple(prompts[i % len(prompts)] for i in range(size)), tuple(range(size)))
    clock, counts = clock_for(family.device), evaluations_of(family)

    def call(row: Allocation) -> float:
        return run(family, batch, per_evaluation(row, counts), clock).total_s

    return {key: partial(call, row) for key, row in rows.items()}


def timed(made: Mapping[K, Callable[[], float]], rounds: int) -> dict[K, Seconds]:
    """The seconds of `rounds` calls of each, after one of each that warms up."""
    for call in made.values():
        call()
    found: dict[K, list[float]] = {key: [] for key in made}
    for key in interleaved(list(made), rounds):
        found[key].append(made[key]())
    return {key: tuple(seconds) for key, seconds in found.items()}


def ratio(over: Seconds, under: Seconds) -> Measured:
    """Of the means, with the bootstrap's 95 % interval over rounds."""
    found = estimate(ratio_of_means, over, under)
    return Measured(found.value, found.low, found.high)
