"""The text report: its rules, what it takes and leaves out, and all of it in miniature on narrow random networks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, ControlNetModel, PNDMScheduler, StableDiffusionPipeline
from PIL import Image

from tests.benchmarks.report.engine import Studio
from tests.benchmarks.report.measures import Floats
from tests.benchmarks.text import caches, compose, few, fractions, guidance, outlines, rules, samplers, stylised, timing
from tests.benchmarks.text.__main__ import PARTS, build, possible
from tests.benchmarks.text.bench import BASE, INK, INKED, LARGE, SMALL, Bench, Drawn, by_share
from tests.benchmarks.text.scale import Scale
from tests.benchmarks.text.sheet import FAMILIAR, HELD_OUT
from tests.benchmarks.text.weights import Weights, not_installed
from tests.garments import fashion_mnist_of_blocks
from tstitch_cli.errors import UsageError
from tstitch_cli.jobs import prompts
from tstitch_cli.quality import captions, references
from tstitch_cli.quality.attributes import HEADS
from tstitch_cli.quality.captions import vocabulary
from tstitch_cli.quality.features import Features
from tstitch_cli.quality.judging import Judge, told_by_caption
from tstitch_cli.quality.statistics import SUBSETS, Described
from tstitch_cli.schema import Measured, Setting
from tstitch_cli.training import measured_by
from tstitch_cli.training.captioned import SEEN, UNSEEN, Captioned
from tstitch_cli.training.latent_consistency import student_of
from tstitch_cli.training.outline import EMBEDDING
from tstitch_cli.training.text_to_image import NOISE, UNetShape, text_encoder
from tstitch_cli.training.vocabulary import write_tokenizer
from tstitch_cli.zoo.registry import Zoo

TINY = Scale(steps=8, pictures=20, fewer=20, few=20, rounds=1, real=20, at_once=20)
SHAPES = {
    SMALL: UNetShape(layers=1, widths=(16, 16), outer_attention=False),
    BASE: UNetShape(layers=1, widths=(16, 16, 16), outer_attention=False),
    LARGE: UNetShape(layers=1, widths=(16, 16, 16)),
}
WEIGHTS = {SMALL: "a", f"{SMALL}-lcm": "b"}
FACTS: dict[str, Any] = {
    "command": "python -m tests.benchmarks.text",
    "machine": {"fingerprint": {"device": "a toy", "threads": 1, "torch": "2", "diffusers": "0", "weights": WEIGHTS}},
    "setting": "float32 on cpu",
    "scale": {"pictures": 20},
}


@dataclass(frozen=True)
class Sixteenths:
    """The mean colours of each sixteenth of a picture, and answers that come from them."""

    name: str = "sixteenths"
    digest: str = "0" * 16
    side: int = 64
    classes: int = 0
    judge: Judge = field(
        default_factory=lambda: Judge(
            {name: (name,) for name in fractions.SHOWN[:-1]} | {"alignment": fractions.SHOWN[:-1], "style": ("style",)},
            told_by_caption,
        )
    )

    def __call__(self, pictures: torch.Tensor) -> Features:
        means = torch.nn.functional.avg_pool2d(pictures.double(), 16).flatten(1)
        answers = {name: means[:, i].long() % count for i, (name, count) in enumerate(HEADS.items())}
        return Features(means, None, answers)


@dataclass(frozen=True)
class Brightness:
    """In place of CLIP."""

    digest: str = "1" * 16

    def __call__(self, pictures: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        return pictures.float().mean((1, 2, 3)) / 2.55


def hits(share: float, count: int = 400, seed: int = 0) -> torch.Tensor:
    """(count,) of which `share` are 1, in the same order for each seed."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    found = torch.zeros(count)
    found[order[: round(share * count)]] = 1.0
    return found


def shown(**shares: float) -> Drawn:
    """Pictures of which so many show what each metric looks at."""
    columns = torch.stack([hits(share) for share in shares.values()], 1)
    none = torch.zeros(len(columns), 0)
    return Drawn(Described(none, none, none, columns), tuple(shares))


def constant(value: float, spread: float = 0.0) -> Floats:
    """A distance (1 + G,) with about that half width."""
    return np.array([value, *(value + spread * (-1) ** g / 10 for g in range(SUBSETS))])


