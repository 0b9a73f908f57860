"""The stage that draws: a row of a plan and prompts -> pictures, with predicted against actual time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from tstitch_cli import components, fingerprint, known_steps
from tstitch_cli.allocation import Allocation, per_evaluation, runs, whole_steps
from tstitch_cli.clocks import Clock
from tstitch_cli.denoisers import Family
from tstitch_cli.errors import StaleError, UsageError
from tstitch_cli.images import save_picture
from tstitch_cli.provenance import Provenance
from tstitch_cli.schema import RANDOM_WEIGHTS, Plan, PlannedDenoiser, Row, Setting
from tstitch_cli.trajectory import Batch, Trajectory, run
from tstitch_cli.zoo.entry import Entry
from tstitch_cli.zoo.registry import Zoo


@dataclass(frozen=True)
class Work:
    """Everything a picture's making needs besides its prompt: denoisers, setting, allocation."""

    denoisers: tuple[PlannedDenoiser, ...]
    setting: Setting
    evaluations: tuple[tuple[int, int], ...]
    allocation: Allocation

    def turns(self) -> tuple[str, ...]:
        """The denoiser of every evaluation."""
        return per_evaluation(self.allocation, [n for n, steps in self.evaluations for _ in range(steps)])


@dataclass(frozen=True)
class Drawn:
    """One call that was made: its pictures, the files they went to, and its time in seconds, writing included."""

    images: tuple[Image.Image, ...]
    paths: tuple[Path, ...]
    realised: tuple[str, ...]
    actual_s: float


@dataclass(frozen=True)
class Column:
    """One fraction of a sweep: a picture for every prompt, and the seconds they took together."""

    fraction: float
    images: tuple[Image.Image, ...]
    seconds: float


def work_of(plan: Plan, row: Row) -> Work:
    """What `row` of `plan` asks for."""
    return Work(plan.denoisers, plan.setting, plan.evaluations, row.allocation)


def jobs(prompts: Sequence[str], count: int) -> list[tuple[int, str]]:
    """(index, prompt) of every picture: `count` of the first prompt, then of the next."""
    return [(p * count + i, prompt) for p, prompt in enumerate(prompts) for i in range(count)]


def entries_of(planned: Sequence[PlannedDenoiser]) -> list[Entry]:
    """The zoo entries that a plan's denoisers stand for, at the plan's revisions, smallest first.

    Raises UsageError where one is only a name with a time, BadFileError where its source is not what is needed.
    """
    zoo = Zoo.load()
    for denoiser in planned:
        if not denoiser.source:
            raise UsageError(
                f"{denoiser.name} is only a name with a time, so there is nothing to draw with",
                hint="plans made from --from-times or reference profiles are for looking at; profile real denoisers",
            )
    return [zoo.planned(denoiser) for denoiser in planned]


def refuse_unknown_noise(plan: Plan, row: Row, *, sweep: bool) -> None:
    """Raises UsageError where `row`, or a column of its sweep, gives a denoiser a step whose noise it does not know."""
    allocations = _sweep_of(work_of(plan, row)) if sweep else [row.allocation]
    for allocation in allocations:
        known_steps.refuse_broken(allocation, plan.denoisers)


def check_fingerprint(plan: Plan, entries: Sequence[Entry], device: str) -> None:
    """Raises StaleError where the plan was measured on another machine, with other versions or weights."""
    import torch

    here = fingerprint.take(torch.device(device), {entry.name: components.digest_of(entry) for entry in entries})
    fingerprint.require_same(plan.fingerprint, here, "the plan")


def warm_up(family: Family, work: Work, batch: Batch, clock: Clock) -> float:
    """Makes a two-step call with every denoiser that takes part, so that no drawn call is a first; returns seconds."""
    began = time.perf_counter()
    for name in dict.fromkeys(name for name, _ in work.allocation):
        run(family, batch, name, clock, steps=2, strict=False)
    return time.perf_counter() - began


