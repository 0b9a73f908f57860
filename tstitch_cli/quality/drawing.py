"""Draws what is missing of batches of pictures by several allocations, and keeps what is found out about them.

All allocations draw the same pictures, the noise of each coming from (seed, index) alone, batch by batch. What two of
them have in common at the beginning of the trajectory is computed once (prefixes.py); what was found out about every
batch of every allocation is kept (records.py), so work that was cut goes on where it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import nn

from tstitch_cli.allocation import collapse
from tstitch_cli.clocks import HostClock
from tstitch_cli.denoisers import Family
from tstitch_cli.errors import BadFileError
from tstitch_cli.fetching import hub
from tstitch_cli.measuring import fingerprint
from tstitch_cli.quality.features import Extractor
from tstitch_cli.quality.prefixes import SharedPrefixes, depth_first, nodes
from tstitch_cli.quality.records import Records, key
from tstitch_cli.quality.statistics import Described, joined
from tstitch_cli.trajectory import Batch, Trajectory, run

Progress = Callable[[str, float], None]
"""Told what runs now and which share of the work, in [0, 1], is done."""


class Scorer(Protocol):
    """A network that tells how well pictures fit their prompts."""

    @property
    def digest(self) -> str:
        """Of its weights."""

    def __call__(self, pictures: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        """(B,) scores of `pictures` (B, 3, H, W) uint8."""


class Keeper(Protocol):
    """Keeps the pictures that were drawn."""

    def has(self, name: str, batch: Batch) -> bool:
        """Whether those of `batch` by the allocation called `name` are kept already."""

    def keep(self, name: str, batch: Batch, trajectory: Trajectory) -> None:
        """Keeps them."""


@dataclass(frozen=True, eq=False)
class Drawing:
    """All batches of all allocations: what is missing is drawn, described and kept."""

    family: Family
    turns: Mapping[str, tuple[str, ...]]
    batches: Sequence[Batch]
    extractor: Extractor | None
    scorer: Scorer | None
    records: Records
    keeper: Keeper | None
    progress: Progress

    def draw(self) -> tuple[int, int, int]:
        """(evaluations made, evaluations saved, pictures drawn) of what was missing."""
        missing = [
            (batch, names) for batch in self.batches if (names := [n for n in self.turns if not self._has(n, batch)])
        ]
        self.records.clear(self._key(name, batch) for batch, names in missing for name in names)
        total = sum(self._cost_of(names) for _, names in missing)
        prefixes, drawn, done = SharedPrefixes(), 0, 0.0
        for batch, names in missing:
            prefixes.forget()
            seen: set[tuple[str, ...]] = set()
            for name in depth_first({name: self.turns[name] for name in names}):
                self.progress(f"pictures {batch.indices[0]} to {batch.indices[-1]}: {name}", done / total)
                trajectory = self._run(batch, name, prefixes)
                if self.keeper is not None:
                    self.keeper.keep(name, batch, trajectory)
                self.records.put(self._key(name, batch), self._describe(trajectory, batch))
                drawn += len(batch.indices)
                done += self._cost(name, seen)
        return prefixes.made, prefixes.saved, drawn

    def described(self, name: str) -> Described:
        """All pictures of one allocation, in order."""
        found: list[Described] = []
        for batch in self.batches:
            path, record = self.records.path(self._key(name, batch)), self.records.get(self._key(name, batch))
            if record is None:
                raise BadFileError(f"{path}: is gone or broken, though it was written", hint="run the same again")
            found.append(record)
        return joined(found)

    def _has(self, name: str, batch: Batch) -> bool:
        kept = self.keeper is None or self.keeper.has(name, batch)
        return kept and self.records.get(self._key(name, batch)) is not None

    @property
    def _shares(self) -> bool:
        """Caches remember earlier evaluations, which they would not see if those were not made."""
        return not self.family.setting.accelerate

    def _cost(self, name: str, seen: set[tuple[str, ...]]) -> float:
        """Parameters times the evaluations that `name` adds to those `seen`, which then has them: a measure of time."""
        fresh = nodes([self.turns[name]]) - seen
        if self._shares:
            seen |= fresh
        return float(sum(self._parameters[path[-1]] for path in fresh))

    def _cost_of(self, names: Sequence[str]) -> float:
        seen: set[tuple[str, ...]] = set()
        return sum(self._cost(name, seen) for name in names)

    @cached_property
    def _parameters(self) -> dict[str, int]:
        return {name: max(1, _parameters(model)) for name, model in self.family.denoisers.items()}

    def _run(self, batch: Batch, name: str, prefixes: SharedPrefixes) -> Trajectory:
        if not self._shares:
            prefixes.forget()
        with prefixes.trajectory(self.family.stitched):
            return run(self.family, batch, self.turns[name], HostClock())

    def _describe(self, trajectory: Trajectory, batch: Batch) -> Described:
        shown = pixels(trajectory.images)
        none = torch.zeros(len(shown), 0)
        features, probabilities, hits, clip = none, none, none, none
        if self.extractor is not None:
            made = self.extractor(shown)
            features = made.features.float().cpu()
            probabilities = none if made.probabilities is None else made.probabilities.float().cpu()
            hits = self.extractor.judge.hits(self.family.entries[0], batch.prompts, made.answers)
        if self.scorer is not None:
            clip = self.scorer(shown, batch.prompts).float().cpu()[:, None]
        return Described(features, probabilities, clip, hits)

    def _key(self, name: str, batch: Batch) -> str:
        """Of all that decides what is found out about the pictures of `batch` that `name` draws."""
        taking_part = sorted(set(self.turns[name]))
        return key(
            {
                "turns": collapse(self.turns[name]),
                "weights": {denoiser: self.family.weights[denoiser] for denoiser in taking_part},
                "extractor": self.extractor.digest if self.extractor is not None else None,
                "scorer": self.scorer.digest if self.scorer is not None else None,
                "prompts": batch.prompts,
                "indices": batch.indices,
                "seed": batch.seed,
                **self._common,
            }
        )

    @cached_property
    def _common(self) -> dict[str, Any]:
        family = self.family
        controls = {name: digest for name, digest in family.weights.items() if name not in family.denoisers}
        return {
            # How many are timed at once changes no picture; how many are drawn at once is in the indices.
            "setting": asdict(replace(family.setting, batch_size=1)),
            "host": [family.host.name, family.weights[family.host.name]],
            "parts": _digest_of_parts(family),
            "controls": controls,
            "loras": [asdict(lora) for lora in family.loras],
            "versions": fingerprint.versions(),
        }


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _digest_of_parts(family: Family) -> str:
    """Of the pipeline's other parts; those of a hub repository are known by the commit that `weights` has."""
    if hub.place(family.host.parts):
        return "hub"
    sha = hashlib.sha256()
    for name, part in sorted(family.pipeline.components.items()):
        if isinstance(part, nn.Module) and name != family.host.component:
            for place, tensor in sorted(part.state_dict().items()):
                sha.update(f"{name}.{place}".encode())
                sha.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()[:16]


def pixels(images: Sequence[Image.Image]) -> torch.Tensor:
    """(B, 3, H, W) uint8, as they would be saved."""
    return torch.from_numpy(np.stack([np.array(image.convert("RGB")) for image in images])).permute(0, 3, 1, 2)
