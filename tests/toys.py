"""Small stand-ins: tiny pipelines with random weights, and a clock that only moves when told to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from torch import nn

from tstitch_cli import schedulers
from tstitch_cli.denoisers import Family
from tstitch_cli.networks.class_conditional import ClassConditionalPipeline
from tstitch_cli.networks.models import model_class
from tstitch_cli.schema import Setting
from tstitch_cli.stitching import stitch
from tstitch_cli.zoo.entry import Component, Entry
from tstitch_cli.zoo.registry import Zoo

NULL_CLASS = 10


def tiny_vae(channels: int = 1) -> AutoencoderKL:
    torch.manual_seed(3)
    return AutoencoderKL(
        in_channels=channels,
        out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        latent_channels=4,
        norm_num_groups=4,
        sample_size=16,
    ).eval()


def tiny_dit(seed: int, *, depth: int = 1, classes: int = NULL_CLASS) -> DiTTransformer2DModel:
    torch.manual_seed(seed)
    return DiTTransformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=depth,
        num_attention_heads=2,
        attention_head_dim=8,
        num_embeds_ada_norm=classes,
        norm_num_groups=4,
    ).eval()


def tiny_unet(seed: int, **changes: Any) -> UNet2DConditionModel:
    torch.manual_seed(seed)
    given: dict[str, Any] = {
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "cross_attention_dim": 8,
        "attention_head_dim": 4,
        "norm_num_groups": 4,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }
    return UNet2DConditionModel(**(given | changes)).eval()


def tiny(name: str, **changes: Any) -> Entry:
    """The zoo's entry for an ImageNet denoiser with its architecture in small: 10 classes, 8 x 8 latents."""
    entry = Zoo.load().entries[name]
    assert entry.architecture is not None
    small: dict[str, Any] = {
        "DiTTransformer2DModel": {"num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 8},
        "UViTModel": {"num_layers": 4, "num_attention_heads": 2, "attention_head_dim": 8, "num_classes": NULL_CLASS},
        "LabelledUNet": {
            "num_classes": NULL_CLASS,
            "block_out_channels": [8, 16, 16],
            "attention_head_dim": [2, 4, 4],
            "cross_attention_dim": 8,
            "norm_num_groups": 4,
        },
    }
    small["DiTTransformer2DModel"]["num_embeds_ada_norm"] = NULL_CLASS
    small["OriginalDiT"] = small["DiTTransformer2DModel"]
    model = entry.architecture.model
    config = {**entry.architecture.config, "sample_size": 8, **small[model], **changes}
    vae = entry.components["vae"]
    levels = {"block_out_channels": [8, 8, 8, 16], "layers_per_block": 1, "norm_num_groups": 4, "sample_size": 64}
    codes = {"num_vq_embeddings": 16, "layers_per_block": 2} if vae.model == "VQModel" else {}
    return replace(
        entry,
        conditioning=replace(entry.conditioning, labels=entry.conditioning.labels[:NULL_CLASS]),
        defaults=replace(entry.defaults, size=64),
        architecture=Component(model, config),
        components={**entry.components, "vae": Component(vae.model, {**vae.config, **levels, **codes})},
    )


def built(component: Component, seed: int) -> Any:
    """A component with random weights."""
    torch.manual_seed(seed)
    return model_class(component.model)(**component.config).eval().requires_grad_(False)


def imagenet_pipeline(entry: Entry, denoiser: nn.Module) -> ClassConditionalPipeline:
    """The one class-conditional pipeline around an ImageNet denoiser, with the autoencoder of its entry."""
    scheduler = DDIMScheduler(**entry.components["scheduler"].config)
    parts = {entry.component: denoiser, "vae": built(entry.components["vae"], 3), "scheduler": scheduler}
    return _quiet(ClassConditionalPipeline(**parts))


def noise() -> DDIMScheduler:
    return DDIMScheduler(beta_schedule="linear", beta_start=1e-4, beta_end=0.02, clip_sample=False)


def class_pipeline(transformer: nn.Module) -> ClassConditionalPipeline:
    return _quiet(ClassConditionalPipeline(transformer=transformer, vae=tiny_vae(), scheduler=noise()))


def dit_pipeline(transformer: nn.Module) -> DiTPipeline:
    return _quiet(DiTPipeline(transformer=transformer, vae=tiny_vae(3), scheduler=noise()))


def sd_pipeline(unet: nn.Module) -> StableDiffusionPipeline:
    """Stable Diffusion without its text encoder: it is called with embeddings."""
    return _quiet(
        StableDiffusionPipeline(
            vae=tiny_vae(3),
            text_encoder=None,
            tokenizer=None,
            unet=unet,
            scheduler=noise(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    )


def text_parts(folder: Path) -> dict[str, Any]:
    """A CLIP text encoder and tokenizer of a few words."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(letter + "</w>" for letter in letters)]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=77,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77)
    return {"text_encoder": CLIPTextModel(config), "tokenizer": tokenizer}


def sd_folders(root: Path) -> Path:
    """`root` with `large` and `small`: whole Stable Diffusion pipelines whose U-Nets differ in width."""
    parts = text_parts(root)
    for name, unet in (("small", tiny_unet(1)), ("large", tiny_unet(2, block_out_channels=(32, 64)))):
        pipeline = sd_pipeline(unet)
        pipeline.register_modules(**parts)
        pipeline.save_pretrained(root / name)
    return root


def _quiet(pipeline: Any) -> Any:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


class FakeClock:
    """A clock that moves when a toy denoiser is called, by the seconds that denoiser takes."""

    def __init__(self) -> None:
        self.now = 0.0

    def mark(self) -> float:
        return self.now

    def seconds(self, marks: Sequence[float]) -> list[float]:
        return [b - a for a, b in pairwise(marks)]

    def charge(self, denoiser: nn.Module, seconds: float) -> None:
        """From now on every call of `denoiser` takes `seconds`."""
        denoiser.register_forward_pre_hook(lambda module, args: self.advance(seconds))

    def advance(self, seconds: float) -> None:
        self.now += seconds


def family(clock: FakeClock, costs: dict[str, float], *, scheduler: str = "ddim", steps: int = 10) -> Family:
    """A class-conditional family of tiny denoisers, smallest first, each call of which takes its `costs` seconds."""
    denoisers = {name: tiny_dit(i + 1, depth=i + 1) for i, name in enumerate(costs)}
    for name, denoiser in denoisers.items():
        clock.charge(denoiser, costs[name])
    host = list(costs)[-1]
    pipeline = class_pipeline(denoisers[host])
    pipeline.scheduler = schedulers.build(scheduler, pipeline.scheduler.config)
    stitched = stitch(pipeline, "transformer", denoisers, host)
    shipped = Zoo.load().entries["fashion-s"]
    entries = tuple(replace(shipped, name=name, source=f"folder:/toys/{name}") for name in costs)
    setting = Setting(steps, scheduler, 1.5, batch_size=2, size=16, dtype="float32", device="cpu")
    weights = {name: f"{i:016x}" for i, name in enumerate(costs)}
    return Family(entries, weights, denoisers, pipeline, stitched, setting, torch.device("cpu"))
