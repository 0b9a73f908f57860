"""The pure parts of the benchmarks: the protocol's arithmetic, not its measurements."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import linalg

from tests.benchmarks import budget, figures, frechet, overhead, prediction, quality
from tests.benchmarks.common import LARGE, SMALL, Sample, estimate, interleaved, markdown, ratio_of_means
from tests.builders import measured, planned
from tstitch_cli.errors import UsageError
from tstitch_cli.quality.classifier import FEATURES
from tstitch_cli.quality.features import ClassifierFeatures
from tstitch_cli.schema import Measure, Validation


def features(count: int, shift: float, seed: int) -> torch.Tensor:
    mixing = np.random.default_rng(9).normal(size=(FEATURES, FEATURES)) / 8
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(count, FEATURES)) @ mixing + shift)


def test_the_distance_is_the_one_of_the_formula() -> None:
    real, drawn = features(600, 0.0, 1), 1.3 * features(400, 0.2, 2)
    a, b = np.cov(real.numpy().T), np.cov(drawn.numpy().T)
    offset = (real.mean(0) - drawn.mean(0)).square().sum().item()
    expected = offset + np.trace(a + b - 2 * linalg.sqrtm(a @ b).real)
    assert frechet.distance(real, drawn) == pytest.approx(expected, rel=1e-9)


def test_the_distance_of_a_set_to_itself_is_zero() -> None:
    real = features(500, 0.0, 1)
    assert frechet.distance(real, real) == pytest.approx(0.0, abs=1e-9)


def test_subsets_are_disjoint_and_smaller_ones_are_biased_upward() -> None:
    real, drawn = features(3000, 0.0, 1), features(1000, 0.0, 2)
    parts = frechet.subset_distances(real, drawn, 5)
    assert parts == tuple(frechet.distance(real, drawn[i : i + 200]) for i in range(0, 1000, 200))
    assert min(parts) > frechet.distance(real, drawn)


def test_the_library_takes_our_features_from_pixels_too() -> None:
    """The distance from cached features is the one torchmetrics finds with the classifier inside."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    classifier = ClassifierFeatures("fashion")
    drawn = torch.Generator().manual_seed(1)
    sets = [torch.randint(0, top, (12, 1, 32, 32), generator=drawn, dtype=torch.uint8) for top in (100, 255)]

    class Inside(torch.nn.Module):
        num_features = FEATURES

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return frechet.describe(classifier, pixels).features

    metric = FrechetInceptionDistance(feature=Inside())
    for pixels, real in zip(sets, (True, False), strict=True):
        metric.update(pixels, real=real)
    a, b = (frechet.describe(classifier, pixels).features for pixels in sets)
    assert a.dtype == torch.float64
    # Twelve pictures have fewer directions than features, and the square root of a rounded 0 is not so near to 0.
    assert frechet.distance(a, b) == pytest.approx(metric.compute().item(), rel=1e-7)


def test_pictures_go_to_the_classifier_as_they_are_saved() -> None:
    pixels = torch.arange(2 * 1024).reshape(2, 1, 32, 32).remainder(256).to(torch.uint8)
    images = [Image.fromarray(each[0].numpy()) for each in pixels]
    assert torch.equal(frechet.pixels_of(images), pixels)


def test_accuracy_counts_class_i_mod_10() -> None:
    right = torch.arange(40) % 10
    wrong = right.clone()
    wrong[:10] = (wrong[:10] + 1) % 10
    empty = torch.empty(40, 0)
    assert frechet.accuracy(frechet.Described(empty, right)) == 1.0
    assert frechet.accuracy(frechet.Described(empty, wrong)) == 0.75


def test_real_pictures_are_taken_in_turn() -> None:
    labels = torch.from_numpy(np.random.default_rng(0).permutation(np.repeat(np.arange(10), 20)))
    taken = frechet.in_turn(labels, 50)
    assert torch.equal(labels[taken], torch.arange(50) % 10)
    assert len(set(taken.tolist())) == 50
    assert taken[0] == torch.nonzero(labels == 0)[0]