def draw(
    family: Family,
    work: Work,
    pictures: Sequence[tuple[int, str]],
    clock: Clock,
    *,
    seed: int,
    negative_prompt: str | None,
    folder: Path,
    overwrite: bool,
) -> Iterator[Drawn]:
    """Draws (index, prompt) `pictures` in batches of the setting's size, writing {index:06d}.png as each is done."""
    _require_weights(family)
    size = work.setting.batch_size
    for start in range(0, len(pictures), size):
        indices, prompts = zip(*pictures[start : start + size], strict=True)
        batch = Batch(tuple(prompts), tuple(indices), seed, negative_prompt)
        trajectory = run(family, batch, work.turns(), clock)
        began = time.perf_counter()
        paths = write(family, work, batch, trajectory, folder, overwrite=overwrite)
        yield Drawn(trajectory.images, paths, trajectory.realised, trajectory.total_s + time.perf_counter() - began)


def sweep(
    family: Family,
    work: Work,
    prompts: Sequence[str],
    clock: Clock,
    *,
    seed: int,
    negative_prompt: str | None,
) -> Iterator[Column]:
    """Draws `prompts` from the same noise at every fraction 0, .1 ... 1 of the smallest denoiser, the largest after it.

    Prompts are drawn in batches of the setting's size.
    """
    _require_weights(family)
    size = work.setting.batch_size
    for tenth, allocation in enumerate(_sweep_of(work)):
        turns = replace(work, allocation=allocation).turns()
        images: list[Image.Image] = []
        seconds = 0.0
        for start in range(0, len(prompts), size):
            some = tuple(prompts[start : start + size])
            batch = Batch(some, tuple(range(start, start + len(some))), seed, negative_prompt)
            trajectory = run(family, batch, turns, clock)
            images += trajectory.images
            seconds += trajectory.total_s
        yield Column(tenth / 10, tuple(images), seconds)


def _sweep_of(work: Work) -> list[Allocation]:
    """The eleven allocations of a sweep, the smallest denoiser's share growing from 0 to 1."""
    ends = (work.denoisers[0].name, work.denoisers[-1].name)
    return [runs(ends, whole_steps((tenth, 10 - tenth), work.setting.steps)) for tenth in range(11)]


def redraw(family: Family, made: Provenance, clock: Clock) -> Image.Image:
    """Draws the picture that `made` describes again, at its place in a batch of the size it was drawn in.

    The rest of the batch is filled with the picture itself: kernels may round differently for another batch size or
    position, but not for other neighbours.
    """
    _require_weights(family)
    batch = Batch((made.prompt,) * made.batch_size, (made.index,) * made.batch_size, made.seed, made.negative_prompt)
    work = Work(made.denoisers, made.setting, made.evaluations, made.allocation)
    return run(family, batch, work.turns(), clock).images[made.position]


def _require_weights(family: Family) -> None:
    if RANDOM_WEIGHTS in family.weights.values():
        raise StaleError(
            "these denoisers have random weights: they are there to be timed and draw nothing",
            hint="load them without random_weights",
        )


def write(
    family: Family, work: Work, batch: Batch, trajectory: Trajectory, folder: Path, *, overwrite: bool
) -> tuple[Path, ...]:
    """Writes a call's pictures with their provenance; returns their paths."""
    paths = tuple(picture_path(folder, index) for index in batch.indices)
    for position, (path, image) in enumerate(zip(paths, trajectory.images, strict=True)):
        made = Provenance(
            prompt=batch.prompts[position],
            negative_prompt=batch.negative_prompt,
            seed=batch.seed,
            index=batch.indices[position],
            setting=work.setting,
            family=family.latent_space,
            denoisers=work.denoisers,
            allocation=work.allocation,
            evaluations=work.evaluations,
            batch_size=len(paths),
            position=position,
            weights=family.weights,
            versions=fingerprint.versions(),
        )
        save_picture(path, image, made, overwrite=overwrite)
    return paths


def picture_path(folder: Path, index: int) -> Path:
    """Where picture `index` goes."""
    return folder / f"{index:06d}.png"
