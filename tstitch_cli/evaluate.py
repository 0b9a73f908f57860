"""The stage that measures: allocations and prompts -> metrics of what they draw, each with its interval.

All allocations draw the same pictures, the noise of each coming from (seed, index) alone, batch by batch. What two of
them have in common at the beginning of the trajectory is computed once (prefixes.py); what was found out about every
batch of every allocation is kept (records.py), so work that was cut goes on where it was.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import nn

from tstitch_cli import fingerprint, hub, statistics
from tstitch_cli.allocation import Allocation, collapse, per_evaluation
from tstitch_cli.clocks import HostClock
from tstitch_cli.denoisers import Family
from tstitch_cli.errors import BadFileError, StaleError, UsageError
from tstitch_cli.features import Extractor
from tstitch_cli.manifolds import MOST_POINTS, precision_and_recall
from tstitch_cli.prefixes import SharedPrefixes, depth_first, nodes
from tstitch_cli.records import Records, key
from tstitch_cli.references import Reference
from tstitch_cli.schema import RANDOM_WEIGHTS, Evaluation, Measured
from tstitch_cli.statistics import Described, Sums, frechet, jackknifed, joined
from tstitch_cli.trajectory import Batch, Trajectory, run
from tstitch_cli.zoo.entry import class_numbers

Progress = Callable[[str, float], None]
"""Told what runs now and which share of the work, in [0, 1], is done."""
PIXELS_AT_ONCE = 2**21
MOST_AT_ONCE = 100


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


@dataclass(frozen=True)
class Evaluated:
    """What was measured of each allocation, by its name and the metric's, and what it cost."""

    measured: dict[str, dict[str, Measured]]
    evaluation: Evaluation
    made: int
    """Evaluations that a denoiser made."""
    saved: int
    """Evaluations that were shared with another allocation; those of earlier runs are in neither."""
    drawn: int
    """Pictures that were drawn; the others were found described."""
    described: dict[str, Described]
    """What all of that was measured from, by the allocation's name: picture by picture, in order."""


def evaluate(
    family: Family,
    allocations: Mapping[str, Allocation],
    prompts: Sequence[str],
    *,
    seed: int,
    count: int,
    extractor: Extractor,
    reference: Reference | None,
    work: Path,
    first: int = 0,
    batch_size: int | None = None,
    counts: Sequence[int] | None = None,
    scorer: Scorer | None = None,
    metrics: Sequence[str] | None = None,
    keeper: Keeper | None = None,
    progress: Progress = lambda doing, share: None,
) -> Evaluated:
    """Measures the pictures `first` ... `first + count - 1` of `seed` as each of `allocations` (by name) draws them.

    Picture i has prompt i modulo their number. `counts` (T,) are the evaluations of each step, one each unless given;
    `batch_size` is what is drawn at once, see `batch_size_for`. Without a `reference` nothing is compared; `scorer`
    gives the CLIP score. `metrics` are all that can be measured unless given.

    Raises:
        UsageError: a metric cannot be measured with what is given, there are too few pictures, or what
            `trajectory.run` raises.
        StaleError: the weights are random.
        BadFileError: `work` cannot be written to.
        DeviceError: memory runs out.
    """
    if count < statistics.FEWEST:
        raise UsageError(
            f"{count} pictures are too few to measure anything by",
            hint=f"an interval takes {statistics.FEWEST} at least, a meaning some hundreds",
        )
    if RANDOM_WEIGHTS in family.weights.values():
        raise StaleError(
            "these denoisers have random weights: they are there to be timed and draw nothing",
            hint="load them without random_weights",
        )
    possible = measurable(family, extractor, reference, scorer)
    wanted = tuple(possible if metrics is None else metrics)
    for name in wanted:
        if name not in possible:
            raise UsageError(f"{name} cannot be measured here", hint=f"these can: {', '.join(possible)}")
    counts = counts if counts is not None else (1,) * family.setting.taken
    drawing = _Drawing(
        family=family,
        turns={name: per_evaluation(allocation, counts) for name, allocation in allocations.items()},
        allocations=allocations,
        batches=_batches(prompts, seed, first, count, batch_size or batch_size_for(family)),
        extractor=extractor,
        scorer=scorer if "clip" in wanted else None,
        records=Records(work),
        keeper=keeper,
        progress=progress,
    )
    made, saved, drawn = drawing.draw()
    described = {name: drawing.described(name) for name in allocations}
    measured = {}
    for number, name in enumerate(allocations):
        progress(f"measuring {name}", number / len(allocations))
        measured[name] = _measure(described[name], reference, wanted)
    asked = [prompt for batch in drawing.batches for prompt in batch.prompts]
    evaluation = Evaluation(
        features=extractor.name,
        reference=reference.digest if reference is not None else "none",
        prompts=digest_of_prompts(asked),
        pictures=count,
        seed=seed,
    )
    return Evaluated(measured, evaluation, made, saved, drawn, described)