def test_a_difference_holds_where_its_interval_leaves_no_doubt() -> None:
    sure, lost, unsure = Measured(0.01, -0.02, 0.04), Measured(-0.1, -0.12, -0.06), Measured(-0.04, -0.08, 0.0)
    assert [rules.no_worse(each) for each in (sure, lost, unsure)] == [True, False, None]
    assert [rules.above(each) for each in (Measured(0.1, 0.05, 0.2), lost, sure)] == [True, False, None]
    ratios = Measured(0.9, 0.8, 0.95), Measured(1.2, 1.1, 1.3), Measured(1.0, 0.9, 1.1)
    assert [rules.below(each) for each in ratios] == [True, False, None]
    assert [rules.as_near(each) for each in ratios] == [True, False, None]
    assert [rules.all_of(each) for each in ([True, True], [True, None], [None, False], [])] == [True, None, False, True]


def test_pictures_of_the_same_noise_are_compared_one_by_one() -> None:
    one, other = hits(0.6), hits(0.55)
    together, apart = rules.gain(one, other), rules.gain_apart(one, other)
    assert together.value == pytest.approx(apart.value) == pytest.approx(0.05)
    assert together.high - together.low < 0.5 * (apart.high - apart.low)
    assert together.low > 0.0 > apart.low


def test_what_is_kept_up_is_kept_up_in_every_row_up_to_the_share() -> None:
    rows = {0.0: hits(0.8), 0.2: hits(0.8), 0.3: hits(0.79), 0.5: hits(0.4)}
    assert rules.kept_up("it", rows).agrees is True
    assert rules.kept_up("it", rows, up_to=0.5).agrees is False
    assert rules.kept_up("it", rows | {0.3: hits(0.75)}).agrees is None
    assert rules.kept_up("it", {0.0: hits(0.8), 0.5: hits(0.4)}).agrees is None
    # Where nothing is right nothing can be lost, and of few pictures without a difference not much is known.
    assert rules.kept_up("it", {0.0: hits(0.0), 0.3: hits(0.0)}).agrees is None
    assert rules.kept_up("it", {0.0: hits(0.8, 20), 0.3: hits(0.8, 20)}).agrees is None


def test_something_must_be_lost_by_the_small_model_alone() -> None:
    assert fractions.sizes("it", {0.0: constant(1.0), 1.0: constant(2.0)}).agrees is True
    assert fractions.sizes("it", {0.0: constant(1.0), 1.0: constant(1.0)}).agrees is False
    near = {0.0: constant(1.0), 0.2: constant(0.9), 0.3: constant(1.2), 1.0: constant(2.0)}
    assert fractions.best_share("it", near).agrees is True
    assert fractions.best_share("it", near | {0.2: constant(0.95, 2.0)}).agrees is None
    assert fractions.best_share("it", near | {0.2: constant(1.1)}).agrees is False


def test_a_clip_score_is_kept_up_as_a_share_of_itself() -> None:
    def scored(least: float) -> Drawn:
        none, clip = torch.zeros(40, 0), least + torch.linspace(0.0, 1.0, 40)[:, None]
        return Drawn(Described(none, none, clip, none), ())

    rows = {0.0: scored(25.0), 0.2: scored(26.0), 0.3: scored(24.8), 1.0: scored(15.0)}
    assert fractions.scores("it", rows).agrees is True
    assert fractions.scores("it", rows | {0.3: scored(24.0)}).agrees is False


def test_alignment_improves_and_style_stays_by_the_papers_share() -> None:
    rows = {
        0.0: shown(alignment=0.3, style=1.0),
        0.2: shown(alignment=0.4, style=1.0),
        0.4: shown(alignment=0.5, style=1.0),
        0.6: shown(alignment=0.7, style=0.5),
        1.0: shown(alignment=0.8, style=0.0),
    }
    assert stylised.improves(SMALL, rows).agrees is True
    assert stylised.improves(SMALL, rows | {0.4: shown(alignment=0.3, style=1.0)}).agrees is None
    assert stylised.improves(SMALL, rows | {0.4: shown(alignment=0.2, style=1.0)}).agrees is False
    told = stylised.stays(SMALL, rows)
    assert told.agrees is True
    assert "surely stays up to 40% of the steps" in told.words
    gone = {share: shown(alignment=0.3, style=0.2 if share else 1.0) for share in rows}
    assert "surely stays at no share that was drawn" in stylised.stays(SMALL, gone).words
    assert stylised.stays(SMALL, rows | {0.4: shown(alignment=0.5, style=0.7)}).agrees is False
    without = {share: shown(alignment=0.3, style=0.0) for share in rows}
    assert stylised.stays(SMALL, without).agrees is None


