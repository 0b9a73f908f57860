"""The statistics of pictures: sums that merge, the distance of torchmetrics, intervals that hold what they say."""

from __future__ import annotations

from functools import reduce
from operator import add

import numpy as np
import pytest
import torch

from tstitch_cli.quality.manifolds import Manifold, precision_and_recall
from tstitch_cli.quality.statistics import (
    SUBSETS,
    Described,
    Sums,
    frechet,
    interval,
    jackknifed,
    joined,
    mean,
    subsets,
    without_each,
)

WIDTH = 24


def described(count: int, seed: int, *, shift: float = 0.0, classes: int = 5) -> Described:
    draw = torch.Generator().manual_seed(seed)
    features = torch.randn(count, WIDTH, generator=draw) * torch.linspace(0.5, 2, WIDTH) + shift
    probabilities = torch.randn(count, classes, generator=draw).softmax(1)
    clip = 100 * torch.rand(count, 1, generator=draw)
    return Described(features, probabilities, clip, (torch.rand(count, 1, generator=draw) < 0.7).float())


def test_the_distance_of_merged_sums_is_torchmetrics() -> None:
    from torchmetrics.image.fid import FrechetInceptionDistance

    class AsGiven(torch.nn.Identity):
        num_features = WIDTH

    real, drawn = described(300, 1), described(250, 2, shift=0.3)
    metric = FrechetInceptionDistance(feature=AsGiven())
    metric.set_dtype(torch.float64)
    metric.update(real.features.double(), real=True)
    metric.update(drawn.features.double(), real=False)
    parts = [Sums.of(drawn[part]) for part in subsets(250)]
    merged = reduce(add, parts)
    assert merged.count == 250
    assert frechet(Sums.of(real).gaussian, merged.gaussian) == pytest.approx(float(metric.compute()), rel=1e-9)


def test_sums_of_parts_are_those_of_the_whole() -> None:
    whole = described(103, 3)
    parts = subsets(len(whole))
    assert len(parts) == SUBSETS
    assert {len(range(*part.indices(103))) for part in parts} == {10, 11}
    assert torch.equal(joined([whole[part] for part in parts]).features, whole.features)
    merged, once = reduce(add, (Sums.of(whole[part]) for part in parts)), Sums.of(whole)
    for part in ("features", "products", "probabilities"):
        torch.testing.assert_close(getattr(merged, part), getattr(once, part), rtol=1e-12, atol=1e-12)
    assert merged.count == once.count
    assert merged.information == pytest.approx(once.information, rel=1e-12)
    left_out = without_each([Sums.of(whole[part]) for part in parts])
    assert [sums.count for sums in left_out] == [103 - len(range(*part.indices(103))) for part in parts]


def test_the_inception_score_is_that_of_torchmetrics() -> None:
    from torchmetrics.image.inception import InceptionScore

    class AsGiven(torch.nn.Identity):
        num_features = 5

    logits = torch.randn(200, 5, generator=torch.Generator().manual_seed(4))
    metric = InceptionScore(feature=AsGiven(), splits=1)
    metric.update(logits)
    none = torch.zeros(200, 0)
    ours = Sums.of(Described(none, logits.softmax(1), none, none)).inception_score
    assert ours == pytest.approx(float(metric.compute()[0]), rel=1e-5)


def test_identical_features_have_no_distance() -> None:
    gaussian = Sums.of(described(200, 5)).gaussian
    assert frechet(gaussian, gaussian) == pytest.approx(0.0, abs=1e-9)


def test_the_interval_of_a_mean_is_students() -> None:
    """Leaving out subsets of equal size, the interval of a mean is the usual one of the subsets' means."""
    values = torch.rand(200, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    found = mean(values)
    means = np.array([values[part].mean() for part in subsets(200)])
    half = 2.262 * means.std(ddof=1) / SUBSETS**0.5
    assert (found.value - found.low, found.high - found.value) == pytest.approx((half, half), rel=1e-9)


def test_intervals_are_about_the_value_of_all_and_hold_repetitions() -> None:
    """Small samples are biased upward; the interval must be as wide as repeating with the same number scatters."""
    real = Sums.of(described(3000, 7)).gaussian
    values, halves = [], []
    for seed in range(60):
        drawn = described(200, 100 + seed, shift=0.1)
        found = jackknifed([Sums.of(drawn[p]) for p in subsets(200)], lambda sums: frechet(real, sums.gaussian))
        values.append(found.value)
        halves.append(found.high - found.value)
        small = Sums.of(drawn[: 200 // SUBSETS]).gaussian
        assert frechet(real, small) > found.high
    held = np.mean(np.abs(np.array(values) - np.mean(values)) <= np.array(halves))
    assert held >= 0.85
    assert 0.7 < np.mean(halves) / 2.262 / np.std(values, ddof=1) < 1.4


def test_intervals_stay_within_what_is_possible() -> None:
    found = interval(0.95, [0.9, 1.0] * 5, 0.0, 1.0)
    assert found.low < 0.95
    assert found.high == 1.0


def test_precision_and_recall_are_those_of_the_definition() -> None:
    real, drawn = described(60, 8).features, described(50, 9, shift=0.4).features

    def radii(points: np.ndarray) -> np.ndarray:
        distances = np.linalg.norm(points[:, None] - points[None], axis=2)
        return np.sort(distances, axis=1)[:, 3]  # itself, then the third neighbour

    def both(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
        apart = np.linalg.norm(a[:, None] - b[None], axis=2)
        inside = (apart <= radii(a)[:, None]).any(axis=0)
        covered = (apart <= radii(b)[None]).any(axis=1)
        return inside.mean(), covered.mean()

    parts = subsets(50)
    precision, recall = precision_and_recall(Manifold(real), drawn, parts)
    assert (precision.value, recall.value) == pytest.approx(both(real.numpy(), drawn.numpy()))
    left_out = [both(real.numpy(), np.delete(drawn.numpy(), np.arange(50)[part], axis=0)) for part in parts]
    for found, index in ((precision, 0), (recall, 1)):
        expected = interval(found.value, [each[index] for each in left_out], 0.0, 1.0)
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_blocks_of_distances_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    real, drawn, parts = described(60, 8).features, described(50, 9).features, subsets(50)
    whole = precision_and_recall(Manifold(real), drawn, parts)
    monkeypatch.setattr("tstitch_cli.quality.manifolds._BLOCK", 7)
    for found, expected in zip(precision_and_recall(Manifold(real), drawn, parts), whole, strict=True):
        assert found.value == pytest.approx(expected.value, abs=0.021)