def measurable(
    family: Family, extractor: Extractor, reference: Reference | None, scorer: Scorer | None
) -> tuple[str, ...]:
    """The metrics that can be measured, in the order of `metrics.METRICS`."""
    conditioning = family.entries[0].conditioning
    possible = {
        "fid": reference is not None,
        "is": extractor.classes > 0,
        "precision": reference is not None and reference.manifold is not None,
        "recall": reference is not None and reference.manifold is not None,
        "clip": scorer is not None and conditioning.kind == "text",
        "accuracy": extractor.classes_asked and conditioning.kind == "class",
    }
    return tuple(name for name, can in possible.items() if can)


def batch_size_for(family: Family) -> int:
    """How many pictures are drawn at once: those of the setting, or more where they are small."""
    return max(family.setting.batch_size, min(MOST_AT_ONCE, PIXELS_AT_ONCE // family.setting.size**2))


def digest_of_prompts(prompts: Sequence[str]) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of prompts in their order."""
    return hashlib.sha256("\n".join(prompts).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def pixels(images: Sequence[Image.Image]) -> torch.Tensor:
    """(B, 3, H, W) uint8, as they would be saved."""
    return torch.from_numpy(np.stack([np.array(image.convert("RGB")) for image in images])).permute(0, 3, 1, 2)


def _batches(prompts: Sequence[str], seed: int, first: int, count: int, size: int) -> list[Batch]:
    """Whole batches count from `first`, so that more pictures later begin with the same batches."""
    ends = [*range(first, first + count, size), first + count]
    return [
        Batch(tuple(prompts[i % len(prompts)] for i in range(a, b)), tuple(range(a, b)), seed)
        for a, b in itertools.pairwise(ends)
    ]


@dataclass(frozen=True, eq=False)
class _Drawing:
    """All batches of all allocations: what is missing is drawn, described and kept."""

    family: Family
    turns: Mapping[str, tuple[str, ...]]
    allocations: Mapping[str, Allocation]
    batches: Sequence[Batch]
    extractor: Extractor
    scorer: Scorer | None
    records: Records
    keeper: Keeper | None
    progress: Progress

    def draw(self) -> tuple[int, int, int]:
        """(evaluations made, evaluations saved, pictures drawn) of what was missing."""
        missing = [
            (batch, names) for batch in self.batches if (names := [n for n in self.turns if not self._has(n, batch)])
        ]
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
        made = self.extractor(shown)
        none = torch.zeros(len(shown), 0)
        probabilities = none if made.probabilities is None else made.probabilities.float().cpu()
        hits, clip = none, none
        if self.extractor.classes_asked and self.family.entries[0].conditioning.kind == "class":
            asked = torch.tensor(class_numbers(self.family.entries[0], batch.prompts))
            hits = (probabilities.argmax(1) == asked).float()[:, None]
        if self.scorer is not None:
            clip = self.scorer(shown, batch.prompts).float().cpu()[:, None]
        return Described(made.features.float().cpu(), probabilities, clip, hits)

    def _key(self, name: str, batch: Batch) -> str:
        """Of all that decides what is found out about the pictures of `batch` that `name` draws."""
        taking_part = sorted(set(self.turns[name]))
        return key(
            {
                "turns": collapse(self.turns[name]),
                "weights": {denoiser: self.family.weights[denoiser] for denoiser in taking_part},
                "extractor": self.extractor.digest,
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


def _measure(described: Described, reference: Reference | None, wanted: Sequence[str]) -> dict[str, Measured]:
    """The metrics `wanted` of the pictures `described`."""
    parts = [Sums.of(described[part]) for part in statistics.subsets(len(described))]
    found: dict[str, Measured] = {}
    if "fid" in wanted and reference is not None:
        gaussian = reference.gaussian
        found["fid"] = jackknifed(parts, lambda sums: frechet(gaussian, sums.gaussian), 0.0)
    if "is" in wanted:
        found["is"] = jackknifed(parts, lambda sums: sums.inception_score, 1.0)
    if {"precision", "recall"} & set(wanted) and reference is not None and reference.manifold is not None:
        points = described.features[:MOST_POINTS]
        both = precision_and_recall(reference.manifold, points, statistics.subsets(len(points)))
        found |= dict(zip(("precision", "recall"), both, strict=True))
    if "clip" in wanted:
        found["clip"] = jackknifed(parts, lambda sums: sums.clip / sums.count, 0.0)
    if "accuracy" in wanted:
        found["accuracy"] = jackknifed(parts, lambda sums: sums.hits / sums.count, 0.0, 1.0)
    return {name: found[name] for name in wanted}
