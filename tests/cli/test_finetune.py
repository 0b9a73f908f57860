"""`tstitch finetune` as it is typed: on toys in every detail, and on the bundled family once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner, Result

from tests import toys
from tests.builders import measured
from tests.garments import fashion_mnist_of_noise
from tstitch_cli import components, documents
from tstitch_cli.app import app
from tstitch_cli.plan import make_plan
from tstitch_cli.quantities import parse_budget
from tstitch_cli.schema import RANDOM_WEIGHTS, DenoiserProfile, Fingerprint, Plan, Setting
from tstitch_cli.zoo import finetuned
from tstitch_cli.zoo.preflight import check
from tstitch_cli.zoo.registry import Zoo, is_here

STEPS = 10


def tstitch(*arguments: str) -> Result:
    result = CliRunner().invoke(app, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`small` and `large`, class-conditional; and beside them pictures of two classes."""
    root = tmp_path_factory.mktemp("models")
    for depth, name in enumerate(("small", "large"), 1):
        toys.class_pipeline(toys.tiny_dit(depth, depth=depth)).save_pretrained(root / name)
    for number in range(8):
        folder = root / "pictures" / str(number % 2)
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("L", (16, 16), 30 * number).save(folder / f"{number}.png")
    return root


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


def planned(folders: dict[str, str], setting: Setting, weights: dict[str, str] | None = None) -> Plan:
    """A plan for `folders`, denoiser -> source, that gives each of two half of the steps in row 5."""
    profile = measured(STEPS, (0.01, 0.1))

    def of(known: DenoiserProfile, name: str) -> DenoiserProfile:
        return replace(known, name=name, source=folders[name])

    denoisers = tuple(of(known, name) for known, name in zip(profile.denoisers, folders, strict=True))
    print_of = Fingerprint("cpu", "none", "2.13", "0.42", 1, weights or dict.fromkeys(folders, "unknown"))
    profile = replace(profile, setting=setting, denoisers=denoisers, validation=(), fingerprint=print_of)
    return make_plan(profile, budget=parse_budget("100%"), profile_path="p.yaml", digest="0", top=1)


def toy_plan(models: Path, weights: dict[str, str] | None = None) -> Plan:
    folders = {name: f"folder:{models / name}" for name in ("small", "large")}
    if weights is None:
        zoo = Zoo.load()
        weights = {name: components.digest_of(zoo.resolve(source)) for name, source in folders.items()}
    return planned(folders, Setting(STEPS, "ddim", 1.5, 2, 16, "float32", "cpu"), weights)


def row_of(plan: Plan, steps: int) -> str:
    """The row that gives the small denoiser `steps` steps."""
    return str(next(i for i, row in enumerate(plan.rows) if row.steps.get(plan.denoisers[0].name, 0) == steps))


def finetune(models: Path, *more: str, plan: Plan | None = None, small_steps: int = 5) -> Result:
    plan = plan or toy_plan(models)
    documents.write_plan(plan, Path("plan.yaml"), overwrite=True)
    given = ("--data", str(models / "pictures"), "--batch-size", "4", "--device", "cpu", "--pictures", "0", "--no-fast")
    return tstitch("finetune", "--row", row_of(plan, small_steps), *given, *more)


def weights_of(name: str) -> dict[str, torch.Tensor]:
    return load_file(finetuned.folder() / name / "transformer" / "diffusion_pytorch_model.safetensors")


