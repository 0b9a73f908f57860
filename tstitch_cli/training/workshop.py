"""Where a family's parts are made: trained from a checkpoint on, put in their folders, recorded beside the weights."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tstitch_cli.training.loop import Progress, Recipe, Record, Schedule, train

RECORD, WORK = "training.yaml", "work"
_DECISIVE = ("name", "schedule", "losses", "data", "precision")
"""What a record tells of the weights alone: the same however often and with however many threads it was written."""


@dataclass(frozen=True)
class Workshop:
    """Weights go to `out`, checkpoints and latents to `work`."""

    out: Path
    work: Path
    fast: bool
    """bfloat16 and, where a recipe has it, torch.compile."""
    data: str
    """What the records say of the data."""
    foundation: Callable[[str], Sequence[Path]]
    """The folders of the parts that the one so named rests on."""

    def run(self, recipe: Recipe, progress: Progress) -> tuple[torch.nn.Module, Record]:
        """Trains `recipe` from where its checkpoint left it, if it rested on the same parts and data then."""
        if self.fast:
            recipe.compile()
        basis = self.basis(self.foundation(recipe.name))
        return train(recipe, self._checkpoint(recipe.name), fast=self.fast, progress=progress, basis=basis)

    def begun(self, part: str) -> bool:
        """Whether the training of `part` has left a checkpoint here."""
        return self._checkpoint(part).is_file()

    def _checkpoint(self, part: str) -> Path:
        return self.work / f"{part}.pt"

    def basis(self, folders: Sequence[Path]) -> str:
        """Hexadecimal digits that tell apart what is trained with the parts in `folders`, on this data.

        By the course of the parts' losses and what decides it. Of a part that was trained further by what only it uses
        (an autoencoder's decoder), it is the record from before.
        """
        records = [yaml.safe_load((folder / RECORD).read_text()) for folder in folders]
        first = [record.get("before", record) for record in records]
        told = [self.data, *({name: record.get(name) for name in _DECISIVE} for record in first)]
        return hashlib.sha256(yaml.safe_dump(told).encode()).hexdigest()[:16]

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

    def kept(self, name: str, part: Path, make: Callable[[], dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """What `make` makes with the part in the folder `part`; kept in `work` for as long as that stays what it is."""
        path, basis = self.work / f"{name}.safetensors", self.basis([part])
        if path.exists():
            with safe_open(path, "pt") as file:
                same = (file.metadata() or {}).get("basis") == basis
            if same:
                return load_file(path)
        made, partial = make(), path.with_suffix(".partial")
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(made, partial, {"basis": basis})
        os.replace(partial, path)
        return made


def half(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The weights of `model` in float16, as they are shipped."""
    return {k: v.to(torch.float16).contiguous() for k, v in model.state_dict().items()}


def shortened(schedules: dict[str, Schedule], share: float) -> dict[str, Schedule]:
    """`schedules` with that share of their batches (1.0: as shipped; small values try the command out)."""
    return {
        name: Schedule(**{**asdict(s), "batches": max(2, round(s.batches * share))}) for name, s in schedules.items()
    }
