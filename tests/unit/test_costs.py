"""Predicted times."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.builders import measure, measured
from tstitch_cli.planning.costs import CostModel, per_evaluation_s
from tstitch_cli.planning.objectives import most_compute
from tstitch_cli.savings.accelerations import parse
from tstitch_cli.schema import Profile

FIXED = 0.03


def with_cache(asked: str, **changes: Any) -> Profile:
    profile = measured(10, evaluations=((2, 1), (1, 9)))
    setting = replace(profile.setting, accelerate=parse(asked))
    return replace(profile, setting=setting, denoisers=tuple(replace(d, **changes) for d in profile.denoisers))


def test_one_denoiser_alone() -> None:
    model = CostModel(measured(20))
    # The first evaluation is 1.5 of a steady one and the last 0.75.
    assert model.mean_s((("large", 20),)) == pytest.approx(FIXED + 0.1 * (1.5 + 18 + 0.75))
    assert model.trajectory_s("large") == pytest.approx(0.1 * 20.25)
    assert model.largest_alone_s(None) == model.mean_s((("large", 20),))


def test_stitched_pays_first_and_last_where_they_fall_and_each_switch() -> None:
    model = CostModel(measured(20))
    expected = FIXED + 0.01 * (1.5 + 9) + 0.1 * (9 + 0.75) + 0.002
    assert model.mean_s((("small", 10), ("large", 10))) == pytest.approx(expected)
    # Any order, any number of switches; a run that goes on is no switch.
    expected = FIXED + 0.1 * (1.5 + 4) + 0.01 * 10 + 0.1 * 4.75 - 0.1 * 1 + 0.1 + 2 * 0.002
    assert model.mean_s((("large", 5), ("small", 10), ("large", 3), ("large", 2))) == pytest.approx(expected)


def test_evaluations_are_what_costs() -> None:
    heun = measured(10, evaluations=((2, 9), (1, 1)))
    model = CostModel(heun)
    assert model.trajectory_s("small") == pytest.approx(0.01 * (1.5 + 17 + 0.75))
    # Nine steps of two evaluations, then the last step has one.
    assert model.mean_s((("small", 9), ("large", 1))) == pytest.approx(FIXED + 0.01 * 18.5 + 0.1 * 0.75 + 0.002)


def test_a_single_evaluation_is_a_first_one() -> None:
    assert CostModel(measured(1)).trajectory_s("large") == pytest.approx(0.15)


@pytest.mark.parametrize(
    "profile",
    [
        measured(20),
        measured(7, evaluations=((2, 3), (1, 4))),
        measured(2),
        with_cache("deepcache", cached_s=measure(0.002)),
        with_cache("fbcache", course_s=(0.3, *(0.01,) * 9, 0.2)),
    ],
)
def test_arrays_predict_what_single_rows_do(profile: Profile) -> None:
    model, total = CostModel(profile), profile.setting.steps
    rows = np.array([(a, b, total - a - b) for a in range(total + 1) for b in range(total + 1 - a)])
    expected = [model.mean_s([(n, s) for n, s in zip(model.names, row, strict=True) if s]) for row in rows.tolist()]
    assert model.mean_s_of_steps(rows).tolist() == expected


def test_quantiles_are_interpolated_and_clamped() -> None:
    model = CostModel(measured())
    assert model.at_quantile(2.0, None) == 2.0
    assert model.at_quantile(2.0, 0.95) == pytest.approx(2.2)
    assert model.at_quantile(2.0, 0.925) == pytest.approx(2 * 1.075)
    assert model.at_quantile(2.0, 0.999) == model.at_quantile(2.0, 0.99)


def cached(asked: str, **changes: Any) -> CostModel:
    profile = measured(10, (0.01, 0.1))
    large = replace(profile.denoisers[-1], **changes)
    setting = replace(profile.setting, accelerate=parse(asked))
    return CostModel(replace(profile, setting=setting, denoisers=(profile.denoisers[0], large)))


def test_a_cache_of_known_rhythm_begins_where_the_denoiser_takes_over() -> None:
    model = cached("deepcache:interval=3", cached_s=measure(0.02), last_s=measure(0.12))
    # Alone the tenth evaluation, the last, is full: it has 0.02 of its own.
    assert model.trajectory_s("large") == pytest.approx(0.15 + 0.02 * 2 + 2 * (0.1 + 0.02 * 2) + 0.12)
    for cut in range(1, 10):
        full = len(range(0, 10 - cut, 3))
        expected = full * 0.1 + (10 - cut - full) * 0.02 + 0.02 + 0.002
        together = model.mean_s((("small", cut), ("large", 10 - cut)))
        assert together == pytest.approx(FIXED + 0.015 + 0.01 * (cut - 1) + expected)


def test_a_cache_that_watches_costs_what_its_steps_did_after_a_full_one() -> None:
    course = (0.11, 0.02, 0.02, 0.02, 0.1, 0.02, 0.1, 0.02, 0.1, 0.1)
    model = cached("fbcache", course_s=course, first_s=measure(0.11), steady_s=measure(0.05), switch_s=measure(0.05))
    assert model.trajectory_s("large") == pytest.approx(sum(course))
    for cut in range(1, 10):
        together = model.mean_s((("small", cut), ("large", 10 - cut)))
        assert together == pytest.approx(FIXED + 0.015 + 0.01 * (cut - 1) + 0.1 + sum(course[cut + 1 :]))


def test_the_papers_cost_there_and_back() -> None:
    each = measure(per_evaluation_s(16.5, 100))
    profile = measured(100)
    large = replace(profile.denoisers[-1], first_s=each, steady_s=each, last_s=each)
    assert CostModel(replace(profile, denoisers=(*profile.denoisers[:-1], large))).trajectory_s("large") == 16.5


def test_compute_is_operations_where_known_and_seconds_elsewhere() -> None:
    steps = np.array([[20, 0, 0], [10, 0, 10], [0, 0, 20]])
    assert most_compute(measured(), steps) == pytest.approx([0.2e12, 1.1e12, 2e12])
    seconds = most_compute(measured(flops=False), steps)
    assert seconds == pytest.approx([0.01 * 20.25, 0.01 * 10.5 + 0.1 * 9.75, 0.1 * 20.25])