def test_the_result_joins_the_zoo_and_says_how_it_was_made(models: Path) -> None:
    result = finetune(models, "large", "--batches", "3", "--seed", "5")
    assert result.exit_code == 0, result.output
    folder = finetuned.folder() / "large-late"
    assert result.stdout.splitlines()[0] == str(folder)
    record = documents.read(folder / finetuned.RECORD, finetuned.Record, finetuned.SCHEMA)
    assert (record.base, record.batches, record.batch_size, record.seed) == ("large", 3, 4, 5)
    # DDIM's ten timesteps are 900, 800 ... 0, of which the last five are the large one's.
    assert record.timesteps == ((-1.0, 400.0),)
    assert record.weights == components.digest_of(Zoo.load().resolve(str(models / "large")))
    assert record.plan == documents.digest(Path("plan.yaml"))
    assert (folder / "loss.csv").read_text().startswith("batches,loss\n1,")
    assert Image.open(folder / "loss.png").size[0] > 400
    zoo = Zoo.load()
    entry = zoo.resolve("large-late")
    assert is_here(entry)
    check([zoo.resolve(str(models / "small")), entry, zoo.resolve(str(models / "large"))])
    assert entry.conditioning == zoo.resolve(str(models / "large")).conditioning
    before = load_file(models / "large" / "transformer" / "diffusion_pytorch_model.safetensors")
    after = weights_of("large-late")
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    profiled = tstitch(
        *("profile", str(models / "small"), "large-late", "--steps", "3", "--max-time", "1s", "--device", "cpu"),
        *("--no-agreement", "--out", "p.yaml"),
    )
    assert profiled.exit_code == 0, profiled.output
    again = finetune(models, "large", "--batches", "3")
    assert again.exit_code == 2
    assert "exists already" in again.output
    kept = weights_of("large-late")
    assert all(torch.equal(after[name], kept[name]) for name in after)
    replaced = finetune(models, "large", "--batches", "2", "--overwrite")
    assert replaced.exit_code == 0, replaced.output
    assert sorted(path.name for path in finetuned.folder().iterdir()) == ["large-late"]


