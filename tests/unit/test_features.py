"""The networks that measure, Inception-v3 and CLIP, and what is said where their weights are not here."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from tests import toys
from tstitch_cli.errors import BadFileError, UsageError
from tstitch_cli.quality import clip_score, features, inception
from tstitch_cli.quality.clip_score import ClipScore
from tstitch_cli.quality.inception import Inception, InceptionFeatures


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of torch's and of the hub's."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch hub"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


def weights(cache: Path, monkeypatch: pytest.MonkeyPatch, **changes: torch.Tensor) -> Path:
    """A file of weights, all alike, small because each is one number repeated."""
    held = {name: torch.full((), 0.01).expand(value.shape) for name, value in Inception().state_dict().items()}
    held = {name: value for name, value in held.items() if not name.endswith("num_batches_tracked")}
    path = cache / "torch hub" / "checkpoints" / inception.FILES[1]
    path.parent.mkdir(parents=True)
    torch.save(held | changes, path)
    monkeypatch.setattr(inception, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest()[:8])
    return path


def test_inception_has_the_published_parameters() -> None:
    model = Inception()
    # 21,785,568 of the convolutions and normalisations, 2048 x 1008 + 1008 of the last layer.
    assert sum(each.numel() for each in model.parameters()) == 21_785_568 + 2_065_392
    shapes = {name: tuple(value.shape) for name, value in model.named_parameters()}
    assert shapes["Mixed_6b.branch7x7dbl_4.conv.weight"] == (128, 128, 7, 1)
    assert shapes["Mixed_7c.branch3x3dbl_3b.conv.weight"] == (384, 384, 3, 1)
    assert shapes["fc.weight"] == (1008, 2048)


def test_inception_describes_pictures_of_any_size(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights(cache, monkeypatch)
    extractor = features.named("inception")
    made = extractor(torch.randint(0, 256, (2, 3, 40, 56), dtype=torch.uint8))
    assert made.features.shape == (2, 2048)
    assert made.probabilities is not None
    torch.testing.assert_close(made.probabilities.sum(1), torch.ones(2))
    assert (extractor.name, len(extractor.digest), dict(extractor.judge.metrics)) == ("inception", 16, {})


def test_pictures_are_resized_as_tensorflow_does() -> None:
    """Pixel i of the result lies at i H / side, so that the first is the source's first and none are averaged."""
    source = torch.arange(4.0).view(1, 1, 1, 4).expand(1, 1, 4, 4)
    larger = inception.resized(source, 8)[0, 0]
    expected = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.0])
    assert torch.equal(larger, expected.expand(8, 8))
    assert torch.equal(inception.resized(source, 2)[0, 0], torch.tensor([[0.0, 2.0], [0.0, 2.0]]))
    assert torch.equal(inception.resized(source, 4), source)


def test_missing_inception_is_told_with_the_command_that_fetches_it(cache: Path) -> None:
    with pytest.raises(BadFileError, match="are not here") as told:
        features.named("inception")
    target = cache / "torch hub" / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth"
    assert told.value.hint is not None
    assert f"curl -fL --create-dirs -o '{target}' https://github.com/" in told.value.hint


def test_broken_inception_is_told(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = weights(cache, monkeypatch, other=torch.zeros(1))
    with pytest.raises(BadFileError, match="not of this network: other"):
        InceptionFeatures()
    path.write_bytes(b"half a download")
    with pytest.raises(BadFileError, match="is not the file it should be"):
        InceptionFeatures()
    monkeypatch.setattr(inception, "SHA256", "")
    with pytest.raises(BadFileError, match="cannot be loaded"):
        InceptionFeatures()


def test_unknown_features_are_refused() -> None:
    with pytest.raises(UsageError, match="no features called 'resnet'") as told:
        features.named("resnet")
    assert told.value.hint == "there are fashion, tiny-sd, inception"


def test_the_classifier_of_captioned_pictures_sees_their_colours(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from tstitch_cli.quality.attributes import HEADS, AttributeClassifier

    torch.manual_seed(0)
    save_file(AttributeClassifier().state_dict(), tmp_path / "model.safetensors")
    extractor = features.ClassifierFeatures("tiny-sd", file=tmp_path / "model.safetensors")
    shown = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    made = extractor(shown)
    assert made.probabilities is not None
    assert (made.features.shape, made.probabilities.shape, sorted(made.answers)) == ((2, 64), (2, 10), sorted(HEADS))
    assert not torch.allclose(made.features, extractor(shown.flip(1)).features)


@pytest.fixture
def clip(cache: Path) -> ClipScore:
    """CLIP in small, where the hub's cache would have it."""
    from transformers import CLIPConfig, CLIPModel

    folder = cache / "hub" / "models--openai--clip-vit-large-patch14" / "snapshots" / ("0" * 40)
    folder.mkdir(parents=True)
    text = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {**text, "image_size": 16, "patch_size": 8}
    parts = toys.text_parts(folder)
    vocabulary = {"vocab_size": len(parts["tokenizer"]), "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    torch.manual_seed(5)
    config = CLIPConfig(text_config=text | vocabulary, vision_config=vision, projection_dim=8)
    CLIPModel(config).save_pretrained(folder)
    parts["tokenizer"].save_pretrained(folder)
    return ClipScore()


def test_clip_scores_a_picture_against_its_own_prompt(clip: ClipScore) -> None:
    shown = torch.randint(0, 256, (3, 3, 20, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    prompts = ["a fox", "a very long prompt " * 40, "snow"]
    scores = clip(shown, prompts)
    assert scores.shape == (3,)
    assert ((scores >= 0) & (scores <= 100)).all()
    alone = torch.cat([clip(shown[i : i + 1], prompts[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(scores, alone, rtol=1e-4, atol=1e-3)
    assert clip.digest == "0" * 40


def test_clip_sees_the_middle_of_a_picture_as_its_own_processor_makes_it() -> None:
    from PIL import Image

    smooth = np.random.default_rng(2).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    image = Image.fromarray(smooth).resize((90, 60), Image.Resampling.BICUBIC)
    ours = clip_score.prepared(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None], 30)
    small = image.resize((45, 30), Image.Resampling.BICUBIC).crop((7, 0, 37, 30))
    theirs = (np.array(small) / 255.0 - clip_score.MEAN) / clip_score.STD
    assert np.abs(ours[0].permute(1, 2, 0).numpy() - theirs).max() < 2 / 255 / min(clip_score.STD)


def test_missing_clip_is_told_with_the_command_that_fetches_it(cache: Path) -> None:
    with pytest.raises(BadFileError, match="openai/clip-vit-large-patch14") as told:
        ClipScore()
    assert told.value.hint is not None
    assert "hf download openai/clip-vit-large-patch14 config.json model.safetensors" in told.value.hint


def test_broken_clip_is_told(cache: Path, clip: ClipScore) -> None:
    next(cache.rglob("model.safetensors")).write_bytes(b"half")
    with pytest.raises(BadFileError, match="cannot be loaded"):
        ClipScore()
