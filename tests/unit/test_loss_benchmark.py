"""The pure parts of the benchmark that compares ways of predicting a loss."""

from __future__ import annotations

import numpy as np
import pytest

from tests.benchmarks.loss import judged, spearman, table, ways_of_adding


def test_ranks() -> None:
    rising = np.arange(9.0)
    assert spearman(rising, rising**3) == pytest.approx(1.0)
    assert spearman(rising, -rising) == pytest.approx(-1.0)


def test_a_way_that_is_right_is_found_to_be() -> None:
    random = np.random.default_rng(0)
    rms, weight = random.random((2, 5, 8)), random.random(8)
    rms[1] = 0.0
    taken = random.integers(2, size=(40, 8)).astype(float)
    summed = np.stack([((row == 0) * rms[0] * weight).sum(axis=1) for row in taken], axis=1)  # (P, N)
    found = {way.name: way for way in ways_of_adding(taken, rms, {"w": weight, "none": np.ones(8)}, 2.0 * summed)}
    right = found["sum, w"]
    assert right.rank.value == pytest.approx(1.0)
    assert right.scale == pytest.approx(2.0)
    assert right.log_std.value == pytest.approx(0.0, abs=1e-9)
    assert 0.5 < right.rank.low < right.rank.high <= 1.0
    assert all(way.rank.value < 1.0 for name, way in found.items() if name != "sum, w")
    assert table(list(found.values())).splitlines()[2].startswith("| sum, w |")


def test_rows_that_are_nothing_have_no_size() -> None:
    values = np.array([0.0, 1.0, 2.0])
    way = judged("same", lambda weights: values, 3, np.stack([values, values]))
    assert way.scale == pytest.approx(1.0)
    assert way.rank.value == pytest.approx(1.0)