def test_times_are_compared_round_by_round() -> None:
    slow, fast = (2.0, 4.0, 3.0, 2.5), (1.0, 2.0, 1.5, 1.25)
    assert few.faster("2 steps", {0.0: slow, 0.5: fast, 1.0: fast}).agrees is True
    assert few.faster("2 steps", {0.0: fast, 0.5: slow, 1.0: fast}).agrees is False
    seconds = {(name, share): slow for name in ("plain", "ToMe") for share in (0.0, 0.5, 1.0)}
    assert caches.pays("ToMe", seconds).agrees is False
    assert caches.pays("ToMe", seconds | {("ToMe", 0.0): fast}).agrees is True
    assert caches.combines("ToMe", seconds | {("ToMe", 0.5): fast}).agrees is True


def test_calls_are_timed_interleaved_after_a_warm_one() -> None:
    made: list[str] = []

    def call(name: str) -> float:
        made.append(name)
        return float(len(made))

    found = timing.timed({name: lambda name=name: call(name) for name in "ab"}, 3)  # type: ignore[misc]
    assert made[:2] == ["a", "b"]
    assert all(set(made[i : i + 2]) == {"a", "b"} for i in (2, 4, 6))
    assert {name: len(seconds) for name, seconds in found.items()} == {"a": 3, "b": 3}
    assert min(min(seconds) for seconds in found.values()) == 3.0


def test_prompts_compose_where_held_out_ones_align_as_well() -> None:
    good, bad = shown(alignment=0.8, colour=0.9), shown(alignment=0.5, colour=0.5)
    assert compose.composes(LARGE, good, bad).agrees is False
    assert compose.composes(LARGE, bad, good).agrees is True
    assert compose.composes(LARGE, shown(alignment=0.0, colour=0.0), good).agrees is None


def test_a_sampler_stands_a_guidance_where_as_many_pictures_align() -> None:
    good, bad = shown(alignment=0.9), shown(alignment=0.5)
    assert guidance.stands("pndm", good, bad).agrees is False
    assert guidance.stands("pndm", bad, good).agrees is True


def test_steps_are_enough_where_as_many_pictures_align() -> None:
    good, bad = shown(alignment=0.9), shown(alignment=0.2)
    assert samplers.enough("10 steps of pndm", bad, good).agrees is False
    assert samplers.enough("10 steps of ddim", good, good).agrees is True
    assert [each.agrees for each in samplers.judged("10 steps of pndm", {0.0: bad, 0.3: bad}, good)] == [False]
    usual = shown(alignment=0.9)
    assert [each.agrees for each in samplers.judged("10 steps of ddim", {0.0: good, 0.3: bad}, usual)] == [True, False]
    assert [each.agrees for each in samplers.judged("50 steps of pndm", {0.0: good, 0.3: good}, good)] == [True]


def test_outlines_are_followed_where_others_are_not() -> None:
    own, another = 0.9 * torch.ones(40), 0.4 * torch.ones(40)
    assert outlines.follows(LARGE, own, another).agrees is True
    assert outlines.follows(LARGE, another, another).agrees is False
    others = dict.fromkeys((0.0, 0.3, 1.0), another)
    assert outlines.keeps_following("outlines", {0.0: own, 0.3: own, 1.0: another}, others).agrees is True
    assert outlines.keeps_following("outlines", {0.0: own, 0.3: another}, others).agrees is False
    assert outlines.keeps_following("outlines", {0.0: another, 0.3: another}, others).agrees is None


