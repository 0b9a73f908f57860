"""From a picture, within a mask, under control, with a LoRA: from profile to sample --from, on tiny folders."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

from tests import pipelines, toys
from tests.toys import text_parts
from tests.unit.test_pipelines import lora
from tstitch_cli import provenance
from tstitch_cli.app import app
from tstitch_cli.documents import read_plan

STEPS = 5


def tstitch(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`large`, `small`, `short` (a stage fewer) and `wide` of Stable Diffusion's kind, a ControlNet, a LoRA, files."""
    root = tmp_path_factory.mktemp("models")
    parts = text_parts(root)
    unets = {
        "small": toys.tiny_unet(1),
        "large": toys.tiny_unet(2, transformer_layers_per_block=2),
        "short": toys.tiny_unet(
            3,
            block_out_channels=(8,),
            down_block_types=("CrossAttnDownBlock2D",),
            up_block_types=("CrossAttnUpBlock2D",),
        ),
        "wide": toys.tiny_unet(4, block_out_channels=(16, 32)),
    }
    for name, unet in unets.items():
        pipeline = toys.sd_pipeline(unet)
        pipeline.register_modules(**parts)
        pipeline.save_pretrained(root / name)
    pipelines.controlnet(unets["large"]).save_pretrained(root / "net")
    save_file(lora(3, unets["large"]), root / "style.safetensors")
    save_file({"transformer.nothing.lora_A.weight": torch.zeros(2, 3)}, root / "foreign.safetensors")
    pipelines.picture(1, 40).resize((60, 40)).save(root / "photo.jpg")
    pipelines.mask(40).resize((60, 40)).save(root / "mask.png")
    pipelines.picture(2, 64).save(root / "edges.png")
    (root / "text.png").write_text("no picture")
    return root


def planned(models: Path, *more: object, small: str = "small") -> None:
    """Profiles and plans in the current folder, all steps by the two denoisers half and half."""
    given = ("--scheduler", "ddim", "--steps", STEPS, "--size", 16, "--max-time", "1s", "--device", "cpu")
    profiled = tstitch("profile", models / "large", models / small, *given, *more, "--out", "p.yaml", "--overwrite")
    assert profiled.exit_code == 0, profiled.output
    made = tstitch("plan", "--profile", "p.yaml", "--budget", "10s", "--increment", "0.5", "--overwrite")
    assert made.exit_code == 0, made.output


def mixed() -> int:
    """The row in which both take steps."""
    return next(i for i, row in enumerate(read_plan(Path("plan.yaml")).rows) if len(row.allocation) == 2)


