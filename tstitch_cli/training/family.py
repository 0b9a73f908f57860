"""Trains the Fashion-MNIST family: classifier, autoencoder, latents, denoisers; each part is kept once done."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler
from safetensors.torch import load_file, save_file

from tstitch_cli.quality import references
from tstitch_cli.quality.classifier import Classifier
from tstitch_cli.quality.features import ClassifierFeatures
from tstitch_cli.training import fashion_mnist
from tstitch_cli.training.autoencoder import AutoencoderRecipe, encode_all, scale_of
from tstitch_cli.training.classifier import ClassifierRecipe
from tstitch_cli.training.denoiser import NOISE, DenoiserRecipe, Size
from tstitch_cli.training.loop import Progress, Schedule
from tstitch_cli.training.workshop import Workshop, half, shortened

SIZES = {
    "fashion-s": Size(width=96, depth=3, heads=3),
    "fashion-b": Size(width=160, depth=6, heads=4),
    "fashion-xl": Size(width=256, depth=10, heads=4),
}
SCHEDULES = {
    "classifier": Schedule(batches=2400, batch_size=256, learning_rate=2e-3, weight_decay=0.02, ema_decay=0.998),
    "autoencoder": Schedule(
        batches=1200, batch_size=64, learning_rate=1e-3, warmup=100, weight_decay=0.0, ema_decay=0.998
    ),
    "fashion-s": Schedule(batches=5000, batch_size=256, learning_rate=1e-3),
    "fashion-b": Schedule(batches=7000, batch_size=256, learning_rate=1e-3),
    "fashion-xl": Schedule(batches=8000, batch_size=256, learning_rate=7e-4),
}
RESTS_ON = {"classifier": (), "autoencoder": ("classifier",), **dict.fromkeys(SIZES, ("autoencoder",))}
"""What each part is trained with."""
MADE_WITH: dict[str, tuple[str, ...]] = {}
"""Folders besides its own that a part is in."""
REFERENCE_POINTS = 5000


class Family:
    """The parts of the Fashion-MNIST family under `out`, with checkpoints and latents under `work`."""

    def __init__(self, data: Path, out: Path, work: Path, *, fast: bool, shorten: float = 1.0) -> None:
        """`shorten` scales every schedule (1.0: as shipped; small values try the command out)."""
        self.data, self.schedules = data, shortened(SCHEDULES, shorten)
        self.pictures = fashion_mnist.load(data, "train")
        facts = f"Fashion-MNIST, {len(self.pictures)} training pictures, 28 px padded to 32 px"
        self.shop = Workshop(out, work, fast, facts, lambda part: [self.folder_of(each) for each in RESTS_ON[part]])

    def train(self, parts: Iterable[str], progress: Callable[[str], Progress]) -> None:
        """Trains `parts` in the order given; what they rest on must be there or among the earlier ones."""
        for part in parts:
            if part == "classifier":
                self._classifier(progress(part))
            elif part == "autoencoder":
                self._autoencoder(progress(part))
            else:
                self._denoiser(part, progress(part))

    def _classifier(self, progress: Progress) -> None:
        model, record = self.shop.run(ClassifierRecipe(self.pictures, self.schedules["classifier"]), progress)
        test = fashion_mnist.load(self.data, "test")
        with torch.no_grad():
            right = model(test.batch(torch.arange(len(test)))).argmax(1) == test.labels
        folder = self.shop.folder("classifier")
        save_file(half(model), folder / "model.safetensors")
        self._write_reference(test.pixels)
        self.shop.write(folder, record, test_accuracy=round(right.float().mean().item(), 4))

    def _autoencoder(self, progress: Progress) -> None:
        recipe = AutoencoderRecipe(self.pictures, self.classifier(), self.schedules["autoencoder"])
        model, record = self.shop.run(recipe, progress)
        assert isinstance(model, AutoencoderKL)
        latents = encode_all(model, self.pictures)
        scale = scale_of(latents)
        model.register_to_config(scaling_factor=scale)
        folder = self.shop.folder("vae")
        model.to(torch.float16).save_pretrained(folder, variant=None)
        self._write_pipeline()
        held_out = fashion_mnist.load(self.data, "test")
        test = held_out.batch(torch.arange(min(2000, len(held_out))))
        with torch.no_grad():
            shipped = self.autoencoder()
            error = (shipped.decode(shipped.encode(test).latent_dist.mode()).sample - test).square().mean()
        self.shop.write(folder, record, test_mean_squared_error=round(error.item(), 5), scaling_factor=scale)

    def _denoiser(self, name: str, progress: Progress) -> None:
        recipe = DenoiserRecipe(name, SIZES[name], self.schedules[name], self._latents(), self.pictures.labels)
        model, record = self.shop.run(recipe, progress)
        folder = self.shop.folder(name)
        model.to(torch.float16).save_pretrained(folder / "transformer")  # type: ignore[operator]
        self.shop.write(folder, record, size=asdict(SIZES[name]))

    def _write_reference(self, pixels: torch.Tensor) -> None:
        """What `tstitch evaluate` compares with: the statistics of the test pictures (N, 1, 32, 32) in the classifier's
        features, and the features of the first of them for precision and recall.
        """
        extractor = ClassifierFeatures("fashion", file=self.shop.out / "classifier" / "model.safetensors")
        reference = references.of_pictures(pixels.expand(-1, 3, -1, -1), extractor)
        references.write(self.shop.out / "reference.npz", reference, extractor, points=REFERENCE_POINTS, overwrite=True)

    def _write_pipeline(self) -> None:
        """The parts of the pipeline that need no training: the noise schedule, and the list of components."""
        DDIMScheduler(**NOISE, clip_sample=False).save_pretrained(self.shop.out / "scheduler")
        parts = {
            "_class_name": "ClassConditionalPipeline",
            "scheduler": ["diffusers", "DDIMScheduler"],
            "transformer": ["diffusers", "DiTTransformer2DModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        }
        (self.shop.out / "model_index.json").write_text(json.dumps(parts, indent=2) + "\n")

    def classifier(self) -> Classifier:
        """The trained classifier, in float32."""
        model = Classifier()
        model.load_state_dict(load_file(self.shop.out / "classifier" / "model.safetensors"))
        return model.float().eval()

    def autoencoder(self) -> AutoencoderKL:
        """The trained autoencoder, in float32."""
        return AutoencoderKL.from_pretrained(self.shop.out / "vae", torch_dtype=torch.float32).eval()

    def _latents(self) -> dict[str, torch.Tensor]:
        """Scaled latents of every picture, made once from the shipped autoencoder."""

        def made() -> dict[str, torch.Tensor]:
            model = self.autoencoder()
            return {k: v * model.config.scaling_factor for k, v in encode_all(model, self.pictures).items()}

        return self.shop.kept("latents", self.folder_of("autoencoder"), made)

    def folder_of(self, part: str) -> Path:
        """Where the weights of `part` go."""
        return self.shop.out / ("vae" if part == "autoencoder" else part)
