"""The tiny Stable Diffusion: its pictures and captions, its tokenizer, its recipes, the whole command in miniature."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from tests.garments import fashion_mnist_of_blocks
from tstitch_cli.quality.captions import COLOURS, HELD_OUT, NAMES, NOUNS, Scene, vocabulary, wordings
from tstitch_cli.training import tiny_sd
from tstitch_cli.training.attributes import answers
from tstitch_cli.training.autoencoder import Shape
from tstitch_cli.training.captioned import ALL, UNSEEN, Captioned
from tstitch_cli.training.distillation import DistillationRecipe, StageFeatures, inherit
from tstitch_cli.training.garments import SIDE, cut_out
from tstitch_cli.training.latent_consistency import ConsistencyRecipe
from tstitch_cli.training.loop import Progress, Schedule
from tstitch_cli.training.text_to_image import (
    NOISE,
    CaptionTable,
    Examples,
    FinetuneRecipe,
    TextToImage,
    TextToImageRecipe,
    UNetShape,
    text_encoder,
)
from tstitch_cli.training.tiny_sd import SCHEDULES, SHAPES, TinySD
from tstitch_cli.training.vocabulary import LENGTH, write_tokenizer
from tstitch_cli.zoo.folders import from_folder
from tstitch_cli.zoo.registry import is_here


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fashion_mnist_of_blocks(tmp_path_factory.mktemp("fashion") / "data")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> CaptionTable:
    return CaptionTable(write_tokenizer(vocabulary(), tmp_path_factory.mktemp("tokenizer")))


def test_a_picture_depends_on_its_index_alone(data: Path) -> None:
    some = Captioned(data, "train", 50)
    again = Captioned(data, "train", 90)
    pictures = some.batch(torch.tensor([3, 41, 7]))
    assert pictures.shape == (3, 3, SIDE, SIDE)
    assert pictures.min() >= -1.0
    assert pictures.max() <= 1.0
    assert torch.allclose(pictures.flip(0), again.batch(torch.tensor([7, 41, 3])), atol=1e-6)
    assert not torch.equal(pictures[0], pictures[1])
    assert some.scene(41) == again.scene(41)


def test_a_picture_shows_what_its_scene_says(data: Path) -> None:
    pictures = Captioned(data, "train", 60)
    pixels = (pictures.batch(torch.arange(60)) + 1.0) / 2.0
    colours = torch.tensor(list(COLOURS.values())) / 255.0
    covered = {1: [], 2: []}  # type: dict[int, list[float]]
    for i in range(60):
        scene, picture = pictures.scene(i), pixels[i]
        nearest = (colours[:, :, None, None] - picture).square().sum(1).argmin(0)
        assert nearest[0].mode().values == NAMES.index(scene.background), i
        covered[scene.count].append((nearest == NAMES.index(scene.colour)).float().mean().item())
    assert min(covered[1]) > 0.2
    assert len(covered[2]) > 5
    assert min(covered[2]) > 0.1


def test_training_never_shows_what_is_held_out(data: Path) -> None:
    seen = {(s.garment, s.colour) for s in map(Captioned(data, "train", 3000).scene, range(3000))}
    assert not seen & HELD_OUT
    assert len(seen) == len(NOUNS) * len(NAMES) - len(HELD_OUT)
    kept = Captioned(data, "test", 300, combinations=UNSEEN)
    assert {(s.garment, s.colour) for s in map(kept.scene, range(300))} == HELD_OUT


def test_the_judge_sees_all_combinations(data: Path) -> None:
    shown = Captioned(data, "train", 3000, combinations=ALL)
    assert len({(s.garment, s.colour) for s in map(shown.scene, range(3000))}) == len(NOUNS) * len(NAMES)


def test_ink_is_another_style_of_the_same_scene(data: Path) -> None:
    photos, inked = Captioned(data, "train", 40), Captioned(data, "train", 40, inked=True)
    assert [photos.scene(i) for i in range(40)] == [inked.scene(i) for i in range(40)]
    a, b = photos.batch(torch.arange(40)), inked.batch(torch.arange(40))
    # Paper is pale whatever the background, and every picture has dark lines.
    assert b[:, :, 0, :].mean() > 0.7 > a[:, :, 0, :].mean()
    assert (b.mean(1).amin((1, 2)) < -0.4).all()
    assert [answers(each, torch.arange(3))["style"].tolist() for each in (photos, inked)] == [[0] * 3, [1] * 3]


def test_every_class_and_colour_is_among_the_held_out_ones() -> None:
    assert {garment for garment, _ in HELD_OUT} == set(range(len(NOUNS)))
    assert {colour for _, colour in HELD_OUT} == set(NAMES)


def test_captions_are_said_in_several_ways() -> None:
    sneaker = wordings(Scene(7, "red", "blue", 1))
    assert sneaker[0] == "a red sneaker on a blue background"
    assert {"red sneaker", "a red sneaker on blue", "a sneaker on a blue background", "a sneaker"} <= set(sneaker)
    assert {"two green bags", "two green handbags on orange"} <= set(wordings(Scene(8, "green", "orange", 2)))
    assert {"a pair of orange trousers", "orange trousers"} <= set(wordings(Scene(1, "orange", "red", 1)))
    assert "two pairs of black trousers on white" in wordings(Scene(1, "black", "white", 2))
    assert {"an orange dress", "a dress"} <= set(wordings(Scene(3, "orange", "red", 1)))
    assert "an ankle boot on an orange background" in wordings(Scene(9, "red", "orange", 1))


def test_a_pale_middle_belongs_to_the_garment_and_a_handle_does_not() -> None:
    ring = torch.zeros(1, 28, 28)
    ring[0, 8:20, 8:20] = 0.8
    ring[0, 11:17, 11:17] = 0.0
    filled, open_ = (cut_out(ring, torch.tensor([holes])) for holes in (False, True))
    assert filled.cover[0, 0, 14, 14] > 0.99
    assert open_.cover[0, 0, 14, 14] < 0.01
    assert filled.box.tolist() == [[8.0, 8.0, 20.0, 20.0]]


def test_every_word_is_one_token_and_reads_back(tmp_path: Path) -> None:
    from transformers import CLIPTokenizer

    write_tokenizer(vocabulary(), tmp_path / "tokenizer")
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path / "tokenizer")
    assert tokenizer.model_max_length == LENGTH
    for word in vocabulary():
        pieces = tokenizer.tokenize(word)
        assert len(pieces) == (3 if "-" in word else 1), word
    numbers = tokenizer("Two GREEN ankle boots on a red background").input_ids
    assert numbers[0] == tokenizer.bos_token_id
    assert numbers[-1] == tokenizer.eos_token_id == tokenizer.pad_token_id
    assert tokenizer.decode(numbers, skip_special_tokens=True).strip() == "two green ankle boots on a red background"
    assert tokenizer.tokenize("zebra")[-1] == "a</w>"


def test_captions_fit_and_are_drawn_from_their_scene(table: CaptionTable) -> None:
    assert table.tokens.shape[1] == LENGTH
    assert (table.tokens[:, -1] == table.empty[-1]).all()
    scene = Scene(7, "red", "blue", 1)
    number = table.number_of(scene)
    own = table.tokens[table.first[number] : table.first[number] + table.count[number]]
    assert len(own) == len(wordings(scene))
    drawn = table.draw(torch.full((400,), number), torch.Generator().manual_seed(0))
    known = {tuple(each.tolist()) for each in own}
    found = [tuple(each.tolist()) for each in drawn]
    assert {each for each in found if each != tuple(table.empty.tolist())} == known
    assert 20 < found.count(tuple(table.empty.tolist())) < 60


def _examples(table: CaptionTable) -> Examples:
    draw = torch.Generator().manual_seed(0)
    latents = {"mean": torch.randn(16, 4, 8, 8, generator=draw), "std": torch.full((16, 4, 8, 8), 0.01)}
    return Examples(latents, torch.arange(16), table)


def _step(recipe: TextToImageRecipe | DistillationRecipe | FinetuneRecipe | ConsistencyRecipe) -> float:
    loss = recipe.loss(torch.arange(4), torch.Generator().manual_seed(1))
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in recipe.model.parameters())
    return loss.item()


def test_the_text_encoder_learns_with_the_unet(table: CaptionTable) -> None:
    recipe = TextToImageRecipe("large", UNetShape(1, (16, 32, 32)), Schedule(2, 4, 1e-3), _examples(table))
    assert 0.8 < _step(recipe) < 1.2
    torch.nn.init.normal_(recipe.model.unet.conv_out.weight)
    recipe.model.zero_grad()
    _step(recipe)
    embedding = recipe.model.encoder.get_input_embeddings().weight.grad
    assert embedding.abs().sum() > 0


@pytest.mark.parametrize("name", ["tiny-sd-base", "tiny-sd-small"])
def test_the_smaller_ones_start_from_the_large_ones_blocks(name: str, table: CaptionTable) -> None:
    torch.manual_seed(0)
    large, small = SHAPES["tiny-sd"].build(), SHAPES[name].build()
    inherit(small, large)
    ours, theirs = small.up_blocks[-1].resnets, large.up_blocks[-1].resnets
    assert torch.equal(ours[0].conv1.weight, theirs[0].conv1.weight)
    assert torch.equal(ours[-1].conv1.weight, theirs[-1].conv1.weight)
    assert torch.equal(
        small.down_blocks[1].attentions[0].proj_in.weight, large.down_blocks[1].attentions[0].proj_in.weight
    )
    end = int(table.tokens.max())
    teacher = TextToImage(large, text_encoder(end + 1, end))
    recipe = DistillationRecipe(name, SHAPES[name], Schedule(2, 4, 1e-3), _examples(table), teacher)
    assert _step(recipe) > 0
    assert all(p.grad is None for p in teacher.parameters())


def test_a_copy_has_nothing_left_to_learn_but_the_task(table: CaptionTable) -> None:
    shape = UNetShape(2, (16, 32, 32))
    end = int(table.tokens.max())
    teacher = TextToImage(shape.build(), text_encoder(end + 1, end))
    recipe = DistillationRecipe("copy", shape, Schedule(2, 4, 1e-3), _examples(table), teacher)
    x_t, t, tokens, noise = recipe.noised.draw(torch.arange(4), torch.Generator().manual_seed(1))
    with torch.no_grad():
        task = (teacher(x_t, t, tokens) - noise).square().mean().item()
        _, features = StageFeatures(teacher.unet)(x_t, t, teacher.encoder(tokens).last_hidden_state)
    assert [each.shape[-1] for each in features] == [8, 4, 2, 4, 8, 8]
    assert _step(recipe) == pytest.approx(task, rel=1e-4)


def _teacher(table: CaptionTable) -> TextToImage:
    torch.manual_seed(0)
    end = int(table.tokens.max())
    return TextToImage(UNetShape(1, (16, 32, 32)).build(), text_encoder(end + 1, end))


def test_finetuning_leaves_the_text_encoder_alone(table: CaptionTable) -> None:
    start = _teacher(table)
    recipe = FinetuneRecipe("ink", Schedule(2, 4, 1e-3), _examples(table), start)
    assert _step(recipe) > 0
    assert all(p.grad is None for p in start.encoder.parameters())


def test_a_student_of_few_steps_follows_the_guided_teacher(table: CaptionTable) -> None:
    from diffusers import DDIMScheduler, LCMScheduler

    teacher = _teacher(table)
    recipe = ConsistencyRecipe("lcm", Schedule(2, 4, 1e-3), _examples(table), teacher)
    assert _step(recipe) > 0
    assert all(p.grad is None for p in recipe.teacher.parameters())
    draw = torch.Generator().manual_seed(2)
    x, t, scale = torch.randn(3, 4, 8, 8, generator=draw), torch.tensor([999, 519, 39]), torch.tensor([2.0, 7.5, 9.0])
    with torch.no_grad():
        text, empty = (teacher.encoder(recipe.table.tokens[n : n + 1]).last_hidden_state for n in (0, 9))
        text, empty = text.expand(3, -1, -1), empty.expand(3, -1, -1)
        before, solved = recipe._solved(x, t, text, empty, scale)
        plain, bare = (teacher.unet(x, t, each, return_dict=False)[0] for each in (text, empty))
        foreseen = recipe._foreseen(x, t, text, scale)
    assert before.tolist() == [979, 499, 19]
    ddim = DDIMScheduler(**NOISE, clip_sample=False, set_alpha_to_one=False)
    ddim.set_timesteps(50)
    lcm = LCMScheduler(**NOISE)
    for i in range(3):
        guided = bare[i] + scale[i] * (plain[i] - bare[i])
        assert torch.allclose(ddim.step(guided, int(t[i]), x[i]).prev_sample, solved[i], atol=1e-4)
        # At first the student ignores the scale, so it foresees what the scheduler makes of the teacher's prediction.
        lcm.set_timesteps(1, original_inference_steps=50, timesteps=None)
        lcm.timesteps = t[i : i + 1]
        lcm._step_index = 0
        assert torch.allclose(lcm.step(plain[i], t[i], x[i]).denoised, foreseen[i], atol=1e-4)


@pytest.mark.slow
def test_the_whole_family_trains_in_miniature_and_draws(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers import AutoencoderKL, AutoModel, LCMScheduler, StableDiffusionPipeline

    monkeypatch.setattr(tiny_sd, "SCHEDULES", {name: Schedule(2, 4, s.learning_rate) for name, s in SCHEDULES.items()})
    monkeypatch.setattr(tiny_sd, "PICTURES", 24)
    monkeypatch.setattr(tiny_sd, "AUTOENCODER", Shape(channels=3, side=SIDE, widths=(8, 8, 16, 16), groups=8))
    monkeypatch.setattr(tiny_sd, "INKED", 8)
    narrow = {name: replace(shape, widths=(16, 32, 32)[: len(shape.widths)]) for name, shape in SHAPES.items()}
    monkeypatch.setattr(tiny_sd, "SHAPES", narrow)
    whole = TinySD(data, tmp_path / "out", tmp_path / "work", fast=False)
    blurry: list[AutoencoderKL] = []

    def noted(part: str) -> Progress:
        if part == "tiny-sd-sharper":
            blurry.append(whole.autoencoder())
        return lambda done, total, loss: None

    whole.train(SCHEDULES, noted)
    # Another decoder of the very same latents.
    before, after = blurry[0].state_dict(), whole.autoencoder().state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith(("decoder.", "post_quant_conv.")) for name in changed)
    assert blurry[0].config.scaling_factor == whole.autoencoder().config.scaling_factor
    for name in (*SHAPES, "tiny-sd-ink", "tiny-sd-lcm", "tiny-sd-small-lcm"):
        record = yaml.safe_load((tmp_path / "out" / name / "training.yaml").read_text())
        assert record["schedule"]["batches"] == 2
        unet = AutoModel.from_pretrained(str(tmp_path / "out" / name / "unet"), torch_dtype=torch.float32)
        assert record["parameters"] >= sum(p.numel() for p in unet.parameters())
        pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "out", unet=unet, torch_dtype=torch.float32)
        if name.endswith("-lcm"):
            pipeline.scheduler = LCMScheduler.from_config(pipeline.scheduler.config)
        pipeline.set_progress_bar_config(disable=True)
        drawn = pipeline(["a red sneaker", "two green bags"], num_inference_steps=2, guidance_scale=7.5).images
        assert drawn[1].size == (SIDE, SIDE)
        entry = from_folder(tmp_path / "out" / name)
        assert (entry.name, is_here(entry)) == (name, True)
        assert entry.defaults.scheduler == ("lcm" if name.endswith("-lcm") else "pndm")
    record = yaml.safe_load((tmp_path / "out" / "tiny-sd-outline" / "training.yaml").read_text())
    assert record["steers"] == "tiny-sd"


def test_the_sheet_is_drawn_by_the_command(data: Path, tmp_path: Path) -> None:
    from PIL import Image
    from typer.testing import CliRunner

    from tstitch_cli.app import app

    done = CliRunner().invoke(app, ["train", "--data", str(data), "--sheet", str(tmp_path / "sheet.png")])
    assert done.exit_code == 0, done.output
    assert Image.open(tmp_path / "sheet.png").width > 6 * SIDE
