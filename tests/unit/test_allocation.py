"""Fractions to whole steps, runs and evaluations."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest

from tstitch_cli.allocation import collapse, expand, per_evaluation, runs, units_of, whole_steps
from tstitch_cli.errors import UsageError
from tstitch_cli.planning.combinations import combinations, whole_steps_of_units


@pytest.mark.parametrize(
    ("fractions", "total", "steps"),
    [
        ((0.5, 0.5), 20, (10, 10)),
        ((0.4, 0.6), 50, (20, 30)),
        ((0.3, 0.3, 0.4), 10, (3, 3, 4)),
        ((1 / 3, 1 / 3, 1 / 3), 10, (3, 3, 4)),
        ((0.5, 0.5), 5, (2, 3)),  # a tie goes to the later, larger one
        ((0.1, 0.9), 4, (0, 4)),
        ((0.7, 0.2, 0.1), 7, (5, 1, 1)),
        ((0.0, 1.0), 4, (0, 4)),
        ((3, 7), 20, (6, 14)),
    ],
)
def test_largest_remainder(fractions: tuple[float, ...], total: int, steps: tuple[int, ...]) -> None:
    assert whole_steps(fractions, total) == steps


def test_float_noise_does_not_decide_ties() -> None:
    # 0.15 * 10 is 1.5 and 0.35 * 10 is 3.5 in decimal, but not in binary.
    assert whole_steps((0.15, 0.35, 0.5), 10) == (1, 4, 5)


@pytest.mark.parametrize("fractions", [(0.0, 0.0), (-0.1, 1.1), ()])
def test_nonsense_fractions_are_refused(fractions: tuple[float, ...]) -> None:
    with pytest.raises(UsageError):
        whole_steps(fractions, 10)


def test_runs_leave_out_empty_intervals_and_expand_back() -> None:
    allocation = runs(("s", "b", "xl"), (3, 0, 2))
    assert allocation == (("s", 3), ("xl", 2))
    assert expand(allocation) == ("s", "s", "s", "xl", "xl")
    assert collapse(expand(allocation)) == allocation


def test_a_second_order_pair_is_never_split() -> None:
    heun = (2, 2, 2, 2, 1)
    assert per_evaluation((("s", 2), ("xl", 3)), heun) == ("s",) * 4 + ("xl",) * 5


def test_pndm_has_its_extra_evaluation_with_the_first_step() -> None:
    names = per_evaluation((("s", 1), ("xl", 49)), (2,) + (1,) * 49)
    assert names == ("s", "s") + ("xl",) * 49


def test_an_allocation_of_other_steps_is_an_error() -> None:
    with pytest.raises(ValueError, match="zip"):
        per_evaluation((("s", 3),), (1, 1))


@pytest.mark.parametrize(("denoisers", "increment", "rows"), [(3, 0.1, 66), (2, 0.1, 11), (4, 0.05, 1771), (1, 0.5, 1)])
def test_every_combination_once(denoisers: int, increment: float, rows: int) -> None:
    table = combinations(denoisers, increment)
    assert table.shape == (rows, denoisers)
    assert len(np.unique(table, axis=0)) == rows == comb(units_of(increment) + denoisers - 1, denoisers - 1)
    assert (table.sum(axis=1) == units_of(increment)).all()
    assert (table >= 0).all()


def test_five_denoisers_at_a_hundredth_are_4_6_million() -> None:
    table = combinations(5, 0.01)
    assert table.shape == (4_598_126, 5)
    assert table.nbytes < 50e6


@pytest.mark.parametrize("increment", [0.3, 0.0, -0.1, 1.5, float("nan"), float("inf"), 0.0001])
def test_an_increment_must_divide_one(increment: float) -> None:
    with pytest.raises(UsageError) as caught:
        combinations(3, increment)
    assert caught.value.hint is not None


def test_a_third_may_be_written_in_decimals() -> None:
    assert units_of(0.3333) == 3


def test_too_many_combinations_are_refused() -> None:
    with pytest.raises(UsageError, match="combinations"):
        combinations(9, 0.01)


@pytest.mark.parametrize(
    ("denoisers", "increment", "total"), [(3, 0.1, 7), (4, 0.125, 50), (2, 0.01, 33), (5, 0.25, 4)]
)
def test_arrays_round_as_single_rows_do(denoisers: int, increment: float, total: int) -> None:
    units = combinations(denoisers, increment)
    expected = [whole_steps(row, total) for row in units.tolist()]
    assert [tuple(row) for row in whole_steps_of_units(units, total).tolist()] == expected
