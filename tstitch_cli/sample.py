"""The stage that draws: a row of a plan and prompts -> pictures, with predicted against actual time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from PIL import Image

from tstitch_cli import components, fingerprint, hub, known_steps
from tstitch_cli.allocation import Allocation, per_evaluation, runs, whole_steps
from tstitch_cli.clocks import Clock
from tstitch_cli.denoisers import Family
from tstitch_cli.errors import StaleError, UsageError
from tstitch_cli.fetch_command import fetch_command
from tstitch_cli.hub_errors import advising
from tstitch_cli.images import save_picture
from tstitch_cli.inputs import NOTHING, Given
from tstitch_cli.provenance import Provenance
from tstitch_cli.schema import RANDOM_WEIGHTS, Plan, PlannedDenoiser, Row, Setting
from tstitch_cli.trajectory import Batch, Trajectory, run
from tstitch_cli.zoo import converted
from tstitch_cli.zoo.controls import Control, weights_name
from tstitch_cli.zoo.entry import Entry
from tstitch_cli.zoo.registry import Zoo, control_of


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
    entries = [zoo.planned(denoiser) for denoiser in planned]
    converted.require(entries)
    return [hub.pinned(entry) for entry in entries]


def recorded_control(setting: Setting, weights: Mapping[str, str], entries: Sequence[Entry]) -> Control | None:
    """The ControlNet of a plan or picture, one of the hub at the commit that stands among its `weights`.

    Raises UsageError where there is none of its name or it does not fit `entries`, BadFileError where no commit stands
    there and none can be looked up.
    """
    control = control_of(setting, entries)
    with advising(partial(fetch_command, entries, setting.dtype, control, setting.embeddings)):
        return control and hub.pinned_control(control, weights.get(weights_name(control.name)))


def refuse_unknown_noise(plan: Plan, row: Row, *, sweep: bool) -> None:
    """Raises UsageError where `row`, or a column of its sweep, gives a denoiser a step whose noise it does not know."""
    allocations = _sweep_of(work_of(plan, row)) if sweep else [row.allocation]
    for allocation in allocations:
        known_steps.refuse_broken(allocation, plan.denoisers)


def check_fingerprint(plan: Plan, entries: Sequence[Entry], control: Control | None, device: str) -> None:
    """Raises StaleError where the plan was measured on another machine, with other versions or weights."""
    import torch

    weights = {entry.name: components.digest_of(entry) for entry in entries}
    if control is not None:
        weights[weights_name(control.name)] = components.digest_of(control)
    here = fingerprint.take(torch.device(device), weights)
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
    given: Given = NOTHING,
) -> Iterator[Drawn]:
    """Draws (index, prompt) `pictures` in batches of the setting's size, each written as it is done: see `paths_of`."""
    _require_weights(family)
    size = work.setting.batch_size
    for start in range(0, len(pictures), size):
        indices, prompts = zip(*pictures[start : start + size], strict=True)
        batch = Batch(tuple(prompts), tuple(indices), seed, negative_prompt, given)
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
    given: Given = NOTHING,
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
            batch = Batch(some, tuple(range(start, start + len(some))), seed, negative_prompt, given)
            trajectory = run(family, batch, turns, clock)
            images += trajectory.images
            seconds += trajectory.total_s
        yield Column(tenth / 10, tuple(images), seconds)


def _sweep_of(work: Work) -> list[Allocation]:
    """The eleven allocations of a sweep, the smallest denoiser's share growing from 0 to 1."""
    ends = (work.denoisers[0].name, work.denoisers[-1].name)
    return [runs(ends, whole_steps((tenth, 10 - tenth), work.setting.taken)) for tenth in range(11)]


def redraw(family: Family, made: Provenance, clock: Clock, given: Given = NOTHING) -> tuple[Image.Image, ...]:
    """Draws the frames that `made` describes again (one of a still), at their place in a batch of the same size.

    The rest of the batch is filled with the picture itself: kernels may round differently for another batch size or
    position, but not for other neighbours.
    """
    _require_weights(family)
    batch = Batch(
        (made.prompt,) * made.batch_size, (made.index,) * made.batch_size, made.seed, made.negative_prompt, given
    )
    work = Work(made.denoisers, made.setting, made.evaluations, made.allocation)
    return run(family, batch, work.turns(), clock).frames[made.position]


def _require_weights(family: Family) -> None:
    if RANDOM_WEIGHTS in family.weights.values():
        raise StaleError(
            "these denoisers have random weights: they are there to be timed and draw nothing",
            hint="load them without random_weights",
        )


def write(
    family: Family, work: Work, batch: Batch, trajectory: Trajectory, folder: Path, *, overwrite: bool
) -> tuple[Path, ...]:
    """Writes a call's pictures with their provenance, a video frame by frame; returns their paths."""
    paths: list[Path] = []
    for position, frames in enumerate(trajectory.frames):
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
            batch_size=len(batch.indices),
            position=position,
            weights=family.weights,
            versions=fingerprint.versions(),
            files=(*batch.given.files, *family.loras),
        )
        for path, image in zip(paths_of(folder, made.index, made.setting.frames), frames, strict=True):
            save_picture(path, image, made, overwrite=overwrite)
            paths.append(path)
    return tuple(paths)


def paths_of(folder: Path, index: int, frames: int | None) -> tuple[Path, ...]:
    """Where picture `index` goes: 000007.png, the frames of a video to 000007-000.png, 000007-001.png and so on."""
    if frames is None:
        return (folder / f"{index:06d}.png",)
    return tuple(folder / f"{index:06d}-{frame:03d}.png" for frame in range(frames))