def test_image_to_image_and_inpainting_under_control(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    net = models / "net"
    planned(models, "--strength", "0.6", "--inpaint", "--control", net)
    plan = read_plan(Path("plan.yaml"))
    assert plan.setting.taken == 3
    assert plan.setting.words.startswith("3 of 5 steps of ddim (strength 0.6), guidance 7.5, batch of 1, 16 x 16 px")
    assert plan.setting.words.endswith(f"inpainting, ControlNet {net}")
    assert all(sum(row.steps.values()) == 3 for row in plan.rows)

    sample = ("sample", "--row", mixed(), "--prompt", "a fox", "--out")
    photo, mask, edges = models / "photo.jpg", models / "mask.png", f"{net}={models / 'edges.png'}"
    files = ("--image", photo, "--mask", mask, "--control", edges)
    for missing, said in ((0, "starts from a picture"), (2, "fills in what a mask covers"), (4, "a control image")):
        refused = tstitch(*sample, "no", *files[:missing], *files[missing + 2 :])
        assert (refused.exit_code, said in refused.output) == (2, True), refused.output
    for index, wrong, status, said in (
        (1, "gone.png", 3, "no such file"),
        (1, models / "text.png", 3, "no readable picture"),
        (1, models / "edges.png", 2, "a mask has its picture's size"),
        (5, "edges.png", 2, "which file"),
        (5, "canny=edges.png", 2, "not canny"),
    ):
        given = [*files]
        given[index] = wrong
        refused = tstitch(*sample, "no", *given)
        assert (refused.exit_code, said in refused.output) == (status, True), refused.output
    assert not Path("no").exists()

    drawn = tstitch(*sample, "first", *files)
    assert drawn.exit_code == 0, drawn.output
    first = Path("first/000000.png")
    made = provenance.read(first)
    assert [file.kind for file in made.files] == ["image", "mask", "control"]
    shown = tstitch("show", first).stdout
    assert all(f"{kind} {path} (digest " in shown for kind, path in (("image", photo), ("mask", mask)))
    assert made.setting.words in shown
    assert sum(steps for _, steps in made.allocation) == 3
    again = tstitch("sample", "--from", first, "--out", "again")
    assert again.exit_code == 0, again.output
    assert Path("again/000000.png").read_bytes() == first.read_bytes()

    # Another ControlNet under the same name draws no more by the plan, and none of its pictures again.
    weights = net / "diffusion_pytorch_model.safetensors"
    kept_bytes = weights.read_bytes()
    weights.write_bytes(kept_bytes[:-4] + bytes(4))
    for words in ((*sample, "other", *files), ("sample", "--from", first, "--out", "other")):
        stale = tstitch(*words)
        assert (stale.exit_code, f"weights of control {net}" in " ".join(stale.output.split())) == (5, True)
    weights.write_bytes(kept_bytes)

    # The unmasked half is what the autoencoder makes of the picture, the masked one is not.
    nothing = tmp_path / "nothing.png"
    Image.new("L", (60, 40), 0).save(nothing)
    kept = tstitch(*sample, "kept", "--image", photo, "--mask", nothing, "--control", edges)
    assert kept.exit_code == 0, kept.output
    assert Path("kept/000000.png").read_bytes() != first.read_bytes()
    Image.new("L", (60, 40), 255).save(nothing)
    changed = tstitch("sample", "--from", "kept/000000.png", "--out", "changed")
    assert (changed.exit_code, "put the file back" in changed.output) == (3, True), changed.output
    nothing.unlink()
    gone = tstitch("sample", "--from", "kept/000000.png", "--out", "changed")
    assert (gone.exit_code, "which is not here" in gone.output) == (3, True), gone.output


def test_a_denoiser_with_fewer_stages_follows_the_control_too(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(models)  # folders are named as they are seen from here
    planned(Path(), "--control", "./net", small="short")
    rows = {row.allocation: i for i, row in enumerate(read_plan(Path("plan.yaml")).rows)}

    def drawn(row: int, image: str, out: str) -> bytes:
        given = ("--control", f"./net={image}", "--prompt", "a fox", "--out", tmp_path / out)
        result = tstitch("sample", "--row", row, *given)
        assert result.exit_code == 0, result.output
        with Image.open(tmp_path / out / "000000.png") as picture:
            return picture.tobytes()

    alone = rows[(("short", STEPS),)]
    assert drawn(alone, "edges.png", "edges") != drawn(alone, "photo.jpg", "photo")
    assert drawn(mixed(), "edges.png", "mixed") != drawn(mixed(), "photo.jpg", "other")


def test_a_lora_goes_into_the_large_denoiser_alone(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("peft")
    monkeypatch.chdir(tmp_path)
    planned(models)
    rows = {
        row.allocation[0][0]: i for i, row in enumerate(read_plan(Path("plan.yaml")).rows) if len(row.allocation) == 1
    }

    def drawn(name: str, out: str, *more: object) -> bytes:
        result = tstitch("sample", "--row", rows[name], "--prompt", "a fox", "--out", out, *more)
        assert result.exit_code == 0, result.output
        with Image.open(Path(out) / "000000.png") as image:
            return image.tobytes()

    style = models / "style.safetensors"
    plain = drawn("large", "plain")
    styled = drawn("large", "styled", "--lora", f"{style}:0.5")
    assert plain != styled != drawn("large", "more", "--lora", style)
    assert drawn("small", "small") == drawn("small", "small-lora", "--lora", style)
    assert drawn("large", "none", "--lora", f"{style}:0") == plain
    made = provenance.read(Path("styled/000000.png"))
    assert [(file.kind, file.scale) for file in made.files] == [("lora", 0.5)]
    again = tstitch("sample", "--from", "styled/000000.png", "--out", "again")
    assert again.exit_code == 0, again.output
    assert Path("again/000000.png").read_bytes() == Path("styled/000000.png").read_bytes()
    for wrong, status, said in (
        ("gone.safetensors", 3, "no such file"),
        (f"{style}:99", 2, "absurd"),
        (models / "photo.jpg", 3, "no safetensors file"),
        (models / "text.png", 3, "no safetensors file"),
        (models / "foreign.safetensors", 2, "nothing for the largest denoiser"),
    ):
        refused = tstitch("sample", "--prompt", "a fox", "--out", "no", "--lora", wrong)
        assert (refused.exit_code, said in refused.output) == (status, True), refused.output


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--strength", "0.1"), "leaves none of 5 steps"),
        (("--strength", "1.5"), "above 0 and 1 at most"),
        (("--frames", "5"), "it has no frames"),
        (("--control", "cany"), "there is no ControlNet 'cany'"),
        (("--control", "net"), "adds to 4 feature maps of 8, 8, 8, 16 channels, wide has 4 feature maps of 16, 16, 16"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_loaded(
    models: Path, monkeypatch: pytest.MonkeyPatch, given: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(models)

    def load(*args: object) -> None:
        raise AssertionError("loaded")

    monkeypatch.setattr("tstitch_cli.denoisers.load", load)
    refused = tstitch("profile", "large", "wide", "--steps", STEPS, "--size", 16, "--device", "cpu", *given)
    assert (refused.exit_code, said in " ".join(refused.output.split())) == (2, True), refused.output


def test_files_that_a_plan_was_not_made_for_are_refused(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    planned(models)
    photo = models / "photo.jpg"
    for option, value in (("--image", photo), ("--mask", photo), ("--control", f"canny={photo}")):
        refused = tstitch("sample", "--prompt", "a fox", option, value)
        assert (refused.exit_code, f"{option} is nothing that this plan was made for" in refused.output) == (2, True)
