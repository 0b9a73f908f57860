"""The small CLIP: its size, CLIP's own loss, that it learns which caption is whose, and that it loads as any CLIP."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.garments import fashion_mnist_of_blocks
from tstitch_cli.quality.captions import scenes, vocabulary, wordings
from tstitch_cli.quality.clip_score import ClipScore
from tstitch_cli.training.captioned import ALL, Captioned
from tstitch_cli.training.contrastive import ContrastiveRecipe, retrieval
from tstitch_cli.training.loop import Schedule
from tstitch_cli.training.text_to_image import CaptionTable
from tstitch_cli.training.vocabulary import write_tokenizer


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fashion_mnist_of_blocks(tmp_path_factory.mktemp("fashion") / "data")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> CaptionTable:
    return CaptionTable(write_tokenizer(vocabulary(), tmp_path_factory.mktemp("tokenizer")))


def recipe_of(data: Path, table: CaptionTable, batches: int = 2, count: int = 16) -> ContrastiveRecipe:
    photos, inked = (Captioned(data, "train", count, combinations=ALL, inked=style) for style in (False, True))
    schedule = Schedule(batches, 16, 3e-3, warmup=5, weight_decay=0.0, ema_decay=0.5)
    return ContrastiveRecipe(photos, inked, table, schedule)


def test_it_is_small(data: Path, table: CaptionTable) -> None:
    model = recipe_of(data, table).model
    assert 2 * sum(p.numel() for p in model.parameters()) < 2.5e6


def test_the_loss_is_clips_own(data: Path, table: CaptionTable) -> None:
    recipe = recipe_of(data, table)
    seen: list[dict[str, Any]] = []
    recipe.model.register_forward_pre_hook(lambda module, args, kwargs: seen.append(kwargs), with_kwargs=True)
    loss = recipe.loss(torch.arange(8), torch.Generator().manual_seed(1))
    loss.backward()
    assert recipe.model.logit_scale.grad.abs() > 0
    assert all(p.grad is not None and p.grad.isfinite().all() for p in recipe.model.parameters())
    with torch.no_grad():
        theirs = recipe.model(**seen[0], return_loss=True).loss
    assert loss.item() == pytest.approx(theirs.item(), rel=1e-5)
    # No caption is dropped: all begin with a word.
    assert (seen[0]["input_ids"][:, 1] != table.empty[1]).all()
    with torch.no_grad():
        recipe.model.logit_scale.fill_(20.0)
        assert recipe.loss(torch.arange(8), torch.Generator().manual_seed(1)).item() < 1000


def test_it_learns_which_caption_is_whose_and_scores_as_any_clip(
    data: Path, table: CaptionTable, tmp_path: Path
) -> None:
    recipe = recipe_of(data, table)
    indices = torch.arange(8)
    optimizer = torch.optim.AdamW(recipe.model.parameters(), 1e-3)
    losses = []
    for step in range(25):
        loss = recipe.loss(indices, torch.Generator().manual_seed(step))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert min(losses[-3:]) < 0.7 * losses[0]
    recipe.model.to(torch.float16).save_pretrained(tmp_path / "clip")
    write_tokenizer(vocabulary(), tmp_path / "clip")
    score = ClipScore(folder=tmp_path / "clip")
    shown = recipe.photos.pixels(indices[::2])
    captions = [wordings(recipe.photos.scene(i))[0] for i in range(0, 8, 2)]
    assert score(shown, captions).mean() > score(shown, captions[1:] + captions[:1]).mean() + 5


def test_a_picture_is_found_by_the_caption_of_its_scene_among_all(data: Path, table: CaptionTable) -> None:
    pictures = Captioned(data, "test", 10)
    own = torch.tensor([table.number_of(pictures.scene(i)) for i in range(10)])
    told = []

    def model(input_ids: torch.Tensor, pixel_values: torch.Tensor) -> SimpleNamespace:
        told.append(input_ids)
        near = torch.nn.functional.one_hot(own, len(input_ids)).float()
        near[::2] = 0.0
        near[::2, -1] = 1.0
        return SimpleNamespace(logits_per_image=near)

    assert retrieval(model, pictures, table) == 0.5
    assert len(told[0]) == len(list(scenes())) == len(told[0].unique(dim=0))