def test_a_finished_row_is_not_made_again(tmp_path: Path) -> None:
    made = frechet.Described(features(10, 0.0, 3), torch.arange(10))
    path = tmp_path / "work" / "row.npz"
    first = frechet.kept(path, lambda: made)
    again = frechet.kept(path, lambda: pytest.fail("made again"))
    for found in (first, again):
        assert torch.equal(found.features, made.features)
        assert torch.equal(found.predicted, made.predicted)


def test_rows_of_the_quality_table() -> None:
    found = quality.rows(20)
    assert len(found) == 7
    assert found[SMALL] == (1.0, ((SMALL, 20),))
    assert found[LARGE] == (0.0, ((LARGE, 20),))
    assert found[f"{SMALL} 40 %, then {LARGE}"] == (0.4, ((SMALL, 8), (LARGE, 12)))
    assert all(sum(steps for _, steps in allocation) == 20 for _, allocation in found.values())


def test_every_item_comes_once_a_round_in_changing_order() -> None:
    order = list(interleaved("abcdef", 30))
    rounds = [order[i : i + 6] for i in range(0, len(order), 6)]
    assert all(sorted(each) == list("abcdef") for each in rounds)
    assert len(set(map(tuple, rounds))) > 20
    assert order == list(interleaved("abcdef", 30))
    assert order != list(interleaved("abcdef", 30, seed=1))


def test_an_interval_of_a_ratio_ignores_drift_between_rounds() -> None:
    noise = np.random.default_rng(0).normal(1.0, 0.002, size=(2, 200))
    drift = np.linspace(1.0, 3.0, 200)
    found = estimate(ratio_of_means, 1.01 * drift * noise[0], drift * noise[1])
    assert found.low < 1.01 < found.high
    assert found.high - found.low < 0.002


def test_abba_times_the_two_alike() -> None:
    ticks = iter(range(100))
    plain, stitched = overhead.abba(lambda: next(ticks), lambda: next(ticks), 5)
    assert plain == stitched  # a clock that drifts evenly costs neither anything


def test_stitching_a_denoiser_that_does_nothing_costs_microseconds() -> None:
    bare, added = overhead.seconds_an_evaluation(rounds=3)
    assert 0 < bare.mean < 1e-3
    assert 0 < added.value < 1e-3


def test_held_out_rows_have_nothing_to_do_with_the_profile() -> None:
    plan = planned()
    checks = tuple(Validation(row.allocation, 1.0, Measure(1.0, 0.0, 3)) for row in plan.rows[5:20:3])
    profile = replace(measured(), validation=checks)
    chosen = prediction.held_out(plan, profile, 12)
    allocations = [plan.rows[i].allocation for i in chosen]
    assert len(set(chosen)) == 12
    assert not {check.allocation for check in checks} & set(allocations)
    assert Counter(map(len, allocations)) == {2: 6, 3: 6}
    times = [plan.rows[i].time_s.mean for i in chosen]
    everyone = [row.time_s.mean for row in plan.rows if len(row.allocation) > 1]
    assert times == sorted(times)
    assert min(times) < np.quantile(everyone, 0.1)
    assert max(times) > np.quantile(everyone, 0.9)


def test_too_small_a_table_is_refused() -> None:
    plan = planned()
    with pytest.raises(UsageError, match="rows that its profile was not fitted to"):
        prediction.held_out(replace(plan, rows=plan.rows[:9]), measured(), 10)


def test_two_denoisers_have_rows_enough_where_the_increment_is_fine() -> None:
    plan = planned()
    pairs = replace(plan, rows=tuple(row for row in plan.rows if len(row.allocation) == 2))
    assert len(prediction.held_out(pairs, measured(), 10)) == 10


def test_verdicts_of_the_prediction() -> None:
    checked = [
        prediction.Checked(i, (("s", 4), ("xl", 6)), 1.0, 1.05, Sample.of((1.0 + error, 1.0 + error)))
        for i, error in enumerate((0.01, -0.02, 0.07))
    ]
    assert prediction.verdicts(checked)[:2] == ["median error 2.0 % (goal 3 %)", "largest error 7.0 % (goal 8 %)"]
    assert prediction.within_p95(checked) == pytest.approx(2 / 3)
    assert "| s 4, xl 6 | 1.0000 s | 0.9800 ± 0.0000 s | -2.0% |" in prediction.table(checked)


