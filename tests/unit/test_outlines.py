"""Outlines: of known shapes on every ground, how well a picture follows one, and the ControlNet that learns them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from tests.garments import fashion_mnist_of_blocks
from tstitch_cli.quality.captions import COLOURS, vocabulary
from tstitch_cli.quality.outlines import outline_agreement, outline_image, outlines, things_in
from tstitch_cli.training import tiny_sd
from tstitch_cli.training.autoencoder import Shape
from tstitch_cli.training.captioned import Captioned
from tstitch_cli.training.garments import SIDE, ground, tint
from tstitch_cli.training.loop import Schedule, train
from tstitch_cli.training.outline import WEIGHTS, OutlineRecipe
from tstitch_cli.training.text_to_image import CaptionTable, Examples, TextToImage, UNetShape, text_encoder
from tstitch_cli.training.tiny_sd import TinySD
from tstitch_cli.training.vocabulary import write_tokenizer

_PALETTE = torch.tensor(list(COLOURS.values())) / 255.0
PAIRS = [(a, b) for a in range(len(COLOURS)) for b in range(len(COLOURS)) if a != b]
"""Every colour of a thing on every other colour of the ground."""


def disc(across: float = 18.0, down: float = 18.0, x: float = 32.0, y: float = 32.0) -> torch.Tensor:
    """(1, 1, SIDE, SIDE): how opaque an ellipse with soft edges is."""
    axis = torch.arange(SIDE) + 0.5
    reach = torch.hypot((axis[None, :] - x) / across, (axis[:, None] - y) / down)
    return ((1.0 - reach) * min(across, down) / 1.4 + 0.5).clamp(0.0, 1.0)[None, None]


def rim(opacity: torch.Tensor) -> torch.Tensor:
    """(B, 1, SIDE, SIDE): a white line where a thing so opaque ends."""
    inside = (opacity > 0.5).float()
    return inside * F.max_pool2d(1.0 - inside, 3, 1, 1)


def shown(opacity: torch.Tensor, tone: torch.Tensor) -> torch.Tensor:
    """(B, 3, SIDE, SIDE) in [-1, 1]: the thing in every colour on every other ground, with its shadow."""
    thing, wall = (_PALETTE[[pair[i] for pair in PAIRS]] for i in (0, 1))
    opacity, tone = opacity.expand(len(PAIRS), -1, -1, -1), tone.expand(len(PAIRS), -1, -1, -1)
    picture = ground(wall, opacity)
    return (picture + opacity * (tint(tone, thing) - picture)).clamp(0.0, 1.0) * 2.0 - 1.0


@pytest.mark.parametrize("tone", [-0.8, 0.0, 0.8])
def test_a_things_outline_is_found_in_every_colour_on_every_ground(tone: float) -> None:
    opacity = disc(20.0, 14.0)
    pictures = shown(opacity, torch.full_like(opacity, tone))
    assert outline_agreement(pictures, rim(opacity).expand(len(PAIRS), 3, -1, -1)).min() > 0.95
    drawn = outlines(pictures)
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    assert drawn.sum((1, 2, 3)).max() < 1.3 * rim(opacity).sum()  # a pixel wide, and no shadow among it


def test_only_a_picture_with_that_outline_follows_it() -> None:
    opacity = disc()
    asked = rim(opacity).expand(len(PAIRS), -1, -1, -1)
    for other, low, high in (
        (disc(x=33.0), 0.9, 1.0),  # a pixel aside is as good as there
        (disc(x=36.0), 0.3, 0.6),
        (disc(12.0, 12.0), 0.0, 0.05),
        (disc(30.0, 10.0), 0.0, 0.3),
        (torch.maximum(disc(7.0, 14.0, 20.0), disc(7.0, 14.0, 46.0)), 0.0, 0.45),
    ):
        found = outline_agreement(shown(other, torch.zeros_like(other)), asked)
        assert low <= found.min(), other
        assert found.max() <= high, other
    flat = torch.full((1, 3, SIDE, SIDE), 0.3)
    assert outlines(flat).sum() == 0
    assert outline_agreement(flat, asked[:1]).tolist() == [0.0]
    assert outline_agreement(shown(opacity, opacity)[:1], torch.zeros(1, 1, SIDE, SIDE)).tolist() == [0.0]


def test_captioned_pictures_follow_their_own_outlines_and_not_each_others(tmp_path: Path) -> None:
    pictures = Captioned(fashion_mnist_of_blocks(tmp_path / "data"), "train", 40)
    one = torch.tensor([i for i in range(40) if pictures.scene(i).count == 1])
    two = torch.tensor([i for i in range(40) if pictures.scene(i).count == 2])
    noisy = (pictures.batch(one) + 0.05 * torch.randn(len(one), 3, SIDE, SIDE)).clamp(-1.0, 1.0)
    own = outline_agreement(noisy, outlines(pictures.batch(one)))
    others = outline_agreement(pictures.batch(two), outlines(pictures.batch(one[: len(two)])))
    assert own.min() > 0.9
    assert others.max() < 0.6


def test_how_much_of_each_cell_a_thing_covers() -> None:
    opacity = disc()
    found = F.avg_pool2d(things_in(shown(opacity, torch.zeros_like(opacity))), 8)
    assert found.shape == (len(PAIRS), 1, SIDE // 8, SIDE // 8)
    assert (found - F.avg_pool2d((opacity > 0.5).float(), 8)).abs().max() < 0.25
    assert (found[:, 0, 0, 0] == 0.0).all()
    assert (found[:, 0, 4, 4] == 1.0).all()


def test_a_pictures_outline_is_drawn_at_its_size() -> None:
    opacity = disc()
    pixels = ((shown(opacity, torch.zeros_like(opacity))[3] + 1.0) * 127.5).round().to(torch.uint8)
    drawn = outline_image(Image.fromarray(pixels.permute(1, 2, 0).numpy()))
    assert (drawn.size, drawn.mode) == ((SIDE, SIDE), "RGB")
    assert set(np.unique(np.array(drawn)).tolist()) == {0, 255}
    asked = torch.from_numpy(np.array(drawn)).permute(2, 0, 1)[None] / 255.0
    assert outline_agreement(pixels[None] / 127.5 - 1.0, asked).item() == pytest.approx(1.0)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> OutlineRecipe:
    """For a tiny U-Net, of pictures of blocks and latents of noise."""
    root = tmp_path_factory.mktemp("outline")
    table = CaptionTable(write_tokenizer(vocabulary(), root / "tokenizer"))
    pictures = Captioned(fashion_mnist_of_blocks(root / "data"), "train", 16)
    draw = torch.Generator().manual_seed(0)
    latents = {"mean": torch.randn(16, 4, 8, 8, generator=draw), "std": torch.full((16, 4, 8, 8), 0.01)}
    end = int(table.tokens.max())
    torch.manual_seed(0)
    start = TextToImage(UNetShape(1, (16, 32, 32)).build(), text_encoder(end + 1, end))
    return OutlineRecipe(
        "outline", Schedule(12, 8, 5e-3, 2), Examples(latents, torch.arange(16), table), pictures, start
    )


def test_the_controlnet_begins_as_nothing_and_learns_alone(recipe: OutlineRecipe, tmp_path: Path) -> None:
    x_t, t, tokens, noise = recipe.noised.draw(torch.arange(4), torch.Generator().manual_seed(1), 0.4)
    text = recipe.start.encoder(tokens).last_hidden_state
    lines = outlines(recipe.pictures.batch(torch.arange(4))).expand(-1, 3, -1, -1)
    with torch.no_grad():
        errors = (recipe.start(x_t, t, tokens) - noise).square().mean((1, 2, 3))
        maps, middle = recipe.net(x_t, t, text, lines, return_dict=False)
    assert all((each == 0).all() for each in (*maps, middle))
    # The noisier, the more an error weighs: as if of the clean latents. Beside it, the coverage is told.
    alpha_bar = recipe.noised.alphas_cumprod[t]
    weight = ((1 - alpha_bar) / alpha_bar).clamp(*WEIGHTS)
    stages: list[Any] = []
    handle = recipe.net.down_blocks[0].register_forward_hook(lambda *given: stages.append(given[-1]))
    first = recipe.loss(torch.arange(4), torch.Generator().manual_seed(1))
    handle.remove()
    covered = F.avg_pool2d(things_in(recipe.pictures.batch(torch.arange(4))), 8)
    missed = (recipe.model["telling"](stages[0][1][0]) - covered).square().mean()
    assert first.item() == pytest.approx((weight * errors).mean().item() + missed.item(), rel=1e-4)
    before = {name: p.clone() for name, p in recipe.start.named_parameters()}
    trained, record = train(recipe, tmp_path / "outline.pt")
    assert all(torch.equal(p, before[name]) and p.grad is None for name, p in recipe.start.named_parameters())
    assert recipe.loss(torch.arange(4), torch.Generator().manual_seed(1)) < first
    assert record.parameters == sum(p.numel() for p in trained.parameters())
    # The outline is heeded: another one, another contribution.
    assert isinstance(trained, torch.nn.ModuleDict)
    with torch.no_grad():
        heeded, unheeded = (trained["net"](x_t, t, text, each, return_dict=False)[0][0] for each in (lines, 0 * lines))
    assert (heeded - unheeded).abs().max() > 1e-5
    assert not recipe.net.down_blocks[0]._forward_hooks


def test_captions_are_dropped_more_often(recipe: OutlineRecipe) -> None:
    scenes = torch.zeros(4000, dtype=torch.long)
    _, _, tokens, _ = recipe.noised.draw(scenes, torch.Generator().manual_seed(0), 0.4)
    empty = (tokens == recipe.noised.examples.table.empty).all(1).float().mean().item()
    assert 0.35 < empty < 0.45


def test_the_command_trains_it_into_a_folder_that_is_a_controlnets(
    recipe: OutlineRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import yaml
    from diffusers import ControlNetModel

    from tstitch_cli.zoo import controls
    from tstitch_cli.zoo.registry import Zoo

    monkeypatch.setattr(tiny_sd, "SCHEDULES", {"tiny-sd-outline": Schedule(2, 4, 1e-3)})
    monkeypatch.setattr(tiny_sd, "PICTURES", 16)
    monkeypatch.setattr(tiny_sd, "AUTOENCODER", Shape(channels=3, side=SIDE, widths=(8, 8, 16, 16), groups=8))
    made = TinySD(fashion_mnist_of_blocks(tmp_path / "data"), tmp_path / "out", tmp_path / "work", fast=False)
    recipe.start.unet.save_pretrained(made.shop.folder("tiny-sd/unet"))
    recipe.start.encoder.save_pretrained(made.shop.folder("text_encoder"))
    for part in ("vae", "tiny-sd"):
        (made.shop.out / part).mkdir(exist_ok=True)
        (made.shop.out / part / "training.yaml").write_text(f"name: {part}\n")
    made.shop.kept("tiny-sd-latents", made.shop.out / "vae", lambda: recipe.noised.examples.latents)
    made.train(["tiny-sd-outline"], lambda part: lambda done, total, loss: None)
    folder = made.folder_of("tiny-sd-outline")
    record = yaml.safe_load((folder / "training.yaml").read_text())
    assert (record["steers"], record["caption_dropout"], record["schedule"]["batches"]) == ("tiny-sd", 0.4, 2)
    net = ControlNetModel.from_pretrained(folder, torch_dtype=torch.float32)
    assert record["parameters"] == sum(p.numel() for p in net.parameters())
    found = controls.resolve((), str(folder), Zoo.shipped().entries["sd14"])
    assert found.encoder is not None
    assert found.encoder.channels == (16, 32, 32)
    assert found.width == recipe.start.unet.config.cross_attention_dim


def test_it_is_small() -> None:
    from diffusers import ControlNetModel

    from tstitch_cli.training.outline import EMBEDDING

    unet = tiny_sd.SHAPES["tiny-sd"].build()
    net = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=EMBEDDING)
    assert 2 * sum(p.numel() for p in net.parameters()) < 8e6
