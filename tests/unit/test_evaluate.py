"""What evaluate measures: the same pictures as sample's, each prefix computed once, cut work going on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from tests import toys
from tstitch_cli import evaluate as stage
from tstitch_cli.allocation import Allocation, expand
from tstitch_cli.denoisers import Family
from tstitch_cli.errors import StaleError, UsageError
from tstitch_cli.evaluate import Evaluated, evaluate
from tstitch_cli.quality import references
from tstitch_cli.quality.drawing import pixels
from tstitch_cli.quality.features import Features
from tstitch_cli.quality.judging import Judge, Told, told_by_class
from tstitch_cli.quality.prefixes import nodes
from tstitch_cli.quality.references import Reference
from tstitch_cli.stitching import StitchedDenoiser
from tstitch_cli.trajectory import Batch, Trajectory, run
from tstitch_cli.zoo.entry import Entry

COSTS = {"s": 0.01, "b": 0.02, "l": 0.05}
STEPS = 6
ROWS: dict[str, Allocation] = {
    "0": (("s", 6),),
    "1": (("s", 4), ("l", 2)),
    "2": (("s", 4), ("b", 1), ("l", 1)),
    "3": (("l", 6),),
    "4": (("s", 2), ("l", 4)),
    "5": (("l", 1), ("s", 5)),
}
PROMPTS = [str(number) for number in range(10)]


class Columns:
    """Features that anybody can check: the mean of every column of the grey picture."""

    name, digest, classes, side = "columns", "c0", 10, 16
    judge = Judge({"accuracy": ("class",)}, told_by_class)

    def __call__(self, pictures: torch.Tensor) -> Features:
        columns = pictures[:, 0].double().mean(1) / 255.0
        classes = columns[:, :10]
        return Features(columns, (classes * 3.0).softmax(1), {"class": classes.argmax(1)})


@pytest.fixture
def family() -> Family:
    return toys.family(toys.FakeClock(), COSTS, steps=STEPS)


@pytest.fixture
def reference() -> Reference:
    return references.of_features(torch.rand(100, 16, generator=torch.Generator().manual_seed(1)))


class Seen:
    """Keeps what was drawn in memory."""

    def __init__(self) -> None:
        self.pictures: dict[str, list[torch.Tensor]] = {}

    def has(self, name: str, batch: Batch) -> bool:
        return False

    def keep(self, name: str, batch: Batch, trajectory: Trajectory) -> None:
        self.pictures.setdefault(name, []).append(pixels(trajectory.images))


def measure(
    family: Family, reference: Reference, work: Path, rows: dict[str, Allocation] = ROWS, **given: object
) -> Evaluated:
    settings: dict[str, object] = {"seed": 7, "count": 20, "batch_size": 8} | given
    extractor = settings.pop("extractor", Columns())
    return evaluate(family, rows, PROMPTS, extractor=extractor, reference=reference, work=work, **settings)  # type: ignore[arg-type]


def counted(family: Family) -> list[str]:
    """The denoisers that are really called from now on."""
    calls: list[str] = []
    for name, denoiser in family.denoisers.items():
        denoiser.register_forward_pre_hook(lambda module, args, name=name: calls.append(name))
    return calls


@pytest.mark.parametrize("scheduler", ["ddim", "ddpm", "euler-a", "dpm++"])
def test_pictures_are_those_of_sample_bit_for_bit(reference: Reference, tmp_path: Path, scheduler: str) -> None:
    family = toys.family(toys.FakeClock(), COSTS, scheduler=scheduler, steps=STEPS)
    seen, clock = Seen(), toys.FakeClock()
    measure(family, reference, tmp_path, keeper=seen)
    for name, allocation in ROWS.items():
        assert [len(each) for each in seen.pictures[name]] == [8, 8, 4]
        batch = Batch(tuple(PROMPTS[i] for i in range(8)), tuple(range(8)), 7)
        assert torch.equal(seen.pictures[name][0], pixels(run(family, batch, expand(allocation), clock).images))


def test_every_prefix_is_computed_once(family: Family, reference: Reference, tmp_path: Path) -> None:
    calls = counted(family)
    found = measure(family, reference, tmp_path)
    tree = nodes(expand(allocation) for allocation in ROWS.values())
    assert len(calls) == found.made == 3 * len(tree)
    assert found.saved == 3 * (len(ROWS) * STEPS - len(tree)) > 0
    assert found.drawn == len(ROWS) * 20


def test_nothing_is_shared_where_caches_remember(family: Family, reference: Reference, tmp_path: Path) -> None:
    from dataclasses import replace

    accelerated = replace(family, setting=replace(family.setting, accelerate=("tome:ratio=0.5",)))
    assert measure(accelerated, reference, tmp_path).saved == 0


def test_a_denoiser_that_answers_from_memory_is_not_entered(
    family: Family, reference: Reference, tmp_path: Path
) -> None:
    entered: list[str] = []
    family.stitched.entering.append(entered.append)
    measure(family, reference, tmp_path, rows={"a": (("s", 4), ("l", 2)), "b": (("s", 5), ("l", 1))}, batch_size=20)
    # The first four steps of the second are remembered; its fifth is the first for which s is needed again.
    assert entered == ["s", "l", "s", "l"]


def test_the_same_work_is_not_done_again(family: Family, reference: Reference, tmp_path: Path) -> None:
    first = measure(family, reference, tmp_path)
    calls = counted(family)
    again = measure(family, reference, tmp_path)
    assert again.measured == first.measured
    assert (calls, again.drawn) == ([], 0)
    more = measure(family, reference, tmp_path, rows=ROWS | {"6": (("b", 6),)})
    assert more.drawn == 20
    assert {name: more.measured[name] for name in ROWS} == first.measured


def test_killed_at_any_batch_it_gives_the_same_numbers(
    family: Family, reference: Reference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = measure(family, reference, tmp_path / "whole")
    real, left = StitchedDenoiser.forward, 0

    def killed(self: StitchedDenoiser, *args: object, **kwargs: object) -> object:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return real(self, *args, **kwargs)

    runs = 0
    with monkeypatch.context() as patch:
        patch.setattr(StitchedDenoiser, "forward", killed)
        for _ in range(20):
            left, runs = 40, runs + 1
            try:
                found = measure(family, reference, tmp_path / "cut")
                break
            except KeyboardInterrupt:
                assert not list((tmp_path / "cut").glob(".*"))
    assert runs > 2
    assert found.measured == whole.measured


def test_a_broken_record_is_made_again(family: Family, reference: Reference, tmp_path: Path) -> None:
    first = measure(family, reference, tmp_path)
    records = sorted(tmp_path.glob("*.npz"))
    records[0].write_bytes(records[0].read_bytes()[:100])
    records[1].write_bytes(b"")
    again = measure(family, reference, tmp_path)
    assert again.measured == first.measured
    assert 0 < again.drawn <= 16


@pytest.mark.parametrize("change", ["seed", "first", "weights", "extractor", "steps"])
def test_what_decides_the_pictures_decides_the_records(
    family: Family, reference: Reference, tmp_path: Path, change: str
) -> None:
    from dataclasses import replace

    rows: dict[str, Allocation] = {"1": ROWS["1"]}
    measure(family, reference, tmp_path, rows=rows)
    given: dict[str, object] = {}
    if change in ("seed", "first"):
        given[change] = 30
    elif change == "weights":
        family = replace(family, weights=family.weights | {"s": "f" * 16})
    elif change == "extractor":
        given["extractor"] = other = Columns()
        other.digest = "c1"
    else:
        family = replace(family, setting=replace(family.setting, guidance=3.0))
    assert measure(family, reference, tmp_path, rows=rows, **given).drawn == 20


def test_metrics_are_what_they_should_be(family: Family, reference: Reference, tmp_path: Path) -> None:
    seen = Seen()
    found = measure(family, reference, tmp_path, rows={"1": ROWS["1"]}, keeper=seen)
    made = Columns()(torch.cat(seen.pictures["1"]))
    assert made.probabilities is not None
    p = made.probabilities.numpy()
    score = np.exp((p * np.log(p)).sum(1).mean() - (p.mean(0) * np.log(p.mean(0))).sum())
    measured = found.measured["1"]
    assert list(measured) == ["fid", "is", "precision", "recall", "accuracy"]
    assert measured["is"].value == pytest.approx(score, rel=1e-6)
    asked = np.arange(20) % 10
    assert measured["accuracy"].value == pytest.approx((p.argmax(1) == asked).mean())
    assert all(each.low <= each.value <= each.high for each in measured.values())
    assert found.evaluation.pictures == 20
    assert found.evaluation.features == "columns"


def below_nine(entry: Entry, prompts: Sequence[str]) -> list[Told]:
    """Prompts below nine tell a garment, those below five whether its number is odd, too."""
    numbers = [int(prompt) for prompt in prompts]
    return [{name: n % m for name, m, end in (("garment", 10, 9), ("count", 2, 5)) if n < end} for n in numbers]


class Garments(Columns):
    """Tells garments, and whether their numbers are odd."""

    digest = "c1"
    judge = Judge({"garment": ("garment",), "count": ("count",), "alignment": ("garment", "count")}, below_nine)

    def __call__(self, pictures: torch.Tensor) -> Features:
        made = super().__call__(pictures)
        seen = made.answers["class"]
        return Features(made.features, made.probabilities, {"garment": seen, "count": seen % 2})


def test_what_some_prompts_do_not_ask_for_is_left_out(family: Family, reference: Reference, tmp_path: Path) -> None:
    seen, rows = Seen(), {"1": ROWS["1"]}
    found = measure(family, reference, tmp_path, rows=rows, extractor=Garments(), count=50, keeper=seen)
    shown = Garments()(torch.cat(seen.pictures["1"])).answers["garment"].numpy()
    asked = np.arange(50) % 10
    measured = found.measured["1"]
    assert list(measured) == ["fid", "is", "precision", "recall", "alignment", "garment", "count"]
    hit = (shown == asked)[asked != 9].mean()
    assert 0 < hit < 1
    # Who has the right number has the right parity too.
    assert measured["alignment"] == measured["garment"]
    assert measured["garment"].value == pytest.approx(hit)
    assert measured["count"].value == pytest.approx((shown % 2 == asked % 2)[asked < 5].mean())
    with pytest.raises(UsageError, match="count cannot be measured"):
        measure(family, reference, tmp_path, rows=rows, extractor=Garments(), count=30, metrics=["count"])


def test_what_cannot_be_measured_is_refused(family: Family, reference: Reference, tmp_path: Path) -> None:
    from dataclasses import replace

    with pytest.raises(UsageError, match="too few"):
        measure(family, reference, tmp_path, count=19)
    with pytest.raises(UsageError, match="clip cannot be measured"):
        measure(family, reference, tmp_path, metrics=["clip"])
    with pytest.raises(StaleError, match="random weights"):
        measure(replace(family, weights=dict.fromkeys(COSTS, "random")), reference, tmp_path)


def test_batches_follow_the_size_of_pictures(family: Family) -> None:
    from dataclasses import replace

    sizes: Sequence[tuple[int, int]] = [(16, 100), (256, 32), (512, 8), (2048, 2)]
    for side, expected in sizes:
        assert stage.batch_size_for(replace(family.setting, size=side)) == expected