def test_shares_of_few_steps_are_whole_steps() -> None:
    assert by_share("a", "b", (0.0, 0.5, 1.0), 2) == {0.0: (("b", 2),), 0.5: (("a", 1), ("b", 1)), 1.0: (("a", 2),)}
    assert by_share("a", "b", (0.3,), 50) == {0.3: (("a", 15), ("b", 35))}


@pytest.mark.parametrize(("texts", "held_out"), [(FAMILIAR, False), (HELD_OUT, True)])
def test_prompts_of_the_sheets_are_captions(texts: tuple[str, ...], held_out: bool) -> None:
    for text in texts:
        told = captions.told(text)
        assert set(told) == {"garment", "colour", "background", "count"}, text
        assert ((told["garment"], captions.NAMES[told["colour"]]) in captions.HELD_OUT) == held_out, text


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `tstitch train` writes, of narrow networks that were not trained."""
    made = tmp_path_factory.mktemp("text") / "tiny-sd"
    torch.manual_seed(0)
    tokenizer = write_tokenizer(vocabulary(), made / "tokenizer")
    unets = {name: shape.build() for name, shape in SHAPES.items()}
    unets[INK] = SHAPES[LARGE].build()
    unets |= {f"{name}-lcm": student_of(unets[name]) for name in (SMALL, LARGE)}
    levels = ("DownEncoderBlock2D",) * 4
    StableDiffusionPipeline(
        vae=AutoencoderKL(
            down_block_types=levels,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(8,) * 4,
            latent_channels=4,
            norm_num_groups=4,
            sample_size=64,
        ),
        text_encoder=text_encoder(len(tokenizer), tokenizer.eos_token_id),
        tokenizer=tokenizer,
        unet=unets[LARGE],
        scheduler=PNDMScheduler(**NOISE, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(made)
    for name, unet in unets.items():
        unet.save_pretrained(made / name / "unet")
    net = ControlNetModel.from_unet(unets[LARGE], conditioning_embedding_out_channels=EMBEDDING)
    net.save_pretrained(made / outlines.CONTROL)
    measured_by.write(fashion_mnist_of_blocks(made.parent / "data"), made, Sixteenths(), 30)
    return made


@pytest.fixture(scope="module")
def bench(folder: Path) -> Bench:
    weights = Weights(folder, Zoo({}))
    extractor = Sixteenths()
    work = folder.parent / "work"

    def read(name: str) -> references.Reference:
        return references.read(folder / f"reference{'' if name == SEEN else f'-{name}'}.npz", extractor, work)

    read_all = {name: read(name) for name in (SEEN, UNSEEN, INKED)}
    setting = Setting(TINY.steps, "pndm", 7.5, 1, 64, "float32", "cpu")
    return Bench(
        studio=Studio(cache(weights.load), extractor, read_all[SEEN], work, TINY.at_once, Brightness()),
        scale=TINY,
        setting=setting,
        timing=replace(setting, batch_size=2),
        host=weights.entry(LARGE),
        captions={
            name: [prompt.text for prompt in prompts.read(folder / f"captions-{name}.txt")] for name in (SEEN, UNSEEN)
        },
        references=read_all,
        pictures=lambda kind, inked, count: Captioned(
            folder.parent / "data", "test", count, combinations=kind, inked=inked
        ),
        out=folder.parent / "out",
    )


def test_parts_are_left_out_with_the_command_that_trains_them(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert possible(Weights(folder, Zoo({})), list(PARTS)) == [
        name for name in PARTS if name != "caches" or not not_installed(caches.PACKAGES)
    ]
    some = tmp_path / "some trained"
    for name in (SMALL, LARGE):
        (some / name / "unet").mkdir(parents=True)
        (some / name / "unet" / "config.json").write_text("{}")
    (some / "model_index.json").write_text("{}")
    assert possible(Weights(some, Zoo({})), ["fractions", "few", "outlines"]) == ["fractions"]
    said = " ".join(capsys.readouterr().err.split())
    assert "few is left out: tiny-sd-small-lcm, tiny-sd-lcm are not here" in said
    assert f"tstitch train tiny-sd-small-lcm tiny-sd-lcm --out '{some}'" in said.replace("\n", "")
    assert "outlines is left out: tiny-sd-base, tiny-sd-outline are not here" in said
    with pytest.raises(UsageError, match="nothing can be drawn"):
        possible(Weights(tmp_path / "none", Zoo({})), ["few"])


def test_real_pictures_are_judged_as_drawn_ones_are(bench: Bench) -> None:
    real = bench.real(SEEN)
    assert len(real.described) == TINY.real
    pictures = bench.pictures(SEEN, False, TINY.real)
    answers = bench.studio.extractor(pictures.pixels(torch.arange(TINY.real))).answers["colour"]
    right = [answers[i] == pictures.scene(i).answers["colour"] for i in range(TINY.real)]
    assert real.hits("colour").tolist() == [float(each) for each in right]
    by_next = [answers[i] == pictures.scene((i + 1) % TINY.real).answers["colour"] for i in range(TINY.real)]
    assert bench.real(SEEN, another=True).hits("colour").tolist() == [float(each) for each in by_next]
    assert by_next != right


def test_outlines_are_those_of_the_captions_pictures(bench: Bench) -> None:
    asked = outlines.outlines_of(bench, 5)
    assert asked.shape == (5, 1, 64, 64)
    assert (asked.flatten(1).sum(1) > 20).all()
    for i, caption in enumerate(bench.captions[SEEN][:5]):
        assert captions.told(caption) == bench.pictures(SEEN, False, 5).scene(i).answers


def sheets(out: Path) -> Mapping[str, tuple[int, int]]:
    found = {}
    for path in out.glob("*.png"):
        with Image.open(path) as image:
            assert np.asarray(image.convert("L")).std() > 5, path
            found[path.stem] = image.size
    return found


def test_all_of_it_in_miniature_and_again_from_what_was_kept(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    # Few rows, for all of them make the same turns; a call that is timed is one like those that draw.
    spent = SimpleNamespace(total_s=1.0)
    monkeypatch.setattr(timing, "run", lambda family, batch, turns, clock: spent)
    monkeypatch.setattr(fractions, "TENTHS", (0.0, 0.3, 1.0))
    monkeypatch.setattr(stylised, "SHARES", (0.0, 0.4, 1.0))
    monkeypatch.setattr(caches, "SOME", (0.0, 0.3, 0.5, 1.0))
    monkeypatch.setattr(caches, "SAVED", {name: caches.SAVED[name] for name in list(caches.SAVED)[::3]})
    monkeypatch.setattr(outlines, "SOME", (0.0, 0.3, 1.0))
    monkeypatch.setattr(outlines, "PICTURED", (0.0, 1.0))
    monkeypatch.setattr(guidance, "BETWEEN", ())
    monkeypatch.setattr(samplers, "PARTS", (0.5, 1.0))
    parts = list(PARTS)
    if not_installed(caches.PACKAGES):
        parts.remove("caches")
    figures = build(bench, parts, FACTS)
    page = (bench.out / "README.md").read_text()
    for figure in figures:
        assert f"## {figure.heading}" in page
        assert all(f"({name})" in page for name in figure.pictures)
    made = sheets(bench.out)
    assert {"fractions", "alignment", "alignment-sheet", "stylised-sheet", "style", "few-sheet"} <= made.keys()
    assert {"outlines-sheet", "compose-sheet", "guidance-sheet", "samplers-sheet"} <= made.keys()
    wanted = ["Table 2:", "Tables 10 and 11:", "Figure 30:"]
    assert all(any(figure.heading.startswith(name) for figure in figures) for name in wanted)
    assert sum(len(figure.verdicts) for figure in figures) > 20
    assert "that the first 30 % of the steps cost nothing: in" in page
    assert page.count("CLIP score, ") >= 4

    # A part alone leaves the others as they are, and draws nothing that is known already.
    drawn = sorted(path.name for path in (bench.studio.work / "records").iterdir())
    fewer = {"fingerprint": {**FACTS["machine"]["fingerprint"], "weights": {SMALL: "a"}}}
    again = build(bench, ["compose"], FACTS | {"machine": fewer})
    assert again == figures
    assert sorted(path.name for path in (bench.studio.work / "records").iterdir()) == drawn
    report = json.loads((bench.out / "report.json").read_text())
    assert set(report["parts"]) == set(parts)
    assert report["machine"]["fingerprint"]["weights"] == WEIGHTS
