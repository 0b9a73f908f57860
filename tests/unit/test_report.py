"""The report: its arithmetic, its rules, and all of it in miniature on toys."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from tests import toys
from tests.benchmarks.common import BASE, LARGE, SMALL
from tests.benchmarks.report import paper, rivals, rows, ways
from tests.benchmarks.report.__main__ import PARTS, build
from tests.benchmarks.report.bench import Bench
from tests.benchmarks.report.engine import Studio
from tests.benchmarks.report.figure import free_start
from tests.benchmarks.report.fractions import _no_worse
from tests.benchmarks.report.measures import (
    Floats,
    compared,
    correlation_lead,
    distance,
    rank_correlation,
    replicas,
    resampled,
    sums,
)
from tests.benchmarks.report.page import anchor
from tests.benchmarks.report.stopwatch import Stopwatch
from tests.benchmarks.report.studies import FULL, QUICK, Scale, decreasing, orders, pair, table
from tstitch_cli.allocation import Allocation, expand
from tstitch_cli.denoisers import Family
from tstitch_cli.errors import UsageError
from tstitch_cli.planning.objectives import loss_of
from tstitch_cli.quality import references
from tstitch_cli.quality.features import Features
from tstitch_cli.quality.judging import Judge, told_by_class
from tstitch_cli.quality.statistics import SUBSETS, Described
from tstitch_cli.schema import Agreement, Closeness, Measured, Setting

SETTING = Setting(10, "ddim", 1.25, 2, 16, "float32", "cpu")
CLOCK = toys.FakeClock()
COSTS = {SMALL: 0.001, f"{SMALL}-early": 0.001, BASE: 0.002, LARGE: 0.004}
TINY = Scale(
    rows_pictures=20,
    pictures=20,
    rows_steps=10,
    base_steps=10,
    steps=(10, 20),
    sampler_steps=10,
    fewer=(6,),
    guidances=(2.0,),
    early=0.1,
    early_pictures=200,
    profile_s=0.1,
    analysed=2,
    at_once=20,
)

FACTS: dict[str, Any] = {
    "command": "python -m tests.benchmarks.report",
    "machine": {
        "fingerprint": {"device": "a toy", "threads": 1, "torch": "2", "diffusers": "0", "weights": {LARGE: "a"}}
    },
    "setting": "float32 on cpu",
    "scale": {"pictures": 20},
}


@dataclass(frozen=True)
class Quarters:
    """The mean of each quarter of a picture, and a class that comes from them."""

    name: str = "quarters"
    digest: str = "0" * 16
    side: int = 16
    classes: int = 10
    judge: ClassVar[Judge] = Judge({"accuracy": ("class",)}, told_by_class)

    def __call__(self, pictures: torch.Tensor) -> Features:
        quarters = torch.nn.functional.avg_pool2d(pictures[:, :1].float(), pictures.shape[-1] // 2).flatten(1)
        logits = quarters @ torch.linspace(-1, 1, 40).view(4, 10)
        return Features(quarters, logits.softmax(1), {"class": logits.argmax(1)})


def described(features: torch.Tensor) -> Described:
    none = torch.zeros(len(features), 0)
    return Described(features.float(), none, none, none)


def normal(count: int, shift: float, seed: int, width: int = 6) -> torch.Tensor:
    return shift + torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def toy(names: tuple[str, ...], setting: Setting) -> Family:
    family = toys.family(CLOCK, {name: COSTS[name] for name in names}, scheduler=setting.scheduler, steps=setting.steps)
    return replace(family, setting=setting)


@pytest.fixture(autouse=True)
def calls_take_what_they_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.benchmarks.report.bench.clock_for", lambda device: CLOCK)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("report")
    points = 128 + 20 * normal(300, 0.0, 5, width=4)
    studio = Studio(toy, Quarters(), references.of_features(points), folder / "work", TINY.at_once)
    labels = torch.arange(300) % 10
    return Bench(studio, TINY, SETTING, folder / "out", lambda: (described(points), labels), lambda: f"{SMALL}-early")


def constant(value: float, spread: float = 0.0) -> Floats:
    """A distance (1 + G,) with about that half width."""
    return np.array([value, *(value + spread * (-1) ** g / 10 for g in range(SUBSETS))])


def test_replicas_are_distances_of_all_and_without_each_subset() -> None:
    real, drawn = normal(400, 0.0, 1), normal(200, 0.3, 2)
    reference = references.of_features(real).gaussian
    found = replicas(reference, sums(described(drawn)))
    assert len(found) == 1 + SUBSETS
    assert found[0] == pytest.approx(_plain_distance(real, drawn), rel=1e-5)
    assert found[1] == pytest.approx(_plain_distance(real, drawn[20:]), rel=1e-5)
    assert distance(found).low < found[0] < distance(found).high


def _plain_distance(real: torch.Tensor, drawn: torch.Tensor) -> float:
    from scipy import linalg

    a, b = np.cov(real.double().numpy().T), np.cov(drawn.double().numpy().T)
    offset = (real.double().mean(0) - drawn.double().mean(0)).square().sum().item()
    return float(offset + np.trace(a + b - 2 * linalg.sqrtm(a @ b).real))


def test_what_two_rows_share_drops_out_of_their_ratio() -> None:
    reference = references.of_features(normal(2000, 0.0, 1)).gaussian
    drawn = normal(400, 0.4, 2)
    near = drawn + 0.01 * normal(400, 0.0, 3)
    a, b = (replicas(reference, sums(described(each))) for each in (drawn, near))
    ratio, alone = compared(np.divide, b, a), distance(a)
    assert (ratio.high - ratio.low) < 0.2 * (alone.high - alone.low) / alone.value


def test_rank_correlation_of_rows_in_their_order_and_in_none() -> None:
    reference = references.of_features(normal(1000, 0.0, 1)).gaussian
    parts = [sums(described(normal(200, 0.2 * k, 2))) for k in range(8)]
    distances = resampled(reference, parts)
    found = rank_correlation(list(range(8)), distances)
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)
    assert rank_correlation([3, 1, 7, 0, 5, 2, 6, 4], distances).value < 0.5


def test_what_costs_nothing_by_the_rule_and_by_the_papers_own_numbers() -> None:
    published = {f: constant(v) for f, v in zip(paper.FRACTIONS, paper.S_THEN_XL, strict=True)}
    found = free_start("DiT", published)
    assert found.agrees is True
    assert "up to 40% of the steps." in found.words
    dear = {0.0: constant(1.0), 0.2: constant(1.2), 0.4: constant(1.5)}
    assert free_start("dear", dear).agrees is False
    assert free_start("unsure", {**dear, 0.2: constant(1.0), 0.4: constant(1.1, 3.0)}).agrees is None


def test_no_worse_takes_the_intervals_into_account() -> None:
    large = Measured(0.8, 0.78, 0.82)
    assert _no_worse(large, [Measured(0.81, 0.8, 0.82)]) is True
    assert _no_worse(large, [Measured(0.79, 0.77, 0.81)]) is None
    assert _no_worse(large, [Measured(0.7, 0.69, 0.71)]) is False


def test_fewer_steps_are_compared_in_equal_time() -> None:
    step_ms = {SMALL: 0.0, BASE: 1.0, LARGE: 2.0}
    alone = {5: constant(4.0), 10: constant(2.0), 15: constant(1.0)}
    found = {0.0: constant(0.5), 0.5: constant(1.0), 1.0: constant(9.0)}
    better = rivals._against(20, found, alone, step_ms)
    assert better.agrees is True
    assert "50% by fashion-s has 0.50 times the distance of fashion-xl alone in 10.0 steps" in better.words
    assert rivals._against(20, {**found, 0.5: constant(3.0)}, alone, step_ms).agrees is False
    assert rivals._against(20, found, {}, step_ms).agrees is None


def test_rows_of_the_studies() -> None:
    assert len(table(SETTING, 200).allocations) == 66
    assert pair("p", SETTING, 200).allocations[2] == ((SMALL, 4), (LARGE, 6))
    for order in orders(20).values():
        assert Counter(expand(order)) == {SMALL: 10, LARGE: 10}
    drawn = decreasing(20)
    assert drawn[:10].count(SMALL) > drawn[10:].count(SMALL) > 0
    for scale in (FULL, QUICK):
        assert scale.pictures % scale.at_once == scale.rows_pictures % scale.at_once == 0
        assert {scale.base_steps, scale.sampler_steps} <= set(scale.steps)


def test_the_pareto_front() -> None:
    a, b, c, d = (((name, 1),) for name in "abcd")
    assert rows.pareto({a: 1, b: 2, c: 3, d: 4}, {a: 5, b: 6, c: 2, d: 2}) == [a, c]


def test_a_stopwatch_counts_runs_that_were_cut(tmp_path: Path) -> None:
    clock = toys.FakeClock()
    for _ in range(2):
        watch = Stopwatch(tmp_path / "seconds.json", clock.mark)
        clock.advance(100.0)
        watch.start("rows")
        clock.advance(2.0)
        watch.lap()
        clock.advance(1.0)
    assert watch.seconds() == {"rows": 4.0}
    watch.start("rivals")
    clock.advance(5.0)
    assert watch.lap() == 5.0
    assert watch.seconds() == {"rows": 4.0, "rivals": 5.0}


def test_an_anchor_is_where_it_is_looked_for() -> None:
    assert anchor("Figures 1 and 5: pairs") == "figures-1-and-5-pairs"


def test_all_of_it_on_toys_and_again_from_what_was_kept(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.benchmarks.report.measures.RESAMPLES", 5)
    figures = build(bench, list(PARTS), FACTS)
    page = (bench.out / "README.md").read_text()
    for figure in figures:
        assert f"## {figure.heading}" in page
        assert f"(#{anchor(figure.heading)})" in page
    named = [word for word in page.split("(") if ".png)" in word]
    for word in named:
        with Image.open(bench.out / word.split(")")[0]) as image:
            assert np.asarray(image.convert("L")).std() > 5
    wanted = ["1 and 5", "6", "8", "9", "12", "15", "18", "3", "11"]
    assert all(any(f.heading.startswith((f"Figure {n}:", f"Figures {n}:")) for f in figures) for n in wanted)
    assert {"Table 7: orders", "Table 9: precision and recall"} <= {f.heading for f in figures}
    assert sum(len(f.verdicts) for f in figures) > 20

    again = build(bench, ["rivals"], FACTS)
    assert [figure for figure in again if figure.name == "prediction"] == [figures[0]]
    assert again == figures
    report = json.loads((bench.out / "report.json").read_text())
    assert set(report["parts"]) == set(PARTS)

    # Parts of another run are not passed off as this one's.
    kept = (bench.out / "report.json").read_bytes()
    other = {"fingerprint": {**FACTS["machine"]["fingerprint"], "threads": 2}}
    changes: list[tuple[str, Any]] = [("scale", {"pictures": 40}), ("setting", "bfloat16 on cpu")]
    for what, changed in changes:
        with pytest.raises(UsageError, match=f"the {what} of its parts rows, fractions"):
            build(bench, ["precision"], FACTS | {what: changed})
    with pytest.raises(UsageError, match="the machine of its parts"):
        build(bench, ["precision"], FACTS | {"machine": other})
    trained = {"fingerprint": {**FACTS["machine"]["fingerprint"], "weights": {LARGE: "b"}}}
    with pytest.raises(UsageError, match="the weights of its parts"):
        build(bench, ["precision"], FACTS | {"machine": trained})
    assert (bench.out / "report.json").read_bytes() == kept


def test_a_profile_of_another_setting_is_not_taken(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    names = (SMALL, LARGE)
    first = bench.profile(names, bench.at(steps=20))
    assert bench.profile(names, bench.at(steps=20)).created == first.created
    assert bench.profile(names, bench.at(steps=20, guidance=3.0)).setting.guidance == 3.0
    studio = Studio(other_weights, bench.studio.extractor, bench.studio.reference, bench.studio.work, TINY.at_once)
    again = replace(bench, studio=studio).profile(names, bench.at(steps=20, guidance=3.0))
    assert again.fingerprint is not None
    assert again.fingerprint.weights[LARGE] == "others"


def other_weights(names: tuple[str, ...], setting: Setting) -> Family:
    family = toy(names, setting)
    return replace(family, weights=family.weights | {LARGE: "others"})


def test_ways_of_adding_up_by_hand() -> None:
    agreement = Agreement("l", (2.0, 1.0), {"s": Closeness((1.0, 1.0), (0.0, 0.0), rms=((3.0, 4.0), (1.0, 0.0)))})
    found = ways.added(agreement, [(("s", 2),), (("s", 1), ("l", 1)), (("l", 2),)])
    assert found[ways.KEPT].tolist() == [(10 + 2) / 2, (6 + 2) / 2, 0.0]
    assert [loss_of(agreement, (("s", 2),)).mean(), loss_of(agreement, (("l", 2),)).mean()] == [6.0, 0.0]
    squares = found["root of summed squares of weighted differences"]
    assert squares.tolist() == pytest.approx([((36 + 16 + 4) / 2) ** 0.5, ((36 + 4) / 2) ** 0.5, 0.0])
    assert found["sum of differences without weights"].tolist() == [4.0, 2.0, 0.0]


def test_the_kept_way_is_best_only_where_intervals_say_so() -> None:
    def verdict(value: float, low: float, high: float) -> bool | None:
        ranks = {ways.KEPT: Measured(0.9, 0.8, 1.0), "other": Measured(0.9 - value, 0.7, 1.0)}
        return ways.best_kept(ranks, {"other": Measured(value, low, high)}, list(ranks)).agrees

    assert (verdict(0.1, 0.05, 0.2), verdict(-0.1, -0.2, -0.05), verdict(0.01, -0.1, 0.1)) == (True, False, None)


def test_the_measured_distance_of_final_latents_is_kept(bench: Bench) -> None:
    study = pair("deviation", SETTING, 20)
    first = ways.deviation(bench, study, (1,) * 10)
    assert first.shape == (6, ways.PICTURES)
    assert first[0].max() == 0.0
    assert (first[1:] > 0).all()
    assert (ways.deviation(replace(bench, out=Path()), study, (1,) * 10) == first).all()


def test_a_lead_of_what_ranks_alike_is_none() -> None:
    reference = references.of_features(normal(1000, 0.0, 1)).gaussian
    distances = resampled(reference, [sums(described(normal(200, 0.2 * k, 2))) for k in range(8)])
    rising, fallen = [float(k) for k in range(8)], [float(-k) for k in range(8)]
    assert correlation_lead(rising, [2 * each for each in rising], distances) == Measured(0.0, 0.0, 0.0)
    assert correlation_lead(rising, fallen, distances).low == pytest.approx(2.0)


def test_goals_and_closeness_are_decided_by_intervals() -> None:
    assert rows._goal("it", Measured(0.96, 0.92, 0.99)).agrees is True
    assert rows._goal("it", Measured(0.88, 0.85, 0.89)).agrees is False
    unsure = rows._goal("it", Measured(0.92, 0.85, 0.95))
    assert unsure.agrees is None
    assert "the value is above the goal 0.9" in unsure.words
    near, far, unclear = Measured(1.0, 0.99, 1.02), Measured(1.2, 1.1, 1.3), Measured(1.02, 0.9, 1.1)
    assert rows.close("so", [near, near]).agrees is True
    assert rows.close("so", [near, far, unclear]).agrees is False
    assert rows.close("so", [near, unclear]).agrees is None


def test_sizes_are_told_apart_by_intervals() -> None:
    assert rows.sizes([constant(4.0), constant(2.0), constant(1.0)]).agrees is True
    assert rows.sizes([constant(4.0), constant(1.0), constant(1.0)]).agrees is False
    assert rows.sizes([constant(4.0), constant(1.1, 3.0), constant(1.0)]).agrees is None


def test_what_is_picked_on_one_half_is_judged_on_the_other() -> None:
    large: Allocation = ((LARGE, 10),)
    lucky, good = ((SMALL, 10),), ((SMALL, 5), (LARGE, 5))
    ms = {lucky: 1.0, good: 5.0, large: 10.0}
    halves = {large: (2.0, constant(2.0)), lucky: (1.0, constant(3.0)), good: (1.5, constant(1.5))}
    assert rows.faster(ms, halves, large).agrees is False
    assert rows.faster(ms, halves | {lucky: (3.0, constant(1.0))}, large).agrees is True
    assert rows.faster(ms, halves | {lucky: (1.0, constant(2.1, 9.0))}, large).agrees is None
    three: Allocation = ((SMALL, 4), (BASE, 3), (LARGE, 3))
    more = {**ms, three: 6.0}
    assert rows.three_models(more, halves | {three: (0.9, constant(1.0))}).agrees is True
    assert rows.three_models(more, halves | {three: (0.9, constant(2.0))}).agrees is False
    assert rows.three_models(more, halves | {three: (0.9, constant(1.4, 9.0))}).agrees is None
    assert rows.three_models(more, halves | {three: (9.0, constant(1.0))}).agrees is None
