"""What a denoiser is trained on, and how it is called, for every kind of denoiser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from torch import nn

from tests import toys
from tests.tiny import PAIRS, tiny
from tstitch_cli import random_weights
from tstitch_cli.bridges.matching import levels
from tstitch_cli.schema import Setting
from tstitch_cli.training import finetune
from tstitch_cli.training.adapters import Adapter
from tstitch_cli.training.conditions import Conditions
from tstitch_cli.training.finetune import Options, Student
from tstitch_cli.training.interval import noised
from tstitch_cli.training.latents import Latents
from tstitch_cli.training.spans import Spans
from tstitch_cli.zoo.entry import Entry, Noise, Prediction

CAPTIONS = ("a", "b c", "a", "d")
TEXT = ("stable-diffusion", "sdxl", "sd3", "flux", "sana", "pixart-sigma")


def student(monkeypatch: pytest.MonkeyPatch, entries: list[Entry], name: str, size: int = 64) -> Student:
    monkeypatch.setattr(finetune, "components", random_weights)
    defaults = entries[-1].defaults
    setting = Setting(4, defaults.scheduler, defaults.guidance, 1, size, "float32", "cpu")
    return Student(entries, setting, name, torch.float32)


def latents_like(x: Any, count: int = 4) -> Latents:
    shape = (count, 2, *x)
    return Latents(np.random.default_rng(0).normal(size=shape).astype(np.float16))


def latent_shape(one: Student) -> tuple[int, ...]:
    space = one.entry.latent_space
    return space.channels, one.setting.size // space.downscale, one.setting.size // space.downscale


def at_toy_size(pipeline: Any) -> None:
    """Keeps a pipeline from drawing at the nearest of the sizes that its family was trained on."""
    plain = type(pipeline)

    def call(self: Any, prompt: Any, guidance_scale: float, height: int, width: int, num_inference_steps: int) -> Any:
        return plain.__call__(
            self,
            prompt,
            guidance_scale=guidance_scale,
            height=height,
            width=width,
            num_inference_steps=num_inference_steps,
            use_resolution_binning=False,
        )

    pipeline.__class__ = type(plain.__name__, (plain,), {"__call__": call, "__module__": plain.__module__})


def seen_by(module: nn.Module) -> list[dict[str, Any]]:
    calls: list[dict[str, Any]] = []
    module.register_forward_pre_hook(lambda _, args, kwargs: calls.append(kwargs), with_kwargs=True)
    return calls


@pytest.mark.parametrize("family", TEXT)
def test_text_denoisers_are_trained_as_their_pipelines_call_them(monkeypatch: pytest.MonkeyPatch, family: str) -> None:
    entries = [tiny(name) for name in PAIRS[family]]
    one = student(monkeypatch, entries, entries[0].name)
    if family in ("sana", "pixart-sigma"):
        at_toy_size(one.pipeline)
    evaluations = (2, 1, 1, 1) if family == "stable-diffusion" else (1,) * 4
    spans = one.spans(((entries[1].name, 1), (entries[0].name, 3)), evaluations)
    conditions = Conditions(one.interview, CAPTIONS)
    recipe = one.recipe(spans, latents_like(latent_shape(one)), conditions, Options(batches=2).schedule)
    calls = seen_by(one.denoiser)
    loss = recipe.loss(torch.arange(4), torch.Generator().manual_seed(0))
    loss.backward()
    assert torch.isfinite(loss)
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in one.denoiser.parameters())
    call = calls[-1]  # those before were the pipeline's, stopped
    shown = call["timestep"].double() / recipe.time_unit
    ((after, upto),) = spans.each
    assert ((shown > after - 1e-3) & (shown <= upto + 1e-3)).all()
    embedded = call["encoder_hidden_states"]
    assert len(embedded) == 4
    # Of the same caption the same is told, of others something else.
    assert torch.equal(embedded[0], embedded[2])


@pytest.mark.parametrize("name", ["dit-s-256", "u-vit-h-256", "ldm-s-256"])
def test_class_conditional_denoisers_are_trained_on_the_mean(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    entry = toys.tiny(name)
    partner = toys.tiny("dit-xl-256" if name == "dit-s-256" else name)
    one = student(monkeypatch, [partner, entry] if partner.name != name else [entry], name)
    conditions = Conditions(one.interview, tuple(str(i) for i in range(4)))
    recipe = one.recipe(
        Spans(((-1.0, 99.0),), False), latents_like(latent_shape(one)), conditions, Options(batches=2).schedule
    )
    calls = seen_by(one.denoiser)
    recipe.loss(torch.arange(4), torch.Generator().manual_seed(3)).backward()
    told, drawn = calls[-1]["class_labels"].tolist(), list(range(4))
    assert all(label in (number, toys.NULL_CLASS) for label, number in zip(told, drawn, strict=True))
    assert calls[-1]["timestep"].max() <= 99
    dropped = conditions.of(torch.arange(4), torch.tensor([True, False, True, False]))
    assert dropped["class_labels"].tolist() == [toys.NULL_CLASS, 1, toys.NULL_CLASS, 3]


def test_learned_variance_is_left_out_of_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    one = student(monkeypatch, [toys.tiny("dit-s-256")], "dit-s-256")
    denoiser: Any = one.denoiser
    assert denoiser.config.out_channels == 8
    conditions = Conditions(one.interview, ("0",) * 4)
    recipe = one.recipe(Spans(((-1.0, 999.0),), False), latents_like(latent_shape(one)), conditions, Options().schedule)
    recipe.loss(torch.arange(4), torch.Generator().manual_seed(0)).backward()
    weight = denoiser.proj_out_2.weight.grad
    # Of every patch's 2 x 2 x 8 values, the last four channels' get no gradient.
    per_channel = weight.view(2, 2, 8, -1).abs().sum((0, 1, 3))
    assert (per_channel[:4] > 0).all()
    assert (per_channel[4:] == 0).all()


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_noise_and_targets_are_those_of_diffusers(prediction: Prediction) -> None:
    kind = Noise(prediction, "linear", 1e-4, 0.02)
    draw = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(3, 4, 8, 8, generator=draw), torch.randn(3, 4, 8, 8, generator=draw)
    t = torch.tensor([0, 500, 999])
    x, target = noised(x0, noise, t, kind, torch.from_numpy(levels(kind).copy()))
    theirs = DDPMScheduler(beta_schedule="linear", beta_start=1e-4, beta_end=0.02)
    assert torch.allclose(x, theirs.add_noise(x0, noise, t), atol=1e-4)
    wanted = {"epsilon": noise, "sample": x0, "v_prediction": theirs.get_velocity(x0, noise, t)}[prediction]
    assert torch.allclose(target, wanted, atol=1e-4)


def test_a_flow_is_trained_on_its_velocity() -> None:
    x0, noise = torch.ones(2, 1, 1, 1), torch.full((2, 1, 1, 1), 3.0)
    x, target = noised(x0, noise, torch.tensor([250.0, 1000.0]), Noise("flow"), None)
    assert x.flatten().tolist() == [1.5, 3.0]
    assert target.flatten().tolist() == [2.0, 2.0]


def test_a_lora_alone_is_trained_and_merges_into_the_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    entries = [tiny(name) for name in PAIRS["stable-diffusion"]]
    one = student(monkeypatch, entries, "sd14")
    before = {name: value.clone() for name, value in one.denoiser.state_dict().items()}
    adapter = Adapter(one.denoiser, rank=2, seed=0)
    conditions = Conditions(one.interview, CAPTIONS)
    latents = latents_like(latent_shape(one))
    recipe = one.recipe(Spans(((-1.0, 99.0),), False), latents, conditions, Options().schedule, adapter)
    assert sum(p.numel() for p in recipe.model.parameters()) < 0.2 * sum(v.numel() for v in before.values())
    optimizer = torch.optim.AdamW(recipe.model.parameters(), 0.01)
    for seed in range(2):
        recipe.loss(torch.arange(4), torch.Generator().manual_seed(seed)).backward()
        optimizer.step()
    assert adapter.save(one.pipeline, "unet", tmp_path)
    with torch.no_grad():
        adapted = recipe.loss(torch.arange(4), torch.Generator().manual_seed(9))
    adapter.merge()
    after = one.denoiser.state_dict()
    assert after.keys() == before.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(".to_" in name for name in changed)
    with torch.no_grad():
        merged = recipe.loss(torch.arange(4), torch.Generator().manual_seed(9))
    assert merged.item() == pytest.approx(adapted.item(), rel=1e-4)
    # The file is one that diffusers, and so `sample --lora`, reads into the denoiser as it was.
    one.denoiser.load_state_dict(before)
    one.pipeline.load_lora_weights(str(tmp_path))
    with torch.no_grad():
        read = recipe.loss(torch.arange(4), torch.Generator().manual_seed(9))
    assert read.item() == pytest.approx(adapted.item(), rel=1e-4)