def quality_report() -> dict[str, Any]:
    lines = [
        quality.Line(name, fraction, 10.0 + i, Sample.of((11.0, 12.0)), 0.9, Sample.of((0.8 - i / 10, 0.88 - i / 10)))
        for i, (name, (fraction, _)) in enumerate(quality.rows(20).items())
    ]
    floors = [quality.Line("(real training pictures)", None, 3.0, Sample.of((4.0, 4.5)), 0.99, None)]
    report = {
        "machine": {"fingerprint": {"device": "a processor", "threads": 2, "torch": "2.13"}},
        "protocol": {
            "pictures": 5000,
            "subsets": 5,
            "against": "10,000 test pictures",
            "timed_batch": 8,
            "setting": {"steps": 20, "scheduler": "ddim", "guidance": 1.5},
        },
        "results": {"lines": [asdict(line) for line in lines], "floors": [asdict(line) for line in floors]},
    }
    return json.loads(json.dumps(report))


def test_the_quality_table_is_made_from_the_report() -> None:
    snippet = figures.quality_snippet(quality_report())
    assert "| fashion-s | 10.00 ± 0.71 | 90.0% | 105.0 ± 7.1 | 131% |" in snippet
    assert "| (real training pictures) | 3.00 ± 0.35 | 99.0% |  |  |" in snippet
    assert "fashion-s is 0.83 times as far" in snippet
    assert "fashion-b does not lie between them" in snippet


def test_the_quality_figure_is_drawn(tmp_path: Path) -> None:
    figures.quality_png(quality_report(), tmp_path / "quality.png")
    with Image.open(tmp_path / "quality.png") as image:
        assert image.size == (1600, 1000)
        assert len(set(image.convert("L").resize((80, 50)).tobytes())) > 10


def test_markdown() -> None:
    assert markdown(("a", "b"), [("1", "2")]) == "| a | b |\n| --- | ---: |\n| 1 | 2 |"


def kept(seconds: tuple[float, ...], *, budget_s: float = 1.0, could: bool = True) -> budget.Kept:
    allocation = (("s", 4), ("xl", 6))
    return budget.Kept(0, ("s", "xl"), 10, 1, "ddim", "50%", budget_s, 0.0, allocation, 0.9, 0.95, could, True, seconds)


def test_the_settings_of_the_budgets_are_many_and_mixed() -> None:
    found = budget.cases(budget.SETTINGS)
    assert len({(c.names, c.steps, c.batch_size, c.scheduler) for c in found}) == budget.SETTINGS
    assert sum(len(case.budgets) for case in found) >= 130
    for part, choices in (("names", 4), ("steps", 5), ("batch_size", 4), ("scheduler", 6)):
        counted = Counter(getattr(case, part) for case in found)
        assert len(counted) == choices
        assert max(counted.values()) <= 2 * min(counted.values())


def test_verdicts_of_the_budgets() -> None:
    plans = [kept((0.9, 0.9, 0.9, 1.1)), kept((0.4,) * 4, could=False)]
    found = budget.summary(plans)
    assert (found["calls"], found["calls_within"], found["plans_all_within"]) == (8, 7 / 8, 0.5)
    assert found["use_where_a_row_could"] == pytest.approx(0.95)
    assert found["use"] == pytest.approx((0.95 + 0.4) / 2)
    said = budget.verdicts(found)
    assert "87.5% of 8 calls by 2 plans were within their budget (goal 95%)" in said[0]
    assert "95.0% of the budget was used on average (goal 90%) by the 1 plans with a row that could" in said[1]
    assert "| s, xl | 2 | 87.5% | 67.5% | 95.0% |" in budget.table(plans)
    assert budget._kept(json.loads(json.dumps([asdict(plan) for plan in plans]))) == plans