def test_an_interrupted_run_goes_on_to_the_same_weights(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tstitch_cli.training import interval

    monkeypatch.setattr("tstitch_cli.training.loop.CHECKPOINT_SECONDS", -1.0)
    whole = finetune(models, "small", "--batches", "6", "--name", "whole", "--work", "one")
    assert whole.exit_code == 0, whole.output
    loss, calls = interval.IntervalRecipe.loss, iter(range(100))

    def interrupted(self: interval.IntervalRecipe, *args: torch.Tensor) -> torch.Tensor:
        if next(calls) == 3:
            raise KeyboardInterrupt
        return loss(self, *args)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(interval.IntervalRecipe, "loss", interrupted)
        cut = finetune(models, "small", "--batches", "6", "--name", "cut", "--work", "two")
    assert cut.exit_code == 130
    assert "cut" not in Zoo.load().entries
    resumed = finetune(models, "small", "--batches", "6", "--name", "cut", "--work", "two")
    assert resumed.exit_code == 0, resumed.output
    one, other = weights_of("whole"), weights_of("cut")
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert finetuned.default_name("small", (("small", 5), ("large", 5))) == "small-early"


def test_a_lora_is_merged_where_the_pipeline_takes_none(models: Path) -> None:
    result = finetune(models, "large", "--batches", "2", "--lora", "2")
    assert result.exit_code == 0, result.output
    before = load_file(models / "large" / "transformer" / "diffusion_pytorch_model.safetensors")
    after = weights_of("large-late")
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(".to_" in name for name in changed)


def test_what_cannot_be_is_refused_before_anything_is_loaded(models: Path) -> None:
    plan = toy_plan(models)
    cases = {
        ("medium",): (2, "the plan has no denoiser medium"),
        ("large", "--name", "fashion-xl"): (2, "the zoo has a denoiser fashion-xl already"),
        ("large", "--name", "../x"): (2, "is no name"),
        ("large", "--rate", "0"): (2, "absurd"),
        ("large", "--data", "missing"): (2, "there is no missing"),
        ("large", "--row", "99"): (2, "no row 99"),
    }
    for given, (status, said) in cases.items():
        result = finetune(models, *given, plan=plan)
        assert (result.exit_code, said in result.output) == (status, True), result.output
    none = finetune(models, "large", plan=plan, small_steps=STEPS)
    assert none.exit_code == 2
    assert "gives large no steps" in none.output
    random = finetune(models, "large", plan=toy_plan(models, dict.fromkeys(("small", "large"), RANDOM_WEIGHTS)))
    assert random.exit_code == 5
    assert "random weights" in random.output
    other = finetune(models, "large", plan=toy_plan(models, {"small": "1", "large": "2"}))
    assert other.exit_code == 5
    assert "other weights of large" in other.output
    assert not finetuned.folder().exists()


def test_pictures_that_are_none_of_the_classes_are_refused(models: Path, tmp_path: Path) -> None:
    (tmp_path / "d" / "fox").mkdir(parents=True)
    Image.new("L", (16, 16)).save(tmp_path / "d" / "fox" / "1.png")
    result = finetune(models, "large", "--data", str(tmp_path / "d"))
    assert result.exit_code == 2
    assert "no class 'fox'" in result.output


def test_the_bundled_family_is_compared_before_and_after(tmp_path: Path) -> None:
    names = ("fashion-s", "fashion-b")
    entries = [Zoo.load().resolve(name) for name in names]
    setting = Setting(STEPS, "ddim", 1.25, 8, 32, "float32", "cpu")
    weights = {entry.name: components.digest_of(entry) for entry in entries}
    plan = planned({entry.name: entry.source for entry in entries}, setting, weights)
    documents.write_plan(plan, Path("plan.yaml"), overwrite=False)
    data = fashion_mnist_of_noise(tmp_path / "garments")
    given = ("--data", str(data), "--batches", "2", "--batch-size", "4", "--pictures", "20", "--device", "cpu")
    result = tstitch("finetune", "fashion-b", "--row", row_of(plan, 5), *given)
    assert result.exit_code == 0, result.output
    assert "before" in result.stdout
    assert "accuracy" in result.stdout
    assert "tstitch profile fashion-s fashion-b-late" in result.output
    assert Zoo.load().entries["fashion-b-late"].family == "fashion"
    record = documents.read(
        finetuned.folder() / "fashion-b-late" / finetuned.RECORD, finetuned.Record, finetuned.SCHEMA
    )
    assert record.compared is not None
    assert record.compared.evaluation.pictures == 20
    assert record.compared.before.keys() == record.compared.after.keys() >= {"accuracy", "fid"}
    for metrics in (record.compared.before, record.compared.after):
        assert f"{metrics['accuracy'].value:.3f}" in result.stdout


def test_a_lora_of_a_text_denoiser_is_a_file_as_well(tmp_path: Path) -> None:
    toys.sd_folders(tmp_path)
    folders = {name: f"folder:{tmp_path / name}" for name in ("small", "large")}
    zoo = Zoo.load()
    weights = {name: components.digest_of(zoo.resolve(source)) for name, source in folders.items()}
    setting = Setting(STEPS, "ddim", 7.5, 2, 16, "float32", "cpu")
    plan = planned(folders, setting, weights)
    (tmp_path / "d").mkdir()
    for number, caption in enumerate(("a fox", "a hen")):
        Image.new("RGB", (20, 16), (0, 90 * number, 0)).save(tmp_path / "d" / f"{number}.png")
        (tmp_path / "d" / f"{number}.txt").write_text(caption)
    documents.write_plan(plan, Path("plan.yaml"), overwrite=False)
    given = ("--row", row_of(plan, 5), "--data", "d", "--batches", "2", "--batch-size", "2", "--device", "cpu")
    result = tstitch("finetune", "large", *given, "--lora", "2", "--pictures", "20")
    assert result.exit_code == 0, result.output
    # Nothing to measure pictures by is here, which does not undo what was trained.
    assert "not measured" in result.output
    folder = finetuned.folder() / "large-late"
    lora = load_file(folder / "pytorch_lora_weights.safetensors")
    assert all(name.startswith("unet.") for name in lora)
    drawn = tstitch(
        *("sample", "--row", row_of(plan, 5), "--prompt", "a fox", "--allow-stale"),
        *("--lora", str(folder / "pytorch_lora_weights.safetensors")),
    )
    assert drawn.exit_code == 0, drawn.output
    assert Zoo.load().resolve("large-late").conditioning.kind == "text"
