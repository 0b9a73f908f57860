"""Trains the tiny Stable Diffusion in order: what measures it, autoencoder, latents, text encoder and U-Nets."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from tstitch_cli.errors import UsageError
from tstitch_cli.images import contact_sheet, save_sheet
from tstitch_cli.quality.attributes import AttributeClassifier
from tstitch_cli.quality.captions import vocabulary, wordings
from tstitch_cli.quality.features import ClassifierFeatures
from tstitch_cli.training import measured_by
from tstitch_cli.training.adversarial import SharpeningRecipe
from tstitch_cli.training.attributes import AttributesRecipe, accuracy
from tstitch_cli.training.autoencoder import AutoencoderRecipe, Shape, encode_all, scale_of
from tstitch_cli.training.captioned import ALL, SEEN, UNSEEN, BothStyles, Captioned
from tstitch_cli.training.contrastive import ContrastiveRecipe, retrieval
from tstitch_cli.training.distillation import DistillationRecipe
from tstitch_cli.training.garments import SIDE
from tstitch_cli.training.latent_consistency import ConsistencyRecipe
from tstitch_cli.training.loop import Progress, Recipe, Record, Schedule
from tstitch_cli.training.outline import CAPTION_DROPOUT, OutlineRecipe
from tstitch_cli.training.text_to_image import (
    NOISE,
    CaptionTable,
    Examples,
    FinetuneRecipe,
    TextToImage,
    TextToImageRecipe,
    UNetShape,
)
from tstitch_cli.training.vocabulary import write_tokenizer
from tstitch_cli.training.workshop import Workshop, half, shortened

PICTURES = 60_000
INKED = 600
"""Drawings that the stylised model is finetuned on: few, as of a style that somebody drew by hand."""
AUTOENCODER = Shape(channels=3, side=SIDE, widths=(16, 32, 64, 96), groups=8)
LARGE = "tiny-sd"
SHAPES = {
    "tiny-sd": UNetShape(layers=3),
    "tiny-sd-base": UNetShape(layers=1),
    "tiny-sd-small": UNetShape(layers=1, widths=(64, 96), outer_attention=False),
}
SCHEDULES = {
    "tiny-sd-classifier": Schedule(
        batches=3000, batch_size=96, learning_rate=2e-3, warmup=100, weight_decay=0.02, ema_decay=0.995
    ),
    "tiny-sd-clip": Schedule(
        batches=2000, batch_size=128, learning_rate=1e-3, warmup=100, weight_decay=0.02, ema_decay=0.995, hold=0.3
    ),
    "tiny-sd-autoencoder": Schedule(
        batches=7500, batch_size=32, learning_rate=1e-3, warmup=100, weight_decay=0.0, ema_decay=0.998, hold=0.5
    ),
    "tiny-sd-sharper": Schedule(
        batches=4000, batch_size=32, learning_rate=3e-4, warmup=100, weight_decay=0.0, ema_decay=0.998, hold=0.5
    ),
    "tiny-sd": Schedule(batches=6000, batch_size=128, learning_rate=1e-3, warmup=300, ema_decay=0.999, hold=0.7),
    "tiny-sd-base": Schedule(batches=2500, batch_size=128, learning_rate=1e-3, hold=0.5),
    "tiny-sd-small": Schedule(batches=5000, batch_size=128, learning_rate=1e-3, hold=0.5),
    "tiny-sd-ink": Schedule(batches=1500, batch_size=64, learning_rate=3e-4, warmup=50, ema_decay=0.998),
    "tiny-sd-lcm": Schedule(batches=1500, batch_size=64, learning_rate=2e-4, ema_decay=0.998, hold=0.5),
    "tiny-sd-small-lcm": Schedule(batches=3000, batch_size=64, learning_rate=4e-4, ema_decay=0.998, hold=0.5),
    "tiny-sd-outline": Schedule(batches=2500, batch_size=64, learning_rate=1e-3, warmup=50, ema_decay=0.998, hold=0.5),
}
_DENOISER = ("tiny-sd-sharper", LARGE)
RESTS_ON = {
    "tiny-sd-classifier": (),
    "tiny-sd-clip": (),
    "tiny-sd-autoencoder": ("tiny-sd-classifier",),
    "tiny-sd-sharper": ("tiny-sd-classifier", "tiny-sd-autoencoder"),
    LARGE: ("tiny-sd-sharper",),
    **dict.fromkeys(("tiny-sd-base", "tiny-sd-small", "tiny-sd-ink", "tiny-sd-lcm", "tiny-sd-outline"), _DENOISER),
    "tiny-sd-small-lcm": ("tiny-sd-sharper", "tiny-sd-small"),
}
"""What each part is trained with."""
MADE_WITH = {LARGE: ("text_encoder",)}
"""Folders besides its own that a part is in."""


class TinySD:
    """The parts of the family under `out`, with checkpoints and latents under `work`."""

    def __init__(self, data: Path, out: Path, work: Path, *, fast: bool, shorten: float = 1.0) -> None:
        """`shorten` scales every schedule and the number of pictures (small values try the command out)."""
        self.data, self.schedules = data, shortened(SCHEDULES, shorten)
        self.pictures = Captioned(data, "train", max(8, round(PICTURES * shorten)))
        facts = f"{len(self.pictures)} captioned pictures of {SIDE} px, made from Fashion-MNIST's training pictures"
        self.shop = Workshop(out, work, fast, facts, lambda part: [self.folder_of(each) for each in RESTS_ON[part]])

    def train(self, parts: Iterable[str], progress: Callable[[str], Progress]) -> None:
        """Trains `parts` in the order given; what they rest on must be there or among the earlier ones."""
        for part in parts:
            if part == "tiny-sd-classifier":
                self._classifier(progress(part))
            elif part == "tiny-sd-clip":
                self._clip(progress(part))
            elif part == "tiny-sd-autoencoder":
                self._autoencoder(progress(part))
            elif part == "tiny-sd-sharper":
                self._sharper(progress(part))
            elif part == LARGE:
                self._large(progress(part))
            elif part == "tiny-sd-ink":
                self._inked(part, progress(part))
            elif part == "tiny-sd-outline":
                self._steered(part, progress(part))
            elif part.endswith("-lcm"):
                self._few_steps(part, progress(part))
            else:
                self._distilled(part, progress(part))

    def _classifier(self, progress: Progress) -> None:
        recipe = AttributesRecipe(*self._all_combinations(), self.schedules["tiny-sd-classifier"])
        model, record = self.shop.run(recipe, progress)
        assert isinstance(model, AttributeClassifier)
        folder = self.shop.folder("classifier")
        save_file(half(model), folder / "model.safetensors")
        count = min(2000, len(self.pictures))
        test = {
            style: accuracy(model, Captioned(self.data, "test", count, combinations=ALL, inked=style == "ink"))
            for style in ("photo", "ink")
        }
        self.shop.write(folder, record, test_accuracy=test)
        extractor = ClassifierFeatures("tiny-sd", file=folder / "model.safetensors")
        measured_by.write(self.data, self.shop.out, extractor, len(self.pictures))

    def _clip(self, progress: Progress) -> None:
        table = CaptionTable(self._tokenizer())
        recipe = ContrastiveRecipe(*self._all_combinations(), table, self.schedules["tiny-sd-clip"])
        model, record = self.shop.run(recipe, progress)
        count = min(2000, len(self.pictures))
        found = {
            name: round(retrieval(model, Captioned(self.data, "test", count, combinations=name), table), 4)
            for name in (SEEN, UNSEEN)
        }
        folder = self.shop.folder("clip")
        write_tokenizer(vocabulary(), folder)
        model.to(torch.float16).save_pretrained(folder)  # type: ignore[operator]
        self.shop.write(folder, record, test_retrieval=found, captions=len(table.first))

    def _all_combinations(self) -> tuple[Captioned, Captioned]:
        """Photographs and drawings of every combination, for what is to judge those of a generator."""
        photos, inked = (
            Captioned(self.data, "train", len(self.pictures), combinations=ALL, inked=style) for style in (False, True)
        )
        return photos, inked

    def _autoencoder(self, progress: Progress) -> None:
        model, record = self.shop.run(self._plain_autoencoder(), progress)
        assert isinstance(model, AutoencoderKL)
        with torch.no_grad():
            sample = encode_all(model, Captioned(self.data, "train", min(2000, len(self.pictures))))
        model.register_to_config(scaling_factor=scale_of(sample))
        self._keep_autoencoder(model, record)
        self._write_pipeline()

    def _sharper(self, progress: Progress) -> None:
        plain, blurry = self._plain_autoencoder(), self.autoencoder()
        plain.model.load_state_dict(blurry.state_dict())
        plain.model.register_to_config(scaling_factor=blurry.config.scaling_factor)
        recipe = SharpeningRecipe("tiny-sd-sharper", plain, self.schedules["tiny-sd-sharper"])
        found = self.shop.record("vae")
        if found["name"] == recipe.name and not self.shop.begun(recipe.name):
            raise UsageError(
                f"the autoencoder in {self.shop.out} is sharpened already", hint="train tiny-sd-autoencoder first"
            )
        before = found.get("before", found)
        model, record = self.shop.run(recipe, progress)
        assert isinstance(model, nn.ModuleDict)
        sharper = model["autoencoder"]
        assert isinstance(sharper, AutoencoderKL)
        self._keep_autoencoder(sharper, record, before=before)

    def _plain_autoencoder(self) -> AutoencoderRecipe:
        inked = Captioned(self.data, "train", len(self.pictures), inked=True)
        # Unlike the other family's, this one is faster with the features outermost.
        recipe = AutoencoderRecipe(
            BothStyles(self.pictures, inked),
            self.classifier(),
            self.schedules["tiny-sd-autoencoder"],
            AUTOENCODER,
            torch.contiguous_format,
        )
        recipe.name = "tiny-sd-autoencoder"
        return recipe

    def _keep_autoencoder(self, model: AutoencoderKL, record: Record, **more: Any) -> None:
        """Puts the autoencoder in its folder, with what it makes of test pictures."""
        folder = self.shop.folder("vae")
        model.to(torch.float16).save_pretrained(folder)
        test = self._test()
        shown = test.batch(torch.arange(min(500, len(test))))
        with torch.no_grad():
            shipped = self.autoencoder()
            error = (shipped.decode(shipped.encode(shown).latent_dist.mode()).sample - shown).square().mean()
        scale = model.config.scaling_factor
        self.shop.write(folder, record, test_mean_squared_error=round(error.item(), 5), scaling_factor=scale, **more)

    def _large(self, progress: Progress) -> None:
        recipe = TextToImageRecipe(LARGE, SHAPES[LARGE], self.schedules[LARGE], self._examples())
        model, record = self.shop.run(recipe, progress)
        assert isinstance(model, TextToImage)
        model.encoder.to(torch.float16).save_pretrained(self.shop.folder("text_encoder"))
        folder = self.shop.folder(LARGE)
        model.unet.to(torch.float16).save_pretrained(folder / "unet")
        self.shop.write(folder, record, shape=_plain(SHAPES[LARGE]))

    def _distilled(self, name: str, progress: Progress) -> None:
        recipe = DistillationRecipe(name, SHAPES[name], self.schedules[name], self._examples(), self._trained(LARGE))
        self._unet(recipe, progress, shape=_plain(SHAPES[name]), distilled_from=LARGE)

    def _inked(self, name: str, progress: Progress) -> None:
        drawings = Captioned(self.data, "train", min(INKED, len(self.pictures)), inked=True)
        recipe = FinetuneRecipe(name, self.schedules[name], self._examples_of(drawings), self._trained(LARGE))
        self._unet(recipe, progress, finetuned_from=LARGE, drawings=len(drawings))

    def _few_steps(self, name: str, progress: Progress) -> None:
        teacher = name.removesuffix("-lcm")
        recipe = ConsistencyRecipe(name, self.schedules[name], self._examples(), self._trained(teacher))
        self._unet(recipe, progress, distilled_from=teacher)

    def _steered(self, name: str, progress: Progress) -> None:
        recipe = OutlineRecipe(name, self.schedules[name], self._examples(), self.pictures, self._trained(LARGE))
        model, record = self.shop.run(recipe, progress)
        assert isinstance(model, nn.ModuleDict)
        folder = self.shop.folder(name)
        net = model["net"]
        net.to(torch.float16).save_pretrained(folder)  # type: ignore[operator]
        parameters = sum(each.numel() for each in net.parameters())
        self.shop.write(folder, record, parameters=parameters, steers=LARGE, caption_dropout=CAPTION_DROPOUT)

    def _unet(self, recipe: Recipe, progress: Progress, **facts: Any) -> None:
        """Trains a U-Net by `recipe` and puts it in its folder."""
        model, record = self.shop.run(recipe, progress)
        folder = self.shop.folder(recipe.name)
        model.to(torch.float16).save_pretrained(folder / "unet")  # type: ignore[operator]
        self.shop.write(folder, record, **facts)

    def _trained(self, name: str) -> TextToImage:
        """A trained U-Net with the text encoder, in float32."""
        from transformers import CLIPTextModel

        unet = UNet2DConditionModel.from_pretrained(self.shop.out / name / "unet", torch_dtype=torch.float32)
        encoder = CLIPTextModel.from_pretrained(self.shop.out / "text_encoder", dtype=torch.float32)
        return TextToImage(unet.to(memory_format=torch.channels_last), encoder)

    def _write_pipeline(self) -> None:
        """The parts of the pipeline that need no training."""
        scheduler = PNDMScheduler(**NOISE, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1)
        scheduler.register_to_config(clip_sample=False)  # for samplers that would clip, as Stable Diffusion has it
        scheduler.save_pretrained(self.shop.out / "scheduler")
        self._tokenizer()
        parts = {
            "_class_name": "StableDiffusionPipeline",
            "feature_extractor": [None, None],
            "image_encoder": [None, None],
            "requires_safety_checker": False,
            "safety_checker": [None, None],
            "scheduler": ["diffusers", "PNDMScheduler"],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        }
        (self.shop.out / "model_index.json").write_text(json.dumps(parts, indent=2) + "\n")

    def classifier(self) -> AttributeClassifier:
        """The trained classifier, in float32."""
        model = AttributeClassifier()
        model.load_state_dict(load_file(self.shop.out / "classifier" / "model.safetensors"))
        return model.float().eval()

    def autoencoder(self) -> AutoencoderKL:
        """The trained autoencoder, in float32."""
        return AutoencoderKL.from_pretrained(self.shop.out / "vae", torch_dtype=torch.float32).eval()

    def _tokenizer(self) -> Any:
        return write_tokenizer(vocabulary(), self.shop.out / "tokenizer")

    def _test(self) -> Captioned:
        return Captioned(self.data, "test", min(2000, len(self.pictures)))

    def _examples(self) -> Examples:
        """Scaled latents of every picture, made once from the shipped autoencoder, with what the pictures show."""
        place = self.folder_of("tiny-sd-autoencoder")
        latents = self.shop.kept("tiny-sd-latents", place, lambda: self._latents_of(self.pictures))
        return self._examples_of(self.pictures, latents)

    def _examples_of(self, pictures: Captioned, latents: dict[str, torch.Tensor] | None = None) -> Examples:
        table = CaptionTable(self._tokenizer())
        scenes = torch.tensor([table.number_of(pictures.scene(i)) for i in range(len(pictures))])
        return Examples(latents or self._latents_of(pictures), scenes, table)

    def _latents_of(self, pictures: Captioned) -> dict[str, torch.Tensor]:
        model = self.autoencoder()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.shop.fast):
            found = encode_all(model, pictures, batch_size=100)
        return {name: tensor.float() * model.config.scaling_factor for name, tensor in found.items()}

    def folder_of(self, part: str) -> Path:
        """Where the weights of `part` go."""
        names = {
            "tiny-sd-classifier": "classifier",
            "tiny-sd-clip": "clip",
            "tiny-sd-autoencoder": "vae",
            "tiny-sd-sharper": "vae",
        }
        return self.shop.out / names.get(part, part)


def _plain(shape: UNetShape) -> dict[str, Any]:
    return {**asdict(shape), "widths": list(shape.widths)}


def draw_sheet(data: Path, path: Path, rows: int = 6, columns: int = 6) -> None:
    """Writes a sheet of the first captioned pictures of training, each over the first of its captions.

    Raises BadFileError where `path` cannot be written.
    """
    pictures = Captioned(data, "train", rows * columns)
    drawn = [Image.fromarray(each.permute(1, 2, 0).numpy()) for each in pictures.pixels(torch.arange(len(pictures)))]
    captions = [wordings(pictures.scene(i))[1] for i in range(len(pictures))]
    starts = range(0, len(pictures), columns)
    sheet = contact_sheet([drawn[i : i + columns] for i in starts], [], [], [captions[i : i + columns] for i in starts])
    save_sheet(path, sheet, overwrite=True)
