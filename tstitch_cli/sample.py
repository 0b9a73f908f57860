"""The stage that draws: a row of a plan and prompts -> pictures, with predicted against actual time."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from PIL import Image

from tstitch_cli import components, truncation
from tstitch_cli.allocation import Allocation, per_evaluation, runs, whole_steps
from tstitch_cli.clocks import Clock
from tstitch_cli.denoisers import Family, load
from tstitch_cli.devices import resolve_device
from tstitch_cli.errors import StaleError, UsageError
from tstitch_cli.fetching import hub
from tstitch_cli.fetching.fetch_command import fetch_command
from tstitch_cli.fetching.hub_errors import advising
from tstitch_cli.images import png, write_png
from tstitch_cli.inputs import NOTHING, Given
from tstitch_cli.jobs.job import Job, job_of
from tstitch_cli.jobs.manifest import claimed
from tstitch_cli.jobs.request import Pictures, Request, names_of
from tstitch_cli.lora import merge
from tstitch_cli.measuring import fingerprint
from tstitch_cli.planning import known_steps
from tstitch_cli.provenance import Provenance
from tstitch_cli.schema import RANDOM_WEIGHTS, GivenFile, Plan, PlannedDenoiser, Row, Setting
from tstitch_cli.trajectory import Batch, Trajectory, run
from tstitch_cli.zoo import converted
from tstitch_cli.zoo.controls import Control, weights_name
from tstitch_cli.zoo.entry import Entry
from tstitch_cli.zoo.registry import Zoo, control_of

TENTHS = tuple(range(11))
"""Tenths of the steps that the smallest denoiser takes in a sweep."""


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
class Order:
    """All that a process has to have to draw batches of a request, wherever it runs."""

    work: Work
    entries: tuple[Entry, ...]
    control: Control | None = None
    given: Given = NOTHING
    loras: tuple[GivenFile, ...] = ()

    def load(self) -> Family:
        """The denoisers, with the LoRAs merged; raises what `denoisers.load` and `lora.merge` raise."""
        return merge(load(self.entries, self.work.setting, control=self.control), self.loras)


@dataclass(frozen=True)
class Identity:
    """What is not in a request and decides its pictures' bytes."""

    weights: dict[str, str]
    """As `weights_of` has them."""
    versions: dict[str, str]


@dataclass(frozen=True)
class Drawn:
    """One call that was made: its PNGs by name, and its time in seconds, writing included once they are written."""

    files: tuple[tuple[str, bytes], ...] = field(repr=False)
    realised: tuple[str, ...]
    actual_s: float
    pictures: int
    paths: tuple[Path, ...] = ()
    """Where the files are, once they are."""
    remarks: tuple[str, ...] = ()
    """What is to be told of its prompts: see `truncation.remarks`."""


@dataclass(frozen=True)
class Column:
    """One fraction of a sweep: a picture for every prompt, and the seconds they took together."""

    fraction: float
    images: tuple[Image.Image, ...]
    seconds: float


def work_of(plan: Plan, row: Row) -> Work:
    """What `row` of `plan` asks for."""
    return Work(plan.denoisers, plan.setting, plan.evaluations, row.allocation)


def job(work: Work, request: Request, identity: Identity | None = None) -> Job:
    """What decides every byte of `request`'s pictures; without `identity` as much of it as is known before loading."""
    known = (None, None) if identity is None else (identity.weights, identity.versions)
    return job_of(request, work.setting, work.denoisers, work.evaluations, work.allocation, *known)


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


def weights_of(entries: Sequence[Entry], control: Control | None) -> dict[str, str]:
    """What the weights that are here are known by: denoiser, `control NAME` for a ControlNet -> digest or commit."""
    weights = {entry.name: components.digest_of(entry) for entry in entries}
    if control is not None:
        weights[weights_name(control.name)] = components.digest_of(control)
    return weights


def check_fingerprint(plan: Plan, entries: Sequence[Entry], control: Control | None, device: str) -> dict[str, str]:
    """What the weights that are here are known by, as `weights_of` has it.

    Raises StaleError where the plan was measured on another machine, with other versions or weights.
    """
    import torch

    here = fingerprint.take(torch.device(device), weights_of(entries, control))
    fingerprint.require_same(plan.fingerprint, here, "the plan")
    return here.weights


def identify(plan: Plan, order: Order, *, allow_stale: bool) -> Identity:
    """What is here to draw `order` with.

    Raises DeviceError where the plan's device is not here, StaleError where the machine, the versions or the weights
    are others than the plan was measured with, unless `allow_stale`.
    """
    device = resolve_device(plan.setting.device)
    if allow_stale:
        weights = weights_of(order.entries, order.control)
    else:
        weights = check_fingerprint(plan, order.entries, order.control, device)
    return Identity(weights, fingerprint.versions())


def warm_up(family: Family, work: Work, batch: Batch, clock: Clock) -> float:
    """Makes a two-step call with every denoiser that takes part, so that no drawn call is a first; returns seconds."""
    began = time.perf_counter()
    for name in dict.fromkeys(name for name, _ in work.allocation):
        run(family, batch, name, clock, steps=2, strict=False)
    return time.perf_counter() - began


