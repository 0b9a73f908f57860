"""`tstitch evaluate` of a text family that ships with captions, statistics, a classifier and a CLIP of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

from tests import builders, toys
from tests.garments import fashion_mnist_of_blocks
from tstitch_cli import documents
from tstitch_cli.app import app
from tstitch_cli.commands.evaluate_inputs import captions_of, statistics_of, tell_left_out
from tstitch_cli.components import digest_of
from tstitch_cli.jobs import prompts
from tstitch_cli.plan import make_plan
from tstitch_cli.quality import clip_score, features, references
from tstitch_cli.quality.attributes import AttributeClassifier
from tstitch_cli.quality.captions import vocabulary
from tstitch_cli.quality.features import ClassifierFeatures
from tstitch_cli.quantities import parse_budget
from tstitch_cli.schema import Fingerprint, Plan, Setting
from tstitch_cli.training import contrastive, measured_by
from tstitch_cli.training.vocabulary import write_tokenizer
from tstitch_cli.zoo.registry import Zoo

ASKED = ["alignment", "background", "colour", "count", "garment"]


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ships with a family, by networks that were not trained."""
    folder = tmp_path_factory.mktemp("bundled")
    family = folder / "tiny-sd"
    (family / "classifier").mkdir(parents=True)
    torch.manual_seed(0)
    save_file(AttributeClassifier().state_dict(), family / "classifier" / "model.safetensors")
    extractor = ClassifierFeatures("tiny-sd", file=family / "classifier" / "model.safetensors")
    measured_by.write(fashion_mnist_of_blocks(folder / "data"), family, extractor, 30)
    tokenizer = write_tokenizer(vocabulary(), family / "clip")
    contrastive.clip(len(tokenizer), tokenizer.eos_token_id).save_pretrained(family / "clip")
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toys.sd_folders(tmp_path_factory.mktemp("models"))


