"""Where a family's parts are made: trained from a checkpoint on, put in their folders, recorded beside the weights."""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file, save_file

from tstitch_cli.training.loop import Progress, Recipe, Record, Schedule, train

RECORD = "training.yaml"


@dataclass(frozen=True)
class Workshop:
    """Weights go to `out`, checkpoints and latents to `work`."""

    out: Path
    work: Path
    fast: bool
    """bfloat16 and, where a recipe has it, torch.compile."""
    data: str
    """What the records say of the data."""

    def run(self, recipe: Recipe, progress: Progress) -> tuple[torch.nn.Module, Record]:
        """Trains `recipe` from where its checkpoint left it."""
        if self.fast:
            recipe.compile()
        return train(recipe, self.work / f"{recipe.name}.pt", fast=self.fast, progress=progress)

    def folder(self, part: str) -> Path:
        """An empty folder for `part`."""
        folder = self.out / part
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def write(self, folder: Path, record: Record, **more: Any) -> None:
        """Writes the RECORD: data, schedule, time, machine, final loss and loss curve."""
        facts = {
            **asdict(record),
            **more,
            "data": self.data,
            "precision": "bfloat16 autocast" if self.fast else "float32",
            "machine": f"{platform.machine()} CPU, {torch.get_num_threads()} threads, torch {torch.__version__}",
        }
        facts["schedule"]["betas"] = list(facts["schedule"]["betas"])
        (folder / RECORD).write_text(yaml.safe_dump(facts, sort_keys=False, default_flow_style=None))

    def record(self, part: str) -> dict[str, Any]:
        """What `write` wrote beside the weights of `part`."""
        found: dict[str, Any] = yaml.safe_load((self.out / part / RECORD).read_text())
        return found

    def keep(self, tensors: dict[str, torch.Tensor], name: str) -> None:
        """Keeps `tensors` in `work`, whole or not at all."""
        path = self.work / f"{name}.safetensors"
        partial = path.with_suffix(".partial")
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, partial)
        os.replace(partial, path)

    def kept(self, name: str) -> dict[str, torch.Tensor] | None:
        """What `keep` kept under `name`, if anything."""
        path = self.work / f"{name}.safetensors"
        return load_file(path) if path.exists() else None

    def forget(self, name: str) -> None:
        """Drops what `keep` kept under `name`."""
        (self.work / f"{name}.safetensors").unlink(missing_ok=True)


def half(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The weights of `model` in float16, as they are shipped."""
    return {k: v.to(torch.float16).contiguous() for k, v in model.state_dict().items()}


def shortened(schedules: dict[str, Schedule], share: float) -> dict[str, Schedule]:
    """`schedules` with that share of their batches (1.0: as shipped; small values try the command out)."""
    return {
        name: Schedule(**{**asdict(s), "batches": max(2, round(s.batches * share))}) for name, s in schedules.items()
    }