def draw(family: Family, work: Work, request: Request, clock: Clock) -> Iterator[Drawn]:
    """Draws what `request` asks for and is not there yet, each batch written to its folder and manifest as it is done.

    Raises BadFileError where the folder holds something else or cannot be written: see `manifest.claimed`.
    """
    require_weights(family)
    with claimed(job(work, request, Identity(family.weights, fingerprint.versions())), request) as manifest:
        for drawn in draw_each(family, work, manifest.missing, request.given, clock):
            began = time.perf_counter()
            paths = manifest.record(drawn.files)
            yield replace(drawn, paths=paths, actual_s=drawn.actual_s + time.perf_counter() - began)


def draw_each(family: Family, work: Work, batches: Iterable[Pictures], given: Given, clock: Clock) -> Iterator[Drawn]:
    """Draws `batches` one after another and writes nothing."""
    require_weights(family)
    for pictures in batches:
        batch = batch_of(pictures, given)
        told = truncation.remarks(family.pipeline, (*batch.prompts, *(batch.negative_prompts or ())))
        trajectory = run(family, batch, work.turns(), clock)
        began = time.perf_counter()
        files = encoded(family, work, batch, trajectory)
        seconds = trajectory.total_s + time.perf_counter() - began
        yield Drawn(files, trajectory.realised, seconds, len(pictures), remarks=told)


def batch_of(pictures: Pictures, given: Given = NOTHING) -> Batch:
    """The call that draws `pictures`, all of which have a negative prompt or none has."""
    negative = tuple(picture.negative_prompt for picture in pictures if picture.negative_prompt is not None)
    return Batch(
        tuple(picture.prompt for picture in pictures),
        tuple(picture.index for picture in pictures),
        tuple(picture.seed for picture in pictures),
        negative or None,
        given,
    )


def sweep(
    family: Family,
    work: Work,
    batches: Iterable[Pictures],
    clock: Clock,
    given: Given = NOTHING,
    tenths: Sequence[int] = TENTHS,
) -> Iterator[Column]:
    """Draws `batches` from the same noise at the fractions `tenths` of the smallest denoiser, the largest after it.

    The pictures of a column are in the order of `batches`.
    """
    require_weights(family)
    batches = tuple(batches)
    allocations = _sweep_of(work)
    for tenth in tenths:
        turns = replace(work, allocation=allocations[tenth]).turns()
        images: list[Image.Image] = []
        seconds = 0.0
        for pictures in batches:
            trajectory = run(family, batch_of(pictures, given), turns, clock)
            images += trajectory.images
            seconds += trajectory.total_s
        yield Column(tenth / 10, tuple(images), seconds)


def _sweep_of(work: Work) -> list[Allocation]:
    """The eleven allocations of a sweep, the smallest denoiser's share growing from 0 to 1."""
    ends = (work.denoisers[0].name, work.denoisers[-1].name)
    return [runs(ends, whole_steps((tenth, 10 - tenth), work.setting.taken)) for tenth in TENTHS]


def redraw(family: Family, made: Provenance, clock: Clock, given: Given = NOTHING) -> tuple[Image.Image, ...]:
    """Draws the frames that `made` describes again (one of a still), at their place in a batch of the same size.

    The rest of the batch is filled with the picture itself: kernels may round differently for another batch size or
    position, but not for other neighbours.
    """
    require_weights(family)
    batch = Batch(
        (made.prompt,) * made.batch_size, (made.index,) * made.batch_size, made.seed, made.negative_prompt, given
    )
    work = Work(made.denoisers, made.setting, made.evaluations, made.allocation)
    return run(family, batch, work.turns(), clock).frames[made.position]


def require_weights(family: Family) -> None:
    """Raises StaleError where the weights are random, so that pictures would be of nothing."""
    if RANDOM_WEIGHTS in family.weights.values():
        raise StaleError(
            "these denoisers have random weights: they are there to be timed and draw nothing",
            hint="load them without random_weights",
        )


def encoded(family: Family, work: Work, batch: Batch, trajectory: Trajectory) -> tuple[tuple[str, bytes], ...]:
    """Name and bytes of a call's PNGs, which tell how they were made; a video's are its frames."""
    found: list[tuple[str, bytes]] = []
    for position, frames in enumerate(trajectory.frames):
        made = Provenance(
            prompt=batch.prompts[position],
            negative_prompt=None if batch.negative_prompts is None else batch.negative_prompts[position],
            seed=batch.seeds[position],
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
        names = names_of(made.index, made.setting.frames)
        found += [(name, png(image, made)) for name, image in zip(names, frames, strict=True)]
    return tuple(found)


def write(
    family: Family, work: Work, batch: Batch, trajectory: Trajectory, folder: Path, *, overwrite: bool
) -> tuple[Path, ...]:
    """Writes a call's pictures into `folder`; returns their paths."""
    files = [(folder / name, content) for name, content in encoded(family, work, batch, trajectory)]
    for path, content in files:
        write_png(path, content, overwrite=overwrite)
    return tuple(path for path, _ in files)