@pytest.fixture
def plan(here: Path, bundled: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Of two toy Stable Diffusions that are taken for the bundled family, two steps, written to plan.yaml."""
    for module in (clip_score, features, prompts, references):
        monkeypatch.setattr(module, "BUNDLED", bundled)
    profile = builders.measured(2, (0.01, 0.03))
    sources = {name: f"folder:{models / name}" for name in ("small", "large")}
    denoisers = tuple(replace(each, source=sources[each.name]) for each in profile.denoisers)
    weights = {name: digest_of(Zoo.load().resolve(source)) for name, source in sources.items()}
    made = make_plan(
        replace(
            profile,
            family="tiny-sd",
            denoisers=denoisers,
            setting=Setting(2, "ddim", 1.5, 2, 64, "float32", "cpu"),
            fingerprint=Fingerprint("cpu", "none", "2", "0", 1, weights),
            validation=(),
        ),
        budget=parse_budget("100%"),
        increment=0.5,
        profile_path="p.yaml",
        digest="0",
    )
    documents.write_plan(made, here / "plan.yaml", overwrite=False)
    return made


def evaluate(*arguments: str) -> Result:
    result = CliRunner().invoke(app, ("evaluate", "--work", "work", "--rows", "0", "--count", "20", *arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result


def test_the_familys_own_captions_are_drawn_and_scored(plan: Plan, here: Path, bundled: Path) -> None:
    result = evaluate()
    assert result.exit_code == 0, result.output
    filled = documents.read_plan(here / "plan.yaml")
    measured = filled.rows[0].measured
    assert sorted(measured) == sorted([*ASKED, "fid", "is", "precision", "recall", "clip", "style"])
    assert filled.evaluation is not None
    extractor = ClassifierFeatures("tiny-sd")
    own = references.read(bundled / "tiny-sd" / "reference.npz", extractor, here / "work")
    assert filled.evaluation.reference == own.digest
    assert "alignment ↑" in result.stdout
    assert "left out" not in result.stderr
    assert 0 <= measured["alignment"].value <= min(measured[name].value for name in ASKED)
    again = evaluate("--prompts-file", "seen", "--reference", str(bundled / "tiny-sd" / "reference.npz"))
    assert again.exit_code == 0, again.output
    assert documents.read_plan(here / "plan.yaml") == filled


def test_captions_and_statistics_are_named(plan: Plan, here: Path, bundled: Path) -> None:
    result = evaluate("--prompts-file", "unseen", "--metrics", "fid")
    assert result.exit_code == 0, result.output
    found = documents.read_plan(here / "plan.yaml").evaluation
    unseen = bundled / "tiny-sd" / "reference-unseen.npz"
    assert found is not None
    assert found.reference == references.read(unseen, ClassifierFeatures("tiny-sd"), here / "work").digest


def test_a_path_is_meant_before_a_name(plan: Plan, here: Path, bundled: Path) -> None:
    (here / "unseen").write_text("a dream\n")
    (here / "folder").mkdir()
    own = {name: bundled / "tiny-sd" / f"reference{name}.npz" for name in ("", "-unseen", "-ink")}
    assert [captions_of(plan, file) for file in (None, Path("seen"), Path("unseen"), Path("x"))] == [
        "seen",
        "seen",
        None,
        None,
    ]
    assert captions_of(replace(plan, family="fashion"), None) is None
    assert statistics_of("tiny-sd", None, "seen") == statistics_of("tiny-sd", None, None) == own[""]
    assert statistics_of("tiny-sd", None, "unseen") == own["-unseen"]
    assert statistics_of("tiny-sd", Path("ink"), "unseen") == own["-ink"]
    for place in ("folder", "nowhere"):
        assert statistics_of("tiny-sd", Path(place), "unseen") == Path(place)
    assert statistics_of("inception", None, "unseen") is None


def test_what_holds_for_some_of_the_pictures_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    asking = {"garment": 40, "background": 20, "count": 40, "colour": 3, "style": 60}
    tell_left_out(asking, None, ["garment", "background", "count", "style"], 60)
    said = " ".join(capsys.readouterr().err.split())
    assert said == (
        "garment, count: of 40 pictures, whose prompts tell it as the family's captions do; 20 are left out "
        "background: of 20 pictures, whose prompts tell it as the family's captions do; 40 are left out "
        "no colour: too few of the prompts tell it as the captions of a bundled family do"
    )
    tell_left_out(asking, ["style"], ["style"], 60)
    assert not capsys.readouterr().err


def test_prompts_that_are_no_captions_are_left_out_and_that_is_said(plan: Plan, here: Path) -> None:
    (here / "mixed.txt").write_text("A red bag on blue.\na dream\n")
    result = evaluate("--prompts-file", "mixed.txt", "--count", "40", "--metrics", "alignment,style")
    assert result.exit_code == 0, result.output
    said = " ".join(result.stderr.split())
    assert "alignment: of 20 pictures, whose prompts tell it as the family's captions do; 20 are left out" in said
    assert set(documents.read_plan(here / "plan.yaml").rows[0].measured) == {"alignment", "style"}


def test_a_metric_that_cannot_be_is_refused_with_all_that_can_be(plan: Plan, here: Path) -> None:
    refused = evaluate("--metrics", "accuracy")
    assert refused.exit_code == 2
    possible = "fid, is, precision, recall, clip, alignment, garment, colour, background, count, style"
    assert " ".join(refused.stderr.split()).endswith(f"these can be: {possible}")
    assert evaluate("--metrics", possible).exit_code == 0
    assert ", ".join(documents.read_plan(here / "plan.yaml").rows[0].measured) == possible


def test_without_any_caption_nothing_is_asked_for(plan: Plan, here: Path) -> None:
    (here / "dreams.txt").write_text("a dream\n")
    result = evaluate("--prompts-file", "dreams.txt")
    assert result.exit_code == 0, result.output
    assert "no garment, colour, background, count, alignment: too few of the prompts" in " ".join(result.stderr.split())
    assert not set(ASKED) & set(documents.read_plan(here / "plan.yaml").rows[0].measured)
    refused = evaluate("--prompts-file", "dreams.txt", "--metrics", "alignment")
    assert refused.exit_code == 2
    assert "it takes prompts that are captions of a bundled family" in " ".join(refused.stderr.split())
    assert "these can be: fid, is, precision, recall, clip, style" in " ".join(refused.stderr.split())
    missing = evaluate("--prompts-file", "dreamt")
    assert missing.exit_code == 3
    assert "the captions of tiny-sd are: seen, unseen" in " ".join(missing.stderr.split())


def test_a_familys_own_clip_is_told_apart_by_its_weights(bundled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip_score, "BUNDLED", bundled)
    folder = clip_score.bundled("tiny-sd")
    assert folder == bundled / "tiny-sd" / "clip"
    assert clip_score.bundled("fashion") is None
    score = clip_score.ClipScore(folder=folder)
    assert score.digest == features.digest_of_file(folder / "model.safetensors")
    shown = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    assert score(shown, ["a red bag", "two green bags on a very very very very very long red background"]).shape == (2,)
