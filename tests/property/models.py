"""The files of a model's folder that diffusers and transformers read when it is loaded."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import torch

from tests import toys
from tests.property import mutations
from tests.property.kinds import Kind
from tstitch_cli import components, schedulers
from tstitch_cli.zoo import folders

READ = (
    "model_index.json",
    "unet/config.json",
    "vae/config.json",
    "text_encoder/config.json",
    "scheduler/scheduler_config.json",
    "tokenizer/tokenizer.json",
    "tokenizer/tokenizer_config.json",
)


def _whole(name: str) -> Callable[[Path], list[bytes]]:
    return lambda folder: [(toys.sd_folders(folder) / "small" / name).read_bytes()]


def _load(name: str) -> Callable[[Path], object]:
    def load(path: Path) -> object:
        folder = path.parents[name.count("/")]
        whole = folder.parent / "seeds" / "small"
        for sound in whole.rglob("*.*"):
            beside = folder / sound.relative_to(whole)
            if not beside.exists():
                beside.parent.mkdir(exist_ok=True)
                shutil.copyfile(sound, beside)
        entry = folders.from_folder(folder)
        pipeline = components.pipeline(entry, components.denoiser(entry, torch.float32), torch.float32)
        return schedulers.build("ddim", pipeline.scheduler.config)

    return load


MODELS = {f"loaded {name}": Kind(_whole(name), mutations.json_file, name, _load(name), one_in=50) for name in READ}
